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

// Belongs to one I/O thread and outlives its messages.
class RequestMemory {
 public:
  RequestMemory(link::Arena& arena, Admission& admission) : arena_(arena), admission_(admission) {}

  // RESOURCE_EXHAUSTED if max_enqueued_bytes or the arena is exhausted.
  Result<Message> Allocate(size_t size);
  Status OverLimit() const {
    return {Code::kResourceExhausted,
            "enqueued bytes exceed the limit max_enqueued_bytes " + std::to_string(admission_.max_bytes())};
  }

  Admission& admission() { return admission_; }

 private:
  friend class Message;
  link::Arena& arena_;
  Admission& admission_;
};

// A message that a client sent. Frees its slab when it goes; is counted until then, or until StopCounting.
class Message {
 public:
  Message(Message&& other) noexcept
      : memory_(std::exchange(other.memory_, nullptr)), slab_(other.slab_), counted_(other.counted_) {}
  Message& operator=(Message&& other) noexcept {
    Free();
    memory_ = std::exchange(other.memory_, nullptr);
    slab_ = other.slab_;
    counted_ = other.counted_;
    return *this;
  }
  ~Message() { Free(); }

  std::span<std::byte> bytes() const { return slab_.bytes; }
  uint64_t offset() const { return slab_.offset; }  // in the arena's region

  // From now on it doesn't count as enqueued: its request is over, though somebody may still read it.
  void StopCounting() {
    if (memory_ != nullptr && std::exchange(counted_, false)) memory_->admission_.RemoveBytes(slab_.bytes.size());
  }

 private:
  friend class RequestMemory;
  Message(RequestMemory* memory, const link::Slab& slab) : memory_(memory), slab_(slab) {}
  void Free() {
    StopCounting();
    if (auto* memory = std::exchange(memory_, nullptr)) memory->arena_.Free(slab_.offset);
  }

  RequestMemory* memory_;
  link::Slab slab_;
  bool counted_ = true;
};

inline Result<Message> RequestMemory::Allocate(size_t size) {
  if (!admission_.AddBytes(size)) return OverLimit();
  std::optional<link::Slab> slab = arena_.Allocate(size);
  if (!slab) {
    admission_.RemoveBytes(size);
    return Status(Code::kResourceExhausted,
                  "no room is left for a request of " + std::to_string(size) + " bytes: " +
                      std::to_string(arena_.used()) + " bytes are held by " + std::to_string(arena_.slabs()) +
                      " requests, or by functions that keep the inputs of requests already answered");
  }
  return Message(this, *slab);
}

}  // namespace mindserve::gateway
