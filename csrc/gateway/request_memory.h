// Where request messages lie: slabs of an I/O thread's arena, counted against max_enqueued_bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>

#include "gateway/admission.h"
#include "link/arena.h"

namespace mindserve::gateway {

class Message;

// Belongs to one I/O thread and outlives its messages.
class RequestMemory {
 public:
  RequestMemory(link::Arena& arena, Admission& admission) : arena_(arena), admission_(admission) {}

  // Nothing if max_enqueued_bytes or the arena is exhausted.
  std::optional<Message> Allocate(size_t size);

  Admission& admission() { return admission_; }

 private:
  friend class Message;
  link::Arena& arena_;
  Admission& admission_;
};

// A message that a client sent. Frees its slab when it goes.
class Message {
 public:
  Message(Message&& other) noexcept : memory_(std::exchange(other.memory_, nullptr)), slab_(other.slab_) {}
  Message& operator=(Message&& other) noexcept {
    Free();
    memory_ = std::exchange(other.memory_, nullptr);
    slab_ = other.slab_;
    return *this;
  }
  ~Message() { Free(); }

  std::span<std::byte> bytes() const { return slab_.bytes; }
  uint64_t offset() const { return slab_.offset; }  // in the arena's region

 private:
  friend class RequestMemory;
  Message(RequestMemory* memory, const link::Slab& slab) : memory_(memory), slab_(slab) {}
  void Free() {
    if (auto* memory = std::exchange(memory_, nullptr)) {
      memory->arena_.Free(slab_.offset);
      memory->admission_.RemoveBytes(slab_.bytes.size());
    }
  }

  RequestMemory* memory_;
  link::Slab slab_;
};

inline std::optional<Message> RequestMemory::Allocate(size_t size) {
  if (!admission_.AddBytes(size)) return std::nullopt;
  std::optional<link::Slab> slab = arena_.Allocate(size);
  if (!slab) {
    admission_.RemoveBytes(size);
    return std::nullopt;
  }
  return Message(this, *slab);
}

}  // namespace mindserve::gateway
