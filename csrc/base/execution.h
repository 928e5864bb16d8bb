// What a worker is executing, in memory that the master reads once the worker is dead: the requests that may have
// killed it, and those that must not be executed a second time.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace mindserve {

// How the memory speaks of a request: whoever made the tag knows which one is meant. The upper half tells requests
// apart that have the same lower half one after the other.
using ExecutionTag = uint64_t;

// Belongs to what waits for a stage; the taker marks it before it executes anything of it.
struct ExecutionMark {
  ExecutionTag tag = 0;
  std::atomic<uint32_t>* begun = nullptr;  // where it is noted that the request's execution has begun; null: nowhere

  // Different for each request that uses the place, and never that of a place not used yet.
  static constexpr uint32_t Value(ExecutionTag tag) { return static_cast<uint32_t>(tag >> 32 & 0xffffff) + 1; }
  void Begin() const {
    if (begun != nullptr) begun->store(Value(tag), std::memory_order_release);
  }
};

// What one stage executes now. Written by the one thread that executes, before it begins and after it has ended: at
// whatever instruction the process dies, it holds all that was being executed.
class Execution {
 public:
  // More than these requests in one batch are not told apart: see Read.
  static constexpr size_t kMost = 1024;

  // `now_ns` on CLOCK_MONOTONIC. Then Add for each instance of the batch, those of one request in a row.
  void Begin(int64_t now_ns) { since_ns_.store(now_ns, std::memory_order_relaxed); }
  void Add(const ExecutionMark& mark) {
    mark.Begin();
    const uint32_t count = count_.load(std::memory_order_relaxed);
    if (count > 0 && count <= kMost && tags_[count - 1].load(std::memory_order_relaxed) == mark.tag) return;
    if (count < kMost) tags_[count].store(mark.tag, std::memory_order_relaxed);
    if (count <= kMost) count_.store(count + 1, std::memory_order_release);
  }
  void End() {
    count_.store(0, std::memory_order_release);
    since_ns_.store(0, std::memory_order_relaxed);
  }

  // When the batch was begun that runs now; 0: none runs.
  int64_t since_ns() const { return since_ns_.load(std::memory_order_relaxed); }
  // The requests of that batch; nothing: more than could be noted, so that it may be any.
  std::optional<std::vector<ExecutionTag>> Read() const {
    const uint32_t count = count_.load(std::memory_order_acquire);
    if (count > kMost) return std::nullopt;
    std::vector<ExecutionTag> tags;
    for (uint32_t i = 0; i < count; ++i) tags.push_back(tags_[i].load(std::memory_order_relaxed));
    return tags;
  }

 private:
  std::atomic<int64_t> since_ns_{0};
  std::atomic<uint32_t> count_{0};  // kMost + 1: there are more
  std::array<std::atomic<ExecutionTag>, kMost> tags_{};
};
static_assert(std::atomic<ExecutionTag>::is_always_lock_free);
static_assert(sizeof(Execution) == 16 + 8 * Execution::kMost);

}  // namespace mindserve
