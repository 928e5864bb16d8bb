// One I/O thread of the gateway and one worker: a ring each way. A link is as many lanes as the gateway has I/O
// threads.
//
// The gateway's side. Everything here belongs to one I/O thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "base/request_key.h"
#include "base/status.h"
#include "base/unique_fd.h"
#include "link/arena.h"
#include "link/frame.h"
#include "link/handshake.h"
#include "link/ring.h"
#include "link/stats_region.h"

namespace mindserve::link {

// An I/O thread's end of all of its lanes: the arena its requests lie in, which every worker reads, and the bell by
// which workers wake it.
class GatewayPort {
 public:
  // `arena_bytes`: how much request memory this thread may have at most (address space; pages cost once touched).
  static Result<std::unique_ptr<GatewayPort>> Create(size_t arena_bytes);

  Arena& arena() { return *arena_; }
  // Readable once a worker has rung. Watched by the thread's event loop.
  int bell_fd() const { return bell_.get(); }

  // Before blocking: says that the thread sleeps. The caller then polls every lane once more (Lane::HasWork) and blocks
  // only if none has anything. After blocking, or instead of it: Awake.
  void Asleep();
  void Awake();
  // When the bell was found readable.
  void EmptyBell();

 private:
  friend class Lane;
  friend class GatewayHandshake;
  GatewayPort() = default;
  Region region_;  // SleepFlag, then the arena
  std::unique_ptr<Arena> arena_;
  UniqueFd bell_;
  SleepFlag* flag_ = nullptr;
  bool asleep_ = false;
};

// What a worker said, checked: the payload lies in its reply arena, and type, flags and code are of the tables.
struct WorkerFrame {
  FrameType type = FrameType::kReply;
  uint8_t flags = 0;
  uint8_t code = 0;       // kEnd: a gRPC status code; OK only with kTrailing
  uint32_t messages = 0;  // kWants
  uint64_t call = 0;
  std::span<const std::byte> payload;  // until Lane::ReleaseReply(payload)
};

class Lane {
 public:
  Lane(Lane&&) = delete;
  ~Lane();

  // Queues a frame; never fails: what the ring can't hold waits here. Nothing is seen by the worker before Flush.
  // `payload` lies in the port's arena and stays as it is until the worker has released the call.
  struct Open {
    uint64_t call = 0;
    uint16_t method = 0;
    uint32_t instances = 0;
    int64_t deadline_ns = INT64_MAX;
    uint64_t client = 0;
    uint64_t offset = 0;  // of the payload in the arena
    uint64_t length = 0;
    RequestKey key = {};
    bool ends = true;
    bool alone = false;  // see kAlone
  };
  void SendOpen(const Open& open);
  // Right before SendOpen: what there is to be known of a Predict call. Lies in the arena as its payload does.
  void SendHead(uint64_t call, uint64_t offset, uint64_t length);
  void SendMessage(uint64_t call, uint64_t offset, uint64_t length, bool ends);
  // After the last message, if that one didn't say that it ends.
  void SendHalfClose(uint64_t call);
  void SendCancel(uint64_t call);
  // The payload's bytes are not needed any more. An empty payload needs none.
  void ReleaseReply(std::span<const std::byte> payload);
  // The same of a message of a user's call, which may be empty: the worker may send another one.
  void ReleaseReply(std::span<const std::byte> payload, uint64_t call);

  // Publishes what was queued, and wakes the worker if it sleeps and there is more than releases for it. Once a round.
  void Flush();

  // Whether something waits for room in the ring.
  bool waiting() const { return !waiting_.empty(); }
  // Whether there is something to receive, or room now for what waits to be sent.
  bool HasWork();
  // The next frame of the worker; false if there is none. A worker that breaks the protocol makes the lane broken:
  // Receive gives nothing more, and the worker is to be taken for dead.
  bool Receive(WorkerFrame* frame);
  bool broken() const { return !fault_.ok(); }

  // Whether the worker may have begun to execute the call. Also of one that is dead.
  bool MayHaveBegun(uint64_t call) const;
  // Its tag in the worker's Execution.
  ExecutionTag TagOf(uint64_t call) const { return link::TagOf(number_, call); }
  const Status& fault() const { return fault_; }

 private:
  friend class GatewayHandshake;
  Lane() = default;
  void Send(const Frame& frame);
  void MoveWaiting();

  GatewayPort* port_ = nullptr;                  // outlives the lane
  size_t number_ = 0;                            // among the worker's lanes
  Region ours_;                                  // requests' ring, and how far replies were read
  Region theirs_;                                // replies' ring, how far requests were read, and the reply arena
  std::shared_ptr<const Region> worker_;         // the worker's sleep flag; shared by all lanes of the worker
  std::shared_ptr<const UniqueFd> worker_bell_;  // shared by all lanes of the worker
  RingWriter out_;
  RingReader in_;
  std::deque<Frame> waiting_;  // what the ring had no room for
  bool wake_ = false;          // something was queued that the worker is to see at once
  bool released_ = false;      // reply memory was released
  uint32_t last_rung_ = 0;
  Status fault_;
};

// Brings a worker's lanes up, over the Unix socket whose other end the worker has. Blocking, with a deadline; for a
// control thread. The lanes are given to their I/O threads afterwards; the socket stays open, and its end-of-file is
// the worker's death.
class GatewayHandshake {
 public:
  struct Outcome {
    std::vector<std::unique_ptr<Lane>> lanes;  // one for each of `ports`, in their order
    StatsReader stats;                         // the worker's
  };
  static Result<Outcome> Run(int socket, std::span<GatewayPort* const> ports, std::chrono::milliseconds timeout);
};

}  // namespace mindserve::link
