// The worker's side of a link: all of its lanes. Everything here belongs to the worker's runtime thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/execution.h"
#include "base/request_key.h"
#include "base/sharer.h"
#include "base/status.h"
#include "base/unique_fd.h"
#include "link/arena.h"
#include "link/frame.h"
#include "link/ring.h"
#include "link/stats_region.h"

namespace mindserve::link {

// What the gateway said, checked: the payload lies in its arena. Of kReleaseReply only those with kCredit are told.
struct GatewayFrame {
  FrameType type = FrameType::kMessage;
  uint8_t flags = 0;
  uint16_t method = 0;
  uint32_t instances = 0;
  uint64_t call = 0;
  int64_t deadline_ns = INT64_MAX;
  uint64_t client = 0;
  RequestKey key;
  std::span<const std::byte> payload;
};

class WorkerLink {
 public:
  // The worker's half of the handshake, blocking, with a deadline. The gateway is given `stats` to read. Each lane's
  // reply arena has `arena_bytes` of address space.
  static Result<std::unique_ptr<WorkerLink>> Connect(int socket, const StatsWriter& stats, size_t arena_bytes,
                                                     std::chrono::milliseconds timeout);
  ~WorkerLink();

  size_t lanes() const;

  // The next frame on lane `lane`; false if there is none, or the gateway broke the protocol: see fault().
  bool Receive(size_t lane, GatewayFrame* frame);
  const Status& fault() const { return fault_; }

  // Memory for an answer to a call of this lane, or nothing: there may be some once the gateway has released more, and
  // it wakes a worker that has been refused.
  //
  // A message of a stream leaves a quarter to other answers, unless nothing is out: for those nobody has to read on.
  // Besides, once less than half is free of what there is for one of the same kind, no client gets more when that would
  // be more than an eighth of what it leaves. So one that reads nothing leaves half to others, and each further one
  // eight ninths of what it finds. But a client that holds nothing may take what there is: a message of any size that
  // can be sent, up to half of the arena, goes once the client's others are read and there is room.
  //
  // Small answers that are no messages of a stream don't count, and always may take what is free: noting whose they are
  // would cost more than they do, and a client has no more of them than it has calls.
  enum class For : uint8_t { kAnswer, kStream };
  static constexpr size_t kCountedBytes = 4096;  // from so many on
  struct Allocation : std::optional<Slab> {
    using std::optional<Slab>::operator=;
    bool over_share = false;  // nothing since the client has its share, not since there is no room
  };
  // `others_wait`, for room: only what takes little of what there is goes before them.
  Allocation AllocateReply(size_t lane, size_t bytes, uint64_t client = kNobody, For what = For::kAnswer,
                           bool others_wait = false);
  void FreeReply(size_t lane, const Slab& slab);  // one that is not sent after all
  // How often memory has come back.
  uint64_t Releases(size_t lane) const;
  // Whether answers of this lane still wait for memory: else the gateway need not wake this worker for it any more.
  void AwaitMemory(size_t lane, bool awaited);
  void SendReply(size_t lane, uint64_t call, const Slab& slab, uint8_t flags);
  // The call ends with an error. A text that finds no memory is left out.
  void SendEnd(size_t lane, uint64_t call, const Status& status, uint8_t flags);
  void SendRelease(size_t lane, uint64_t call);
  void SendReleaseMessage(size_t lane, uint64_t call);
  void SendWants(size_t lane, uint64_t call, uint32_t taken);
  void SendLacks(size_t lane);
  void SendOverShare(size_t lane, uint64_t call);
  // These three have a payload of their own, which is copied, and given back as soon as the gateway sees it. False: it
  // finds no memory, and nothing was sent; see AllocateReply.
  bool SendInitial(size_t lane, uint64_t call, std::string_view metadata, uint8_t flags);
  bool SendTrailing(size_t lane, uint64_t call, Code code, std::string_view call_end, uint8_t flags);
  bool SendModel(size_t lane, std::string_view model_id, bool loaded);
  // Calls of this lane wait for credit (kCredit): the gateway wakes this worker when there is some.
  void AwaitCredit(size_t lane, bool awaited);
  // By what a taker marks that it executes the call. Valid as long as the link.
  ExecutionMark MarkOf(size_t lane, uint64_t call);

  // Publishes what was queued and wakes the I/O threads that sleep. Once a round.
  void Flush();

  // Readable once a gateway thread has rung.
  int bell_fd() const { return bell_.get(); }
  // Before blocking: true if there is nothing to receive, so that it may block. Then, in any case: Awake.
  bool PrepareSleep();
  void Awake();
  // When the bell was found readable.
  void EmptyBell();

 private:
  struct LaneState;
  WorkerLink();
  std::optional<Slab> CopyOut(size_t lane, std::string_view text);
  static void SendPayload(LaneState& lane, FrameType type, int flags, uint64_t call, const Slab& slab,
                          Code code = Code::kOk);

  Region flag_region_;
  SleepFlag* flag_ = nullptr;
  UniqueFd bell_;
  std::vector<std::unique_ptr<LaneState>> lanes_;
  bool asleep_ = false;
  Status fault_;
};

}  // namespace mindserve::link
