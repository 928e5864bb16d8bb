// Calls that workers hold: what an I/O thread has sent over its lanes and waits for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "gateway/admission.h"
#include "gateway/call.h"
#include "gateway/gateway.h"
#include "gateway/quarantine.h"
#include "gateway/worker_loss.h"
#include "link/lane.h"

namespace mindserve::gateway {

class WorkerCalls;

// An I/O thread's end of one worker. Shared by the thread's list of workers, the calls that the worker holds, and the
// reply parts lent by it that are not yet sent: the lane has to live as long as each of them.
class WorkerEnd final : public ReplyLender, public std::enable_shared_from_this<WorkerEnd> {
 public:
  WorkerEnd(WorkerSpec spec, std::shared_ptr<VersionState> version, std::unique_ptr<link::Lane> lane)
      : spec_(std::move(spec)), version_(std::move(version)), lane_(std::move(lane)) {}

  const WorkerSpec& spec() const { return spec_; }
  const std::shared_ptr<VersionState>& version() const { return version_; }
  link::Lane& lane() { return *lane_; }
  // Position of a method in the worker's list; -1 if it has none of that name.
  int MethodIndex(std::string_view method) const;

  bool routable() const { return !draining && !gone; }
  void Return(std::span<const std::byte> bytes) override;

  bool draining = false;  // gets no new requests
  bool gone = false;      // its lane is not used any more
  size_t load = 0;        // instances it was sent and has not answered
  uint64_t requests = 0;  // sent to it, or parts of such

 private:
  friend class WorkerCalls;
  WorkerCalls* calls_ = nullptr;  // of its thread, while it is one of that one's workers
  size_t held_ = 0;               // calls that it holds
  bool busy_ = false;             // on the list of those that are looked at
  const WorkerSpec spec_;
  const std::shared_ptr<VersionState> version_;  // shared with the gateway and the version's other workers
  const std::unique_ptr<link::Lane> lane_;
};

// A request that was admitted. Shared by the call's handler and by the calls on workers that read its bytes. It counts
// against the limits until it is answered, or given up and no worker is at it. Its bytes stay as long as a worker has
// not released them, which may be long after: a function may keep its inputs.
struct Request {
  Message message;
  Ticket ticket;
  Ticket servable_ticket;      // for the servable's own limits; empty where there are none
  BytesTicket servable_bytes;  // the same
  size_t working = 0;          // calls on workers that are neither ended nor released
  bool given_up = false;       // the handler waits for no answer any more

  void StopCounting() {
    ticket.Release();
    servable_ticket.Release();
    servable_bytes = BytesTicket();
    message.StopCounting();
  }
  void GiveUp() {
    given_up = true;
    if (working == 0) StopCounting();
  }
  void WorkerIsDone() {
    if (--working == 0 && given_up) StopCounting();
  }
};

// Who waits for an answer. `tag` is what it gave to Open.
class WorkerCallListener {
 public:
  virtual ~WorkerCallListener() = default;
  virtual void OnWorkerReply(uint32_t tag, ReplyPart payload, bool has_errors, bool ends) = 0;
  virtual void OnWorkerEnd(uint32_t tag, Status status) = 0;
  // The worker was lost before it has ended the call.
  virtual void OnWorkerLost(uint32_t tag, const LostCall& lost) = 0;
};

// One for each I/O thread.
class WorkerCalls {
 public:
  // `on_fault` is told of a worker that broke the link's rules, `on_drained` of one that drains and has answered all;
  // each at most once of a worker, and at no time when that worker may not be removed.
  using FaultHandler = std::function<void(uint64_t worker, const Status& why)>;
  using DrainedHandler = std::function<void(uint64_t worker)>;
  WorkerCalls(FaultHandler on_fault, DrainedHandler on_drained)
      : on_fault_(std::move(on_fault)), on_drained_(std::move(on_drained)) {}

  void Add(std::shared_ptr<WorkerEnd> worker);
  // The worker gets no new requests. No-op for one that drains already.
  void Drain(WorkerEnd& worker);
  // The worker is gone. What it had published is taken first; the calls that it has not ended by that are lost, and
  // their listeners are told.
  void Remove(const std::shared_ptr<WorkerEnd>& worker, const WorkerLoss& loss);

  struct Payload {
    size_t offset = 0;  // in the request's message
    size_t length = 0;
    uint32_t instances = 0;
  };
  // Who calls, and how the worker is to treat it.
  struct Terms {
    TimePoint deadline = kNever;
    uint64_t client = 0;
    bool alone = false;  // nothing else is to be executed meanwhile
  };
  // Sends the first and last message of a call. Returns its number. `listener` is told until Cancel.
  uint64_t Open(const std::shared_ptr<WorkerEnd>& worker, uint16_t method, const Payload& payload,
                const std::shared_ptr<Request>& request, const Terms& terms, WorkerCallListener& listener,
                uint32_t tag);
  // The listener is told no more, and the worker is to give the call up. No-op for one that has ended.
  void Cancel(uint64_t call);

  // Takes what workers have sent.
  void Poll();
  bool HasWork();
  // Publishes what was queued for workers.
  void Flush();

  // Calls that workers hold: not ended, or not released.
  size_t size() const { return entries_.size() - free_.size(); }

 private:
  struct Entry {
    uint32_t generation = 0;
    uint32_t tag = 0;
    uint32_t instances = 0;
    bool live = false;
    bool ended = false;
    bool released = false;
    WorkerCallListener* listener = nullptr;
    std::shared_ptr<WorkerEnd> worker;
    std::shared_ptr<Request> request;
  };

  // Number of a call: its place in the lower half, the place's generation in the upper.
  static uint64_t NumberOf(const Entry& entry, uint32_t place) {
    return static_cast<uint64_t>(entry.generation) << 32 | place;
  }
  Entry* Find(uint64_t call);
  void Receive(WorkerEnd& worker);
  void Take(WorkerEnd& worker, const link::WorkerFrame& frame);
  void End(Entry& entry);
  void CollectIfDone(uint64_t call);
  void Drop(Entry& entry, uint32_t place);
  friend class WorkerEnd;
  void SetBusy(WorkerEnd& worker);
  void Fault(WorkerEnd& worker, const Status& why);

  FaultHandler on_fault_;
  DrainedHandler on_drained_;
  std::vector<std::shared_ptr<WorkerEnd>> workers_;
  std::vector<WorkerEnd*> busy_;  // those that hold calls, or have something to be flushed: a round looks at no others
  std::vector<Entry> entries_;
  std::vector<uint32_t> free_;
  struct Faulty {
    uint64_t worker;
    Status why;
  };
  std::vector<Faulty> faults_;
  std::vector<uint64_t> drained_;
};

}  // namespace mindserve::gateway
