#include "worker/session.h"

#include <algorithm>
#include <atomic>
#include <iterator>
#include <new>
#include <utility>

#include "base/log.h"
#include "wire/call_head.h"

namespace mindserve::worker {

namespace {

// So often the master is told at least that this thread still comes round.
constexpr Duration kBeat = std::chrono::milliseconds(500);
// So long answers wait for room before the gateway is told, and before it is told again.
constexpr Duration kPatience = std::chrono::seconds(5);
// Of a lane's requests so many instances are read before others have their turn.
constexpr size_t kRoundInstances = 1024;

}  // namespace

void Runtime::Session::Request::InstanceDone(uint32_t index, Status status, std::span<Tensor> outputs) {
  wire::InstanceReply& reply = replies[index];
  try {
    if (status.ok()) {
      reply.outputs.assign(std::make_move_iterator(outputs.begin()), std::make_move_iterator(outputs.end()));
    } else {
      if (status.code() == Code::kDeadlineExceeded) ++late;
      reply.code = wire::ErrorCodeOf(status.code());
      reply.error = status.message();
    }
  } catch (const std::bad_alloc&) {
    reply.outputs.clear();
    reply.code = wire::ErrorCode::kSystemError;
    reply.error = "out of memory";  // short enough to need none
  }
  if (--left == 0) session.Answer(*this);
}

void Runtime::Session::Handle(size_t lane, const link::GatewayFrame& frame) {
  if (frame.type == link::FrameType::kReleaseReply) return service_calls_.Credit(lane, frame.call);
  if (frame.type == link::FrameType::kCancel) {
    const auto found = calls_[lane].find(frame.call);
    if (found == calls_[lane].end()) {
      // Of a handler, or it was answered while the cancellation was on its way.
      service_calls_.Cancel(lane, frame.call);
    } else if (starved_[lane].Remove(frame.call)) {
      End(*found->second, Status(Code::kCancelled, "the call was cancelled"));
    } else {
      engine_.Cancel(*found->second->context);
    }
    return;
  }
  if (frame.type == link::FrameType::kHead) return TakeHead(lane, frame);
  if ((frame.flags & link::kOpens) == 0) return service_calls_.Message(lane, frame);
  if (!OpenService(lane, frame)) Open(lane, frame);
}

void Runtime::Session::TakeHead(size_t lane, const link::GatewayFrame& frame) {
  auto head = wire::ReadCallHead(frame.payload);
  if (!head.ok()) return Log(LogLevel::kError, head.status().message());  // the call can do without
  heads_[lane] = {
      frame.call,
      std::make_shared<const pipeline::RequestOrigin>(pipeline::RequestOrigin{
          .request_id = std::string(head->request_id), .depth = head->depth, .callers = std::move(head->callers)})};
}

bool Runtime::Session::OpenService(size_t lane, const link::GatewayFrame& frame) {
  const size_t methods = engine_.methods();
  const bool known = frame.method >= methods && frame.method - methods < runtime_.handlers_->size();
  if (!known || service_calls_.Contains(lane, frame.call)) return false;
  service_calls_.Open(lane, frame, static_cast<int>(frame.method - methods), now_);
  return true;
}

void Runtime::Session::Open(size_t lane, const link::GatewayFrame& frame) {
  constexpr uint8_t kUnary = link::kOpens | link::kEnds;
  Head& head = heads_[lane];
  auto origin = head.call == frame.call ? std::move(head.origin) : nullptr;
  const bool known = frame.method < engine_.methods();
  if ((frame.flags & kUnary) != kUnary || !known || calls_[lane].contains(frame.call)) {
    Log(LogLevel::kError, "the gateway sent a call that this worker does not know how to take: method " +
                              std::to_string(frame.method) + ", flags " + std::to_string(frame.flags));
    link_->SendEnd(lane, frame.call, Status(Code::kInternal, "the worker was sent a call that it does not know"),
                   link::kReleased);
    return;
  }
  if (runtime_.options_.refuse_late && RefuseLate(lane, frame)) return;
  const pipeline::MethodSpec& method = engine_.method(frame.method);
  auto owned = std::make_unique<Request>(*this, lane, frame.call, method);
  Request& request = *owned;
  request.payload =
      std::make_shared<Payload>(runtime_.releases_, Releases::Entry{lane, frame.call}, frame.payload.size());
  request.context = std::make_shared<pipeline::RequestContext>();
  request.context->client = frame.client;
  if (frame.deadline_ns != INT64_MAX) request.context->deadline = TimePoint(Duration(frame.deadline_ns));
  request.context->sink = &request;
  request.context->mark = link_->MarkOf(lane, frame.call);
  request.context->origin = std::move(origin);
  request.context->key = frame.key;
  request.context->alone = (frame.flags & link::kAlone) != 0;
  calls_[lane].emplace(frame.call, std::move(owned));
  if (Classifies(request)) return OpenClassification(request, frame);
  if (frame.instances > SlicedReply::kInstances) return OpenSliced(request, frame);

  // All instances are read before the first is submitted, so that a request that does not parse is refused whole.
  const Status read = Read(request, frame);
  if (!read.ok()) {
    ClearRead();
    End(request, read);
    return;
  }
  request.replies.resize(read_count_);
  request.left = read_count_;
  for (uint32_t i = 0; i < read_count_; ++i) {
    auto& [status, inputs] = read_[i];
    if (status.ok()) {
      engine_.Submit(frame.method, request.context, i, inputs, now_);
    } else {
      request.InstanceDone(i, std::move(status), {});
    }
  }
  ClearRead();
}

void Runtime::Session::ClearRead() {
  constexpr size_t kKept = 256;
  if (read_.size() > kKept) read_.resize(kKept);
  for (size_t i = 0; i < std::min(read_count_, read_.size()); ++i) {
    read_[i].status = Status::Ok();
    read_[i].inputs.clear();
  }
  read_count_ = 0;
}

Status Runtime::Session::Read(const Request& request, const link::GatewayFrame& frame) {
  wire::InstanceReader reader(frame.payload, request.method.inputs, request.payload);
  while (reader.Next()) {
    if (read_count_ == read_.size()) read_.emplace_back();
    auto& [status, inputs] = read_[read_count_++];
    status = reader.Read(&inputs);
    if (status.code() == Code::kDataLoss) return {Code::kInvalidArgument, status.message()};
  }
  MS_RETURN_IF_ERROR(reader.status());
  if (read_count_ == 0 || read_count_ != frame.instances) {
    return WrongCount(read_count_, frame.instances);
  }
  return Status::Ok();
}

bool Runtime::Session::LetGo(Request& request) {
  request.replies.clear();
  if (request.sliced != nullptr) {
    request.sliced->reader.reset();
    request.sliced->read.clear();
  }
  const bool alone = request.payload.use_count() == 1;
  if (alone) {
    // Pairs with the release in the decrement by which the last other owner, on whatever thread, let go.
    std::atomic_thread_fence(std::memory_order_acquire);
    request.payload->MarkReleased();
  } else {
    request.payload->MarkRetained();
  }
  return alone;
}

void Runtime::Session::End(Request& request, const Status& status) {
  const uint8_t flags = LetGo(request) ? static_cast<uint8_t>(link::kReleased) : uint8_t{0};
  link_->SendEnd(request.lane, request.call, status, flags);
  Forget(request);
}

void Runtime::Session::Answer(Request& request) {
  if (request.context->cancelled) {
    End(request, Status(Code::kCancelled, "the call was cancelled"));
  } else if (request.late == request.replies.size()) {
    // That nothing of it is in time concerns the call as such.
    End(request, Status(Code::kDeadlineExceeded, request.replies.front().error));
  } else {
    TryInTurn(request, &Session::TryReply);
  }
}

link::WorkerLink::Allocation Runtime::Session::Allocate(const Request& request, size_t size, bool others_wait) {
  const auto& origin = request.context->origin;
  const uint64_t client = SharerOf(request.context->client, origin ? origin->depth : 0);
  return link_->AllocateReply(request.lane, size, client, link::WorkerLink::For::kAnswer, others_wait);
}

void Runtime::Session::TryInTurn(Request& request, Attempt attempt) {
  AnswerLine& line = starved_[request.lane];
  const bool others_wait = service_calls_.full(request.lane) || line.full();
  const bool waits = line.Holds(request.context->client);
  const auto tried = waits ? AnswerLine::Tried::kFull : (this->*attempt)(request, others_wait);
  if (tried != AnswerLine::Tried::kDone) line.Push(request.call, request.context->client, tried);
}

void Runtime::Session::OpenClassification(Request& request, const link::GatewayFrame& frame) {
  const auto target = runtime_.classifier_->Read(frame.payload, frame.key, request.payload, &classification_);
  if (!target.ok()) return End(request, target.status());
  request.shaped_by_client = target->shaped_by_client;
  request.replies.resize(1);
  request.left = 1;
  engine_.Submit(target->method, request.context, 0, classification_, now_);
}

AnswerLine::Tried Runtime::Session::TryClassificationReply(Request& request, bool others_wait) {
  const wire::InstanceReply& reply = request.replies.front();
  if (reply.code != wire::ErrorCode::kSuccess) {
    End(request, Status(wire::CodeOf(reply.code), reply.error));
    return AnswerLine::Tried::kDone;
  }
  const auto writer = runtime_.classifier_->Write(request.method.outputs, reply.outputs, request.shaped_by_client);
  if (!writer.ok()) {
    End(request, writer.status());
    return AnswerLine::Tried::kDone;
  }
  if (writer->size() > runtime_.options_.reply_arena_bytes / 2) {
    EndTooLarge(request, writer->size());
    return AnswerLine::Tried::kDone;
  }
  const auto slab = Allocate(request, writer->size(), others_wait);
  if (!slab) return AnswerLine::WhyNot(slab);
  writer->WriteTo(slab->bytes);
  uint8_t flags = link::kEnds;
  if (LetGo(request)) flags |= link::kReleased;
  link_->SendReply(request.lane, request.call, *slab, flags);
  Forget(request);
  return AnswerLine::Tried::kDone;
}

AnswerLine::Tried Runtime::Session::TryReply(Request& request, bool others_wait) {
  if (Classifies(request)) return TryClassificationReply(request, others_wait);
  if (request.sliced != nullptr && request.sliced->phase == Sliced::Phase::kAllocating)
    return AllocateSliced(request, others_wait);
  if (request.replies.size() > SlicedReply::kInstances) {
    AnswerSliced(request);
    return AnswerLine::Tried::kDone;
  }
  const wire::ReplyWriter writer(request.method.outputs, request.replies);
  if (writer.size() > SlicedReply::kBytes) {
    AnswerSliced(request);
    return AnswerLine::Tried::kDone;
  }
  if (writer.size() > runtime_.options_.reply_arena_bytes / 2) {
    EndTooLarge(request, writer.size());
    return AnswerLine::Tried::kDone;
  }
  const auto slab = Allocate(request, writer.size(), others_wait);
  if (!slab) return AnswerLine::WhyNot(slab);
  writer.WriteTo(slab->bytes);
  uint8_t flags = link::kEnds;
  if (writer.has_errors()) flags |= link::kHasErrors;
  if (LetGo(request)) flags |= link::kReleased;
  link_->SendReply(request.lane, request.call, *slab, flags);
  Forget(request);
  return AnswerLine::Tried::kDone;
}

void Runtime::Session::EndTooLarge(Request& request, size_t size) {
  End(request, Status(Code::kResourceExhausted,
                      "the answer has " + std::to_string(size) + " bytes, more than a message can have"));
}

Status Runtime::Session::WrongCount(size_t count, size_t expected) {
  return {Code::kInvalidArgument,
          "the request has " + std::to_string(count) + " instances, expected " + std::to_string(expected)};
}

bool Runtime::Session::RetryStarved() {
  bool more = false;
  for (size_t lane = 0; lane < starved_.size(); ++lane) {
    if (starved_[lane].empty()) continue;
    more |= starved_[lane].Retry(
        link_->Releases(lane), [&](uint64_t call) { return TryReply(*calls_[lane].at(call), /*others_wait=*/false); });
  }
  return more;
}

void Runtime::Session::TellLacks() {
  for (size_t lane = 0; lane < starved_.size(); ++lane) {
    TimePoint& since = full_since_[lane];
    if (!starved_[lane].full() && !service_calls_.lacks(lane)) {
      since = kNever;
    } else if (since == kNever) {
      since = now_;
    } else if (now_ - since >= kPatience) {
      since = now_;
      link_->SendLacks(lane);
    }
  }
  if (now_ - stuck_asked_ < kPatience) return;
  stuck_asked_ = now_;
  for (size_t lane = 0; lane < starved_.size(); ++lane) {
    stuck_.clear();
    starved_[lane].AddStuck(&stuck_);
    service_calls_.AddStuck(lane, &stuck_);
    for (const uint64_t call : stuck_) link_->SendOverShare(lane, call);
  }
}

void Runtime::Session::SendReleases() {
  runtime_.releases_->Take(&releases_);
  for (const auto& [lane, call] : releases_) link_->SendRelease(lane, call);
}

void Runtime::Session::AwaitBell() {
  // Being awake is all that it is for.
  bell_->AwaitReadable([this] {
    link_->EmptyBell();
    AwaitBell();
  });
}

void Runtime::Session::SetTimer(TimePoint at) {
  if (at >= timer_at_) return;  // one that comes too early finds nothing to do
  timer_at_ = at;
  timer_->Start(at, [this] { timer_at_ = kNever; });
}

void Runtime::Session::StopWith(Status status) {
  status_ = std::move(status);
  runtime_.loop_->Stop();
}

void Runtime::Session::RoundEnd() {
  now_ = runtime_.time_.Now();
  runtime_.stats_->Beat(now_);
  link::GatewayFrame frame;
  for (size_t lane = 0; lane < link_->lanes(); ++lane) {
    // What is left is seen before the loop sleeps.
    for (size_t instances = 0; instances < kRoundInstances && link_->Receive(lane, &frame);) {
      Handle(lane, frame);
      instances += 1 + (frame.instances > SlicedReply::kInstances ? 0 : frame.instances);
    }
  }
  if (!link_->fault().ok()) return StopWith(link_->fault());
  SendReleases();
  RunSliced();
  const TimePoint next = engine_.Poll();
  more_ = !sliced_.empty() || (next != kNever && next <= runtime_.time_.Now());
  const TimePoint hung = FindHung();
  const bool starved = RetryStarved();
  const TimePoint handlers = service_calls_.Poll(now_, [this](size_t lane) { return starved_[lane].full(); });
  for (size_t lane = 0; lane < starved_.size(); ++lane) {
    link_->AwaitMemory(lane, !starved_[lane].empty() || service_calls_.starved(lane));
  }
  TellLacks();
  more_ = more_ || starved || !sliced_.empty() || handlers <= now_;
  if (!more_) SetTimer(std::min({next, hung, handlers, now_ + kBeat}));
  link_->Flush();
}

Status Runtime::Session::Run() {
  AwaitBell();
  // Nothing is ever said on the socket after the handshake: what makes it readable is its end.
  hang_up_->AwaitReadable([this] { StopWith({Code::kUnavailable, "the gateway is gone"}); });
  SetTimer(runtime_.time_.Now());  // beats before anything is asked
  runtime_.loop_->Run(this);
  return status_;
}

}  // namespace mindserve::worker
