// Large requests. All that takes time in proportion to a request's size is done in steps, for so long in each round of
// the loop, and the large ones take turns.
#include <algorithm>
#include <utility>

#include "worker/session.h"

namespace mindserve::worker {
namespace {

constexpr size_t kStep = SlicedReply::kInstances;
// How long a round's steps may take together, with one more.
constexpr Duration kSlice = std::chrono::microseconds(300);

}  // namespace

void Runtime::Session::OpenSliced(Request& request, const link::GatewayFrame& frame) {
  request.sliced = std::make_unique<Sliced>();
  request.sliced->method_number = frame.method;
  request.sliced->expected = frame.instances;
  // What the gateway says is not believed beyond what the bytes can hold.
  request.sliced->read.reserve(std::min<size_t>(frame.instances, frame.payload.size() / 2));
  request.sliced->reader.emplace(frame.payload, request.method.inputs, request.payload);
  sliced_.push_back({request.lane, request.call});
}

void Runtime::Session::RunSliced() {
  if (sliced_.empty()) return;
  const TimePoint until = runtime_.time_.Now() + kSlice;
  do {
    const Releases::Entry entry = sliced_.front();
    sliced_.pop_front();
    const auto found = calls_[entry.lane].find(entry.call);
    if (found == calls_[entry.lane].end() || found->second->sliced == nullptr) continue;
    if (Step(*found->second)) sliced_.push_back(entry);
  } while (!sliced_.empty() && runtime_.time_.Now() < until);
}

bool Runtime::Session::Step(Request& request) {
  Sliced& sliced = *request.sliced;
  switch (sliced.phase) {
    case Sliced::Phase::kReading:
      return StepReading(request);
    case Sliced::Phase::kSubmitting:
      return StepSubmitting(request);
    case Sliced::Phase::kExecuted:
    case Sliced::Phase::kAllocating:
      return false;
    case Sliced::Phase::kMeasuring:
      if (request.context->cancelled) {
        sliced.phase = Sliced::Phase::kFreeing;
        return true;
      }
      if (!sliced.reply->Measure()) return true;
      sliced.phase = Sliced::Phase::kAllocating;
      TryInTurn(request, &Session::AllocateSliced);
      return false;
    case Sliced::Phase::kWriting:
      if (sliced.reply->Write()) sliced.phase = Sliced::Phase::kFreeing;
      return true;
    case Sliced::Phase::kFreeing:
      return StepFreeing(request);
  }
  return false;
}

bool Runtime::Session::StepReading(Request& request) {
  Sliced& sliced = *request.sliced;
  if (request.context->cancelled) {
    End(request, Status(Code::kCancelled, "the call was cancelled"));
    return false;
  }
  for (size_t i = 0; i < kStep && sliced.reader->Next(); ++i) {
    auto& [status, inputs] = sliced.read.emplace_back();
    status = sliced.reader->Read(&inputs);
    if (status.code() == Code::kDataLoss) {
      End(request, Status(Code::kInvalidArgument, status.message()));
      return false;
    }
    if (i + 1 == kStep) return true;
  }
  Status status = sliced.reader->status();
  if (status.ok() && sliced.read.size() != sliced.expected) status = WrongCount(sliced.read.size(), sliced.expected);
  if (!status.ok()) {
    End(request, status);
    return false;
  }
  request.left = sliced.read.size();
  request.replies.reserve(sliced.read.size());
  sliced.reader.reset();
  sliced.phase = Sliced::Phase::kSubmitting;
  return true;
}

bool Runtime::Session::StepSubmitting(Request& request) {
  Sliced& sliced = *request.sliced;
  const size_t count = std::min(kStep, sliced.read.size() - sliced.submitted);
  const bool last = sliced.submitted + count == sliced.read.size();
  // Held by one more than there are instances, so that none of these can be its end.
  ++request.left;
  if (request.context->cancelled) {
    request.left -= sliced.read.size() - sliced.submitted;
    sliced.submitted = sliced.read.size();
  } else {
    request.replies.resize(sliced.submitted + count);
    for (const size_t end = sliced.submitted + count; sliced.submitted < end; ++sliced.submitted) {
      ReadInstance& instance = sliced.read[sliced.submitted];
      const auto index = static_cast<uint32_t>(sliced.submitted);
      if (instance.status.ok()) {
        engine_.Submit(sliced.method_number, request.context, index, instance.inputs, now_);
      } else {
        request.InstanceDone(index, std::move(instance.status), {});
      }
      instance = {};
    }
    if (!last) {
      --request.left;
      return true;
    }
  }
  sliced.read = {};
  sliced.phase = Sliced::Phase::kExecuted;
  if (--request.left == 0) Answer(request);
  return false;
}

void Runtime::Session::AnswerSliced(Request& request) {
  if (request.sliced == nullptr) request.sliced = std::make_unique<Sliced>();
  request.sliced->phase = Sliced::Phase::kMeasuring;
  request.sliced->reply.emplace(request.method.outputs, request.replies);
  sliced_.push_back({request.lane, request.call});
}

AnswerLine::Tried Runtime::Session::AllocateSliced(Request& request, bool others_wait) {
  Sliced& sliced = *request.sliced;
  const size_t size = sliced.reply->size();
  if (size > runtime_.options_.reply_arena_bytes / 2) {
    EndTooLarge(request, size);
    return AnswerLine::Tried::kDone;
  }
  const auto slab = Allocate(request, size, others_wait);
  if (!slab) return AnswerLine::WhyNot(slab);
  sliced.slab = *slab;
  sliced.reply->Begin(sliced.slab->bytes);
  sliced.phase = Sliced::Phase::kWriting;
  sliced_.push_back({request.lane, request.call});
  return AnswerLine::Tried::kDone;
}

// The results that are written, before the answer goes: the request's bytes may be free with it.
bool Runtime::Session::StepFreeing(Request& request) {
  auto& replies = request.replies;
  replies.resize(replies.size() - std::min(kStep, replies.size()));
  if (!replies.empty()) return true;
  const Sliced& sliced = *request.sliced;
  if (!sliced.slab) {
    End(request, Status(Code::kCancelled, "the call was cancelled"));
    return false;
  }
  uint8_t flags = link::kEnds;
  if (sliced.reply->has_errors()) flags |= link::kHasErrors;
  if (LetGo(request)) flags |= link::kReleased;
  link_->SendReply(request.lane, request.call, *sliced.slab, flags);
  Forget(request);
  return false;
}

}  // namespace mindserve::worker
