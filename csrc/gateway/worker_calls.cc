#include "gateway/worker_calls.h"

#include <algorithm>
#include <utility>

namespace mindserve::gateway {

int WorkerEnd::MethodIndex(std::string_view method) const {
  const auto found = std::ranges::find(spec_.methods, method, &WorkerSpec::Method::name);
  return found == spec_.methods.end() ? -1 : static_cast<int>(found - spec_.methods.begin());
}

void WorkerEnd::Return(std::span<const std::byte> bytes) {
  if (gone) return;
  lane_->ReleaseReply(bytes);
  if (calls_ != nullptr) calls_->SetBusy(*this);
}

void WorkerEnd::ReturnMessage(std::span<const std::byte> bytes, uint64_t call) {
  if (gone) return;
  lane_->ReleaseReply(bytes, call);
  if (calls_ != nullptr) calls_->SetBusy(*this);
}

void WorkerCalls::Add(std::shared_ptr<WorkerEnd> worker) {
  worker->calls_ = this;
  SetBusy(*worker);
  workers_.push_back(std::move(worker));
}

void WorkerCalls::SetBusy(WorkerEnd& worker) {
  if (std::exchange(worker.busy_, true)) return;
  busy_.push_back(&worker);
}

void WorkerCalls::Remove(const std::shared_ptr<WorkerEnd>& gone, const WorkerLoss& loss) {
  const std::shared_ptr<WorkerEnd> worker = gone;  // the caller's may be one of those that are cleared
  worker->draining = true;                         // who is told of an answer sends nothing more here
  Receive(*worker);
  worker->gone = true;
  worker->calls_ = nullptr;
  if (std::exchange(worker->busy_, false)) std::erase(busy_, worker.get());
  std::erase(workers_, worker);
  struct Lost {
    WorkerCallListener* listener;
    uint32_t tag;
    LostCall call;
  };
  std::vector<Lost> lost;
  for (uint32_t place = 0; place < entries_.size(); ++place) {
    Entry& entry = entries_[place];
    if (!entry.live || entry.worker != worker) continue;
    if (!entry.ended && entry.listener != nullptr) {
      const uint64_t call = NumberOf(entry, place);
      const bool marked = worker->lane().MayHaveBegun(call);
      lost.push_back({entry.listener, entry.tag,
                      LostCall{.worker = worker->spec().id,
                               .begun = marked || !loss.dead,
                               .executing = loss.Executing(worker->lane().TagOf(call), marked),
                               .loss = loss}});
    }
    Drop(entry, place);
  }
  // Handlers outlive this: the transport never destroys one from within a call to it.
  for (const Lost& each : lost) each.listener->OnWorkerLost(each.tag, each.call);
}

void WorkerCalls::Drain(WorkerEnd& worker) {
  if (std::exchange(worker.draining, true)) return;
  if (worker.load == 0 && !worker.gone) on_drained_(worker.spec().id);
}

uint32_t WorkerCalls::AddEntry(const std::shared_ptr<WorkerEnd>& worker, size_t instances,
                               const std::shared_ptr<Request>& request, WorkerCallListener& listener, uint32_t tag) {
  if (free_.empty()) {
    free_.push_back(static_cast<uint32_t>(entries_.size()));
    entries_.emplace_back();
  }
  const uint32_t place = free_.back();
  free_.pop_back();
  Entry& entry = entries_[place];
  entry.tag = tag;
  entry.instances = static_cast<uint32_t>(instances);
  entry.live = true;
  entry.ended = entry.released = entry.user = false;
  entry.listener = &listener;
  entry.worker = worker;
  entry.request = request;
  ++request->working;
  ++worker->held_;
  ++worker->requests;
  SetBusy(*worker);
  worker->load += instances;
  return place;
}

uint64_t WorkerCalls::Open(const std::shared_ptr<WorkerEnd>& worker, uint16_t method, const Payload& payload,
                           const std::shared_ptr<Request>& request, const Terms& terms, WorkerCallListener& listener,
                           uint32_t tag) {
  const uint32_t place = AddEntry(worker, payload.instances, request, listener, tag);
  const uint64_t call = NumberOf(entries_[place], place);
  if (request->head) [[unlikely]] {
    worker->lane().SendHead(call, request->head->offset(), request->head->bytes().size());
  }
  worker->lane().SendOpen({.call = call,
                           .method = method,
                           .instances = payload.instances,
                           .deadline_ns = std::chrono::nanoseconds(terms.deadline.time_since_epoch()).count(),
                           .client = terms.client,
                           .offset = request->message.offset() + payload.offset,
                           .length = payload.length,
                           .key = terms.key,
                           .ends = true,
                           .alone = terms.alone});
  return call;
}

uint64_t WorkerCalls::OpenUser(const std::shared_ptr<WorkerEnd>& worker, uint16_t method,
                               const std::shared_ptr<Request>& request, const Terms& terms,
                               WorkerCallListener& listener) {
  const uint32_t place = AddEntry(worker, 1, request, listener, 0);
  entries_[place].user = true;
  const uint64_t call = NumberOf(entries_[place], place);
  worker->lane().SendOpen({.call = call,
                           .method = method,
                           .instances = 0,
                           .deadline_ns = std::chrono::nanoseconds(terms.deadline.time_since_epoch()).count(),
                           .client = terms.client,
                           .offset = request->message.offset(),
                           .length = request->message.bytes().size(),
                           .ends = false});
  for (auto held = request->stream.begin(); held != request->stream.end(); ++held) {
    const Message& message = held->message;
    const bool ends = request->half_closed && held + 1 == request->stream.end();
    worker->lane().SendMessage(call, message.offset(), message.bytes().size(), ends);
  }
  if (request->half_closed && request->stream.empty()) worker->lane().SendHalfClose(call);
  return call;
}

void WorkerCalls::SendMessage(uint64_t call, const Message& message) {
  Entry* entry = Find(call);
  if (entry == nullptr || entry->ended) return;
  entry->worker->lane().SendMessage(call, message.offset(), message.bytes().size(), /*ends=*/false);
}

void WorkerCalls::SendHalfClose(uint64_t call) {
  Entry* entry = Find(call);
  if (entry != nullptr && !entry->ended) entry->worker->lane().SendHalfClose(call);
}

WorkerCalls::Entry* WorkerCalls::Find(uint64_t call) {
  const uint64_t place = call & 0xffffffff;
  if (place >= entries_.size()) return nullptr;
  Entry& entry = entries_[place];
  return entry.live && entry.generation == call >> 32 ? &entry : nullptr;
}

void WorkerCalls::Cancel(uint64_t call) {
  Entry* entry = Find(call);
  if (entry == nullptr || entry->ended) return;
  entry->listener = nullptr;
  link::Lane& lane = entry->worker->lane();
  lane.SendCancel(call);  // the worker is busy: it holds the call
  on_given_up_(lane.TagOf(call));
}

void WorkerCalls::Drop(Entry& entry, uint32_t place) {
  if (!entry.ended && !entry.released) entry.request->WorkerIsDone();
  if (!entry.ended) End(entry);
  entry.live = false;
  entry.listener = nullptr;
  ++entry.generation;
  --entry.worker->held_;
  entry.worker.reset();
  entry.request.reset();
  entry.lender.reset();
  free_.push_back(place);
}

void WorkerCalls::End(Entry& entry) {
  entry.ended = true;
  entry.listener = nullptr;  // what is still released concerns it no more
  if (entry.lender) entry.lender->End();
  WorkerEnd& worker = *entry.worker;
  worker.load -= entry.instances;
  // Each call has an instance at least, and no call is opened on a worker that drains.
  if (worker.draining && worker.load == 0 && !worker.gone) drained_.push_back(worker.spec().id);
}

void WorkerCalls::CollectIfDone(uint64_t call) {
  Entry* entry = Find(call);
  if (entry == nullptr) return;
  if (entry->released) entry->request.reset();
  if (entry->ended && entry->released) Drop(*entry, static_cast<uint32_t>(call & 0xffffffff));
}

void WorkerCalls::Take(WorkerEnd& worker, const link::WorkerFrame& frame) {
  if (frame.type == link::FrameType::kLacks) return on_lack_();
  if (frame.type == link::FrameType::kModel) {
    worker.models().Set({reinterpret_cast<const char*>(frame.payload.data()), frame.payload.size()},
                        (frame.flags & link::kLoaded) != 0);
    return worker.Return(frame.payload);
  }
  Entry* entry = Find(frame.call);
  const bool release = frame.type == link::FrameType::kRelease || (frame.flags & link::kReleased) != 0;
  const bool ends = frame.type == link::FrameType::kEnd ||
                    (frame.type == link::FrameType::kReply && (frame.flags & link::kEnds) != 0);
  if (entry == nullptr || entry->worker.get() != &worker) {
    return Fault(worker,
                 {Code::kInternal, "a frame for call " + std::to_string(frame.call) + ", which it does not hold"});
  }
  const bool releases = frame.type == link::FrameType::kRelease || frame.type == link::FrameType::kReleaseMessage;
  if (frame.type == link::FrameType::kOverShare) {
    if (entry->listener != nullptr) entry->listener->OnAnswerWaits();
    return;
  }
  if (entry->ended && !releases) {
    return Fault(worker, {Code::kInternal, "another answer to call " + std::to_string(frame.call)});
  }
  if (release && entry->released) {
    return Fault(worker, {Code::kInternal, "released call " + std::to_string(frame.call) + " twice"});
  }
  const bool of_user = frame.type == link::FrameType::kInitial || frame.type == link::FrameType::kReleaseMessage ||
                       frame.type == link::FrameType::kWants ||
                       (frame.type == link::FrameType::kEnd && (frame.flags & link::kTrailing) != 0);
  if (of_user && !entry->user) {
    return Fault(worker, {Code::kInternal, "call " + std::to_string(frame.call) + " is of no user's service"});
  }
  if (!entry->ended && !entry->released && (ends || release)) entry->request->WorkerIsDone();
  WorkerCallListener* listener = entry->listener;
  const uint32_t tag = entry->tag;
  entry->released = entry->released || release;
  if (ends) End(*entry);
  if (frame.type == link::FrameType::kReleaseMessage) {
    if (entry->request == nullptr || entry->request->stream.empty()) {
      return Fault(worker, {Code::kInternal, "call " + std::to_string(frame.call) + " has no message to release"});
    }
    entry->request->DropOldest();
  }
  std::shared_ptr<ReplyLender> lender;
  if (frame.type == link::FrameType::kReply && entry->user && !ends) {
    if (entry->lender == nullptr) {
      entry->lender = std::make_shared<MessageLender>(entry->worker, frame.call);
    }
    lender = entry->lender;
    if (!entry->lender->Lend()) {
      return Fault(worker, {Code::kInternal, "more than " + std::to_string(link::kMostMessagesAhead) +
                                                 " messages of call " + std::to_string(frame.call) +
                                                 " are on their way, which it was not told have left"});
    }
  }
  // The listener may open other calls, which moves entries: all that is needed of this one has been read.
  CollectIfDone(frame.call);
  if (of_user) return TakeOfUser(worker, frame, listener);
  switch (frame.type) {
    case link::FrameType::kReply: {
      if (lender == nullptr && !frame.payload.empty()) lender = worker.shared_from_this();
      ReplyPart payload = lender == nullptr ? ReplyPart(std::string()) : ReplyPart(frame.payload, std::move(lender));
      if (listener != nullptr) listener->OnWorkerReply(tag, std::move(payload), frame.flags);
      return;
    }
    case link::FrameType::kEnd: {
      std::string text(reinterpret_cast<const char*>(frame.payload.data()), frame.payload.size());
      if (!frame.payload.empty()) worker.Return(frame.payload);
      if (listener != nullptr) listener->OnWorkerEnd(tag, Status(static_cast<Code>(frame.code), std::move(text)));
      return;
    }
    default:
      return;
  }
}

void WorkerCalls::TakeOfUser(WorkerEnd& worker, const link::WorkerFrame& frame, WorkerCallListener* listener) {
  if (listener != nullptr) {
    switch (frame.type) {
      case link::FrameType::kInitial:
        listener->OnWorkerInitial(frame.payload, (frame.flags & link::kCompressed) != 0);
        break;
      case link::FrameType::kReleaseMessage:
        listener->OnMessageReleased();
        break;
      case link::FrameType::kWants:
        listener->OnMessageWanted(frame.messages);
        break;
      default:
        listener->OnWorkerTrailing(static_cast<Code>(frame.code), frame.payload);
        break;
    }
  }
  if (!frame.payload.empty()) worker.Return(frame.payload);
}

void WorkerCalls::Fault(WorkerEnd& worker, const Status& why) {
  if (worker.gone) return;
  worker.gone = true;  // its lane is read and written no more
  faults_.push_back({worker.spec().id, why});
}

void WorkerCalls::Receive(WorkerEnd& worker) {
  link::WorkerFrame frame;
  while (!worker.gone && worker.lane().Receive(&frame)) Take(worker, frame);
  if (!worker.gone && worker.lane().broken()) Fault(worker, worker.lane().fault());
}

void WorkerCalls::Poll() {
  // By index: listeners may open calls, which makes others busy; workers come and go only between rounds.
  for (size_t i = 0; i < busy_.size(); ++i) {
    Receive(*busy_[i]);
  }
  for (const Faulty& faulty : std::exchange(faults_, {})) on_fault_(faulty.worker, faulty.why);
  for (const uint64_t worker : std::exchange(drained_, {})) on_drained_(worker);
}

bool WorkerCalls::HasWork() {
  return std::ranges::any_of(busy_, [](WorkerEnd* worker) { return !worker->gone && worker->lane().HasWork(); });
}

void WorkerCalls::Flush() {
  std::erase_if(busy_, [](WorkerEnd* worker) {
    if (worker->gone) return false;
    worker->lane().Flush();
    worker->busy_ = worker->held_ > 0 || worker->lane().waiting();
    return !worker->busy_;
  });
}

}  // namespace mindserve::gateway
