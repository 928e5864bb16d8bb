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

uint64_t WorkerCalls::Open(const std::shared_ptr<WorkerEnd>& worker, uint16_t method, const Payload& payload,
                           const std::shared_ptr<Request>& request, const Terms& terms, WorkerCallListener& listener,
                           uint32_t tag) {
  if (free_.empty()) {
    free_.push_back(static_cast<uint32_t>(entries_.size()));
    entries_.emplace_back();
  }
  const uint32_t place = free_.back();
  free_.pop_back();
  Entry& entry = entries_[place];
  entry.tag = tag;
  entry.instances = payload.instances;
  entry.live = true;
  entry.ended = entry.released = false;
  entry.listener = &listener;
  entry.worker = worker;
  entry.request = request;
  ++request->working;
  ++worker->held_;
  ++worker->requests;
  SetBusy(*worker);
  worker->load += payload.instances;
  const uint64_t call = NumberOf(entry, place);
  worker->lane().SendOpen({.call = call,
                           .method = method,
                           .instances = payload.instances,
                           .deadline_ns = std::chrono::nanoseconds(terms.deadline.time_since_epoch()).count(),
                           .client = terms.client,
                           .offset = request->message.offset() + payload.offset,
                           .length = payload.length,
                           .ends = true,
                           .alone = terms.alone});
  return call;
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
  entry->worker->lane().SendCancel(call);  // it is busy: it holds the call
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
  free_.push_back(place);
}

void WorkerCalls::End(Entry& entry) {
  entry.ended = true;
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
  Entry* entry = Find(frame.call);
  const bool release = frame.type == link::FrameType::kRelease || (frame.flags & link::kReleased) != 0;
  const bool ends = frame.type == link::FrameType::kEnd ||
                    (frame.type == link::FrameType::kReply && (frame.flags & link::kEnds) != 0);
  if (entry == nullptr || entry->worker.get() != &worker) {
    return Fault(worker,
                 {Code::kInternal, "a frame for call " + std::to_string(frame.call) + ", which it does not hold"});
  }
  if (entry->ended && frame.type != link::FrameType::kRelease) {
    return Fault(worker, {Code::kInternal, "another answer to call " + std::to_string(frame.call)});
  }
  if (release && entry->released) {
    return Fault(worker, {Code::kInternal, "released call " + std::to_string(frame.call) + " twice"});
  }
  if (!entry->ended && !entry->released && (ends || release)) entry->request->WorkerIsDone();
  entry->released = entry->released || release;
  if (ends) End(*entry);
  WorkerCallListener* listener = entry->listener;
  const uint32_t tag = entry->tag;
  // The listener may open other calls, which moves entries: all that is needed of this one has been read.
  CollectIfDone(frame.call);
  switch (frame.type) {
    case link::FrameType::kReply: {
      ReplyPart payload =
          frame.payload.empty() ? ReplyPart(std::string()) : ReplyPart(frame.payload, worker.shared_from_this());
      if (listener != nullptr) {
        listener->OnWorkerReply(tag, std::move(payload), (frame.flags & link::kHasErrors) != 0, ends);
      }
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
