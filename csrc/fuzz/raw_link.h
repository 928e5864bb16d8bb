// An end of a link that keeps to no rule: its memory is written as an input says.
#pragma once

#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <new>
#include <string_view>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "fuzz/input.h"
#include "link/handshake.h"
#include "link/lane.h"
#include "link/ring.h"
#include "link/worker_link.h"

namespace mindserve::fuzz {

// One direction's writer: a ring block, and an arena that begins at `arena`.
class RawSide {
 public:
  RawSide(link::Region& region, size_t arena) : region_(region), arena_(arena) {}

  // A frame as the input has it; mostly one that could be.
  link::Frame TakeFrame(Input& input, const std::vector<uint64_t>& calls) {
    link::Frame frame{};
    const uint8_t how = input.Byte();
    frame.type = static_cast<link::FrameType>(input.Byte());
    frame.flags = input.Byte();
    frame.deadline_ns = INT64_MAX;
    const uint8_t call = input.Byte();
    frame.call = (how & 1) != 0 || calls.empty() ? input.Take<uint64_t>() : calls[call % calls.size()];
    if ((how & 2) != 0) frame.code = input.Take<uint32_t>();
    if ((how & 4) != 0) {
      frame.offset = input.Take<uint64_t>();
      frame.length = input.Take<uint64_t>();
    } else if ((how & 8) != 0) {
      // A payload that is there.
      const std::string_view payload = input.ShortText();
      std::memcpy(region_.data() + arena_ + next_, payload.data(), payload.size());
      frame.offset = arena_ + next_;
      frame.length = payload.size();
      used_ = std::max(used_, next_ + payload.size());
      constexpr size_t kMost = 48 * 1024;
      next_ = (next_ + 256) % kMost;
    }
    if ((how & 16) != 0) {
      frame.method = input.Take<uint16_t>();
      frame.instances = input.Take<uint32_t>();
      frame.deadline_ns = input.Take<int64_t>();
      frame.client = input.Take<uint64_t>();
    }
    return frame;
  }

  void Put(const link::Frame& frame) {
    link::RingBlock& block = Block();
    block.frames[written_ % link::kRingFrames] = frame;
    block.written.value.store(++written_, std::memory_order_release);
  }

  // Counts that say something else.
  void Claim(uint32_t written, uint32_t read) {
    Block().written.value.store(written, std::memory_order_release);
    Block().read.value.store(read, std::memory_order_release);
  }

  // As it was when it was made, for another one.
  void Clear() {
    link::RingBlock& block = Block();
    new (&block) link::RingBlock;
    std::memset(static_cast<void*>(block.frames), 0, std::min(written_, link::kRingFrames) * sizeof(link::Frame));
    std::memset(region_.data() + arena_, 0, used_);
  }

  link::RingBlock& Block() { return *reinterpret_cast<link::RingBlock*>(region_.data()); }

 private:
  link::Region& region_;
  const size_t arena_;
  size_t next_ = 0;  // where the next payload goes
  size_t used_ = 0;  // bytes from the arena's begin that may hold one
  uint32_t written_ = 0;
};

inline constexpr std::chrono::seconds kRawPatience{60};
inline constexpr size_t kRawArena = 64 * 1024;

// The worker's end of a lane. One at a time.
class RawWorker {
 public:
  ~RawWorker() { side_.Clear(); }
  // Shakes hands with the port; `lane` is the gateway's end.
  static std::unique_ptr<RawWorker> Connect(link::GatewayPort& port, std::unique_ptr<link::Lane>* lane) {
    std::unique_ptr<RawWorker> worker(new RawWorker);
    int fds[2];
    FUZZ_REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) == 0);
    const UniqueFd gateways(fds[0]);
    const UniqueFd workers(fds[1]);
    // What it says does not depend on what it is told, so that it can say it beforehand, in the same thread.
    const auto deadline = std::chrono::steady_clock::now() + kRawPatience;
    static const link::StatsWriter stats = *link::StatsWriter::Create(std::vector{link::StageName{}});
    const int hello[] = {worker->memory_.flag.fd(), worker->memory_.bell.get(), stats.fd()};
    FUZZ_REQUIRE(link::SendHandshake(workers.get(), {}, hello, deadline).ok());
    link::HandshakeMessage accept;
    accept.step = link::HandshakeStep::kAccept;
    const int accepted[] = {worker->memory_.ours.fd()};
    FUZZ_REQUIRE(link::SendHandshake(workers.get(), accept, accepted, deadline).ok());
    link::GatewayPort* ports[] = {&port};
    auto shaken = link::GatewayHandshake::Run(gateways.get(), ports, kRawPatience);
    FUZZ_REQUIRE(shaken.ok());
    *lane = std::move(shaken->lanes.front());
    UniqueFd offered[3];
    FUZZ_REQUIRE(link::ReceiveHandshake(workers.get(), link::HandshakeStep::kOffer, offered, deadline).ok());
    worker->theirs_ = *link::Region::Open(std::move(offered[2]), sizeof(link::RingBlock));
    worker->in_ = link::RingReader(&worker->side_.Block(), reinterpret_cast<link::RingBlock*>(worker->theirs_.data()));
    return worker;
  }

  RawSide& side() { return side_; }
  // The calls that the gateway has opened since the last time.
  void TakeCalls(std::vector<uint64_t>* calls) {
    link::Frame frame;
    while (in_.Take(&frame) == link::RingReader::Outcome::kFrame) {
      if (frame.type == link::FrameType::kMessage && (frame.flags & link::kOpens) != 0) calls->push_back(frame.call);
    }
  }

 private:
  // What a worker makes once. It is the same for all of them, one after the other: new memory for each would take
  // longer than what an input does with it.
  struct Memory {
    link::Region flag = *link::Region::Create("mindserve-worker", sizeof(link::SleepFlag));
    link::Region ours = *link::Region::Create("mindserve-replies", link::kReplyArenaBegin + kRawArena);
    UniqueFd bell = *link::NewBell();
  };

  RawWorker() {
    new (memory_.flag.data()) link::SleepFlag;
    new (memory_.ours.data()) link::RingBlock;
    link::EmptyBell(memory_.bell.get());
  }

  static Memory& TheMemory() {
    static Memory memory;
    return memory;
  }

  Memory& memory_ = TheMemory();
  link::Region theirs_;
  RawSide side_{memory_.ours, link::kReplyArenaBegin};
  link::RingReader in_;
};

}  // namespace mindserve::fuzz
