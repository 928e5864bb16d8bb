// Where request messages lie: slabs of an I/O thread's arena, counted against max_enqueued_bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "base/status.h"
#include "gateway/admission.h"
#include "link/arena.h"

namespace mindserve::gateway {

class Message;

// Where in a message lies what its reader wants aligned; known from the first bytes, or not.
using AlignedAt = std::optional<size_t> (*)(std::span<const std::byte> begin);

// Belongs to one I/O thread and outlives its messages.
class RequestMemory {
 public:
  RequestMemory(link::Arena& arena, Admission& admission) : arena_(arena), admission_(admission) {}

  // RESOURCE_EXHAUSTED if max_enqueued_bytes or the arena is exhausted. The message begins `skew` bytes behind an
  // aligned place, so that what lies as far before one in it is aligned. Where `counted` counts them already, the
  // message takes that over.
  Result<Message> Allocate(size_t size, size_t skew = 0, BytesTicket* counted = nullptr);
  // What comes to `bytes` finds no room under max_enqueued_bytes.
  Status OverLimit(size_t bytes) {
    // Where nothing was held it would find none either.
    if (bytes <= admission_.max_bytes()) Lack();
    return {Code::kResourceExhausted,
            "enqueued bytes exceed the limit max_enqueued_bytes " + std::to_string(admission_.max_bytes())};
  }

  Admission& admission() { return admission_; }
  // By which it is noted when somebody found no room; the thread's, and lives as long as anything is asked for. Null:
  // it is not.
  void SetTime(const TimePoint* now) { now_ = now; }
  // Somebody found no room.
  void Lack() {
    if (now_ != nullptr) admission_.LackBytes(*now_);
  }

 private:
  friend class Message;
  link::Arena& arena_;
  Admission& admission_;
  const TimePoint* now_ = nullptr;
};

// A message that a client sent. Frees its slab when it goes; is counted until then, or until StopCounting.
class Message {
 public:
  Message(Message&& other) noexcept
      : memory_(std::exchange(other.memory_, nullptr)),
        slab_(other.slab_),
        skew_(other.skew_),
        counted_(other.counted_) {}
  Message& operator=(Message&& other) noexcept {
    Free();
    memory_ = std::exchange(other.memory_, nullptr);
    slab_ = other.slab_;
    skew_ = other.skew_;
    counted_ = other.counted_;
    return *this;
  }
  ~Message() { Free(); }

  std::span<std::byte> bytes() const { return slab_.bytes.subspan(skew_); }
  uint64_t offset() const { return slab_.offset + skew_; }  // in the arena's region

  // The same bytes, as long as this message, or where it is moved to, has them: freed by nobody, and counted nowhere.
  Message View() const { return {nullptr, slab_, skew_}; }

  // From now on it doesn't count as enqueued: its request is over, though somebody may still read it.
  void StopCounting() {
    if (memory_ != nullptr && std::exchange(counted_, false)) memory_->admission_.RemoveBytes(bytes().size());
  }

 private:
  friend class RequestMemory;
  Message(RequestMemory* memory, const link::Slab& slab, size_t skew) : memory_(memory), slab_(slab), skew_(skew) {}
  void Free() {
    StopCounting();
    if (auto* memory = std::exchange(memory_, nullptr)) memory->arena_.Free(slab_.offset);
  }

  RequestMemory* memory_;
  link::Slab slab_;
  size_t skew_;
  bool counted_ = true;
};

inline Result<Message> RequestMemory::Allocate(size_t size, size_t skew, BytesTicket* counted) {
  if (counted == nullptr && !admission_.AddBytes(size)) return OverLimit(size);
  std::optional<link::Slab> slab = arena_.Allocate(size + skew);
  if (!slab) {
    if (counted == nullptr) admission_.RemoveBytes(size);
    Lack();
    return Status(Code::kResourceExhausted,
                  "no room is left for a request of " + std::to_string(size) + " bytes: " +
                      std::to_string(arena_.used()) + " bytes are held by " + std::to_string(arena_.slabs()) +
                      " requests, or by functions that keep the inputs of requests already answered");
  }
  if (counted != nullptr) counted->HandOver();
  return Message(this, *slab, skew);
}

}  // namespace mindserve::gateway
