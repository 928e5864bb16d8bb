// A count that is always on.
#pragma once

#include <atomic>
#include <cstdint>

namespace mindserve {

// Counted by one thread at a time, read by any, also in another process. Lies in shared memory as it is.
class Counter {
 public:
  void Add(uint64_t n = 1) { value_.store(value() + n, std::memory_order_relaxed); }
  void Set(uint64_t n) { value_.store(n, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};
static_assert(std::atomic<uint64_t>::is_always_lock_free);

}  // namespace mindserve
