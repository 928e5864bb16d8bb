// Calls that workers hold: what an I/O thread has sent over its lanes and waits for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/execution.h"
#include "base/request_key.h"
#include "base/status.h"
#include "gateway/call.h"
#include "gateway/gateway.h"
#include "gateway/model_set.h"
#include "gateway/quarantine.h"
#include "gateway/request.h"
#include "gateway/worker_loss.h"
#include "link/lane.h"

namespace mindserve::gateway {

class WorkerCalls;

// However often its workers die without having begun with it, a request is sent no more often than this.
inline constexpr size_t kMostSends = 16;

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
  // The same of a message of a user's call: the worker may send another one.
  void ReturnMessage(std::span<const std::byte> bytes, uint64_t call);
  // Of multiplexed models.
  ModelSet& models() { return models_; }

  bool draining = false;  // gets no new requests
  bool gone = false;      // its lane is not used any more
  size_t load = 0;        // instances, and users' calls, that it was sent and has not answered
  uint64_t requests = 0;  // sent to it, or parts of such

 private:
  friend class WorkerCalls;
  WorkerCalls* calls_ = nullptr;  // of its thread, while it is one of that one's workers
  size_t held_ = 0;               // calls that it holds
  ModelSet models_;
  bool busy_ = false;  // on the list of those that are looked at
  const WorkerSpec spec_;
  const std::shared_ptr<VersionState> version_;  // shared with the gateway and the version's other workers
  const std::unique_ptr<link::Lane> lane_;
};

// Lends the messages of a user's call: its worker is told when each has left, by which it knows when to go on. Once the
// call has ended on the worker that is of no interest any more.
class MessageLender final : public ReplyLender {
 public:
  MessageLender(std::shared_ptr<WorkerEnd> worker, uint64_t call) : worker_(std::move(worker)), call_(call) {}
  void Return(std::span<const std::byte> bytes) override {
    --lent_;
    ended_ ? worker_->Return(bytes) : worker_->ReturnMessage(bytes, call_);
  }
  // Another message. False: so many are lent that the worker breaks the protocol.
  bool Lend() { return ++lent_ <= link::kMostMessagesAhead; }
  void End() { ended_ = true; }

 private:
  size_t lent_ = 0;
  const std::shared_ptr<WorkerEnd> worker_;
  const uint64_t call_;
  bool ended_ = false;
};

// Who waits for an answer. `tag` is what it gave to Open.
class WorkerCallListener {
 public:
  virtual ~WorkerCallListener() = default;
  // `flags`: link::FrameFlags of a reply.
  virtual void OnWorkerReply(uint32_t tag, ReplyPart payload, uint8_t flags) = 0;
  virtual void OnWorkerEnd(uint32_t tag, Status status) = 0;
  // The worker was lost before it has ended the call.
  virtual void OnWorkerLost(uint32_t tag, const LostCall& lost) = 0;
  // An answer has waited for long, since the client has not taken others.
  virtual void OnAnswerWaits() {}

  // These only of users' calls. The bytes, as wire/call_head.h has them, are there only meanwhile.
  virtual void OnWorkerInitial(std::span<const std::byte>, bool) {}  // whether messages may be compressed
  virtual void OnWorkerTrailing(Code, std::span<const std::byte>) {}
  // The oldest message of the request that was still there is gone.
  virtual void OnMessageReleased() {}
  // The handler has taken so many messages in all, modulo 2^32, has answered none since the last, and waits for more.
  virtual void OnMessageWanted(uint32_t) {}
};

// One for each I/O thread.
class WorkerCalls {
 public:
  // `on_fault` is told of a worker that broke the link's rules, `on_drained` of one that drains and has answered all;
  // each at most once of a worker, and at no time when that worker may not be removed.
  using FaultHandler = std::function<void(uint64_t worker, const Status& why)>;
  using DrainedHandler = std::function<void(uint64_t worker)>;
  // Told of each call that is given up while a worker may be at it, by the worker's name for it.
  using GivenUpHandler = std::function<void(ExecutionTag call)>;
  // Told when a worker lacks memory for answers, which clients that don't take theirs hold.
  using LackHandler = std::function<void()>;
  WorkerCalls(FaultHandler on_fault, DrainedHandler on_drained, GivenUpHandler on_given_up, LackHandler on_lack)
      : on_fault_(std::move(on_fault)),
        on_drained_(std::move(on_drained)),
        on_given_up_(std::move(on_given_up)),
        on_lack_(std::move(on_lack)) {}

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
    RequestKey key = {};  // of which the worker makes the request's id, where no head gives one
    bool alone = false;   // nothing else is to be executed meanwhile
  };
  // Sends the first and last message of a call. Returns its number. `listener` is told until Cancel.
  uint64_t Open(const std::shared_ptr<WorkerEnd>& worker, uint16_t method, const Payload& payload,
                const std::shared_ptr<Request>& request, const Terms& terms, WorkerCallListener& listener,
                uint32_t tag);
  // Opens a call of a user's service: sends the head, and the messages that are there. More may follow, also after the
  // listener has been told of an end; they then go nowhere.
  uint64_t OpenUser(const std::shared_ptr<WorkerEnd>& worker, uint16_t method, const std::shared_ptr<Request>& request,
                    const Terms& terms, WorkerCallListener& listener);
  // `message` is the last of the request's.
  void SendMessage(uint64_t call, const Message& message);
  void SendHalfClose(uint64_t call);
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
    uint32_t generation = 1;  // no call has the number 0
    uint32_t tag = 0;
    uint32_t instances = 0;
    bool live = false;
    bool ended = false;
    bool released = false;
    bool user = false;  // a call of a user's service
    WorkerCallListener* listener = nullptr;
    std::shared_ptr<WorkerEnd> worker;
    std::shared_ptr<Request> request;
    std::shared_ptr<MessageLender> lender;  // of a user's call, once it has answered; shared with what it has lent
  };

  // Number of a call: its place in the lower half, the place's generation in the upper.
  static uint64_t NumberOf(const Entry& entry, uint32_t place) {
    return static_cast<uint64_t>(entry.generation) << 32 | place;
  }
  uint32_t AddEntry(const std::shared_ptr<WorkerEnd>& worker, size_t instances, const std::shared_ptr<Request>& request,
                    WorkerCallListener& listener, uint32_t tag);
  Entry* Find(uint64_t call);
  void Receive(WorkerEnd& worker);
  void Take(WorkerEnd& worker, const link::WorkerFrame& frame);
  // The second half: what only users' calls have.
  void TakeOfUser(WorkerEnd& worker, const link::WorkerFrame& frame, WorkerCallListener* listener);
  void End(Entry& entry);
  void CollectIfDone(uint64_t call);
  void Drop(Entry& entry, uint32_t place);
  friend class WorkerEnd;
  void SetBusy(WorkerEnd& worker);
  void Fault(WorkerEnd& worker, const Status& why);

  FaultHandler on_fault_;
  DrainedHandler on_drained_;
  GivenUpHandler on_given_up_;
  LackHandler on_lack_;
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
