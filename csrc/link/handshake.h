// How the two ends of a link find each other: the messages on the Unix socket. docs/wire_format.md states them byte by
// byte.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "base/execution.h"
#include "base/status.h"
#include "base/unique_fd.h"
#include "link/frame.h"
#include "link/ring.h"

namespace mindserve::link {

enum class HandshakeStep : uint32_t {
  kHello = 1,   // worker: its sleep flag's region, its bell, its statistics' region
  kOffer = 2,   // gateway, once for each lane: the port's region (flag, arena), the port's bell, the lane's ring
  kAccept = 3,  // worker, once for each lane: the lane's ring and reply arena
};

struct HandshakeMessage {
  uint32_t magic = kLinkMagic;
  uint32_t version = kLinkVersion;
  HandshakeStep step = HandshakeStep::kHello;
  uint32_t ring_frames = kRingFrames;
  uint32_t lane = 0;   // kOffer, kAccept: which
  uint32_t lanes = 0;  // kOffer: how many there are
};
static_assert(sizeof(HandshakeMessage) == 24);
static_assert(std::is_trivially_copyable_v<HandshakeMessage>);

inline constexpr uint32_t kMaxLanes = 256;

// In a worker's region of a lane: where it notes which calls' execution has begun, a value of ExecutionMark for each of
// so many places, a call's place being the lower half of its number; and where the reply arena begins.
inline constexpr size_t kBegunBegin = (sizeof(RingBlock) + kPage - 1) / kPage * kPage;
inline constexpr size_t kBegunPlaces = 65536;
inline constexpr size_t kReplyArenaBegin = kBegunBegin + kBegunPlaces * sizeof(uint32_t);
static_assert(kReplyArenaBegin % kPage == 0);

// How a worker's Execution speaks of a call.
constexpr ExecutionTag TagOf(size_t lane, uint64_t call) {
  static_assert(kMaxLanes <= 256);
  return static_cast<ExecutionTag>(lane) << 56 | (call & 0xff'ffff'ffff'ffff);
}

constexpr size_t LaneOf(ExecutionTag tag) {
  return tag >> 56;
}
constexpr uint64_t CallOf(ExecutionTag tag) {
  return tag & 0xff'ffff'ffff'ffff;
}

// Where a port's request arena begins.
inline constexpr size_t kRequestArenaBegin = kPage;

using Deadline = std::chrono::steady_clock::time_point;

// Sends a message with descriptors, at most three.
Status SendHandshake(int socket, const HandshakeMessage& message, std::span<const int> fds, Deadline deadline);

// Receives the message of this step with exactly `fds` descriptors, which are close-on-exec. DEADLINE_EXCEEDED;
// UNAVAILABLE if the other end is gone; FAILED_PRECONDITION if it speaks another version; INVALID_ARGUMENT for anything
// else that is not it.
Result<HandshakeMessage> ReceiveHandshake(int socket, HandshakeStep step, std::span<UniqueFd> fds, Deadline deadline);

// A new bell: an eventfd, non-blocking, close-on-exec.
Result<UniqueFd> NewBell();
// INVALID_ARGUMENT unless `fd` is an eventfd; makes it non-blocking, so that ringing it can't hang.
Status CheckBell(int fd);
// Empties a bell.
void EmptyBell(int fd);

}  // namespace mindserve::link
