// Calls that a handler or a stage function makes of other servables. They come to the gateway like any others; when the
// call that they were made for is given up, so are they.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "base/execution.h"

namespace mindserve::gateway {

// Of all I/O threads. Thread-safe.
class ChildCalls {
 public:
  // A child's place; left when this is destroyed.
  class Place {
   public:
    Place() = default;
    Place(Place&& other) noexcept
        : calls_(std::exchange(other.calls_, nullptr)), parent_(other.parent_), number_(other.number_) {}
    Place& operator=(Place&& other) noexcept {
      Leave();
      calls_ = std::exchange(other.calls_, nullptr);
      parent_ = other.parent_;
      number_ = other.number_;
      return *this;
    }
    ~Place() { Leave(); }

   private:
    friend class ChildCalls;
    Place(ChildCalls* calls, ExecutionTag parent, uint64_t number) : calls_(calls), parent_(parent), number_(number) {}
    void Leave();

    ChildCalls* calls_ = nullptr;
    ExecutionTag parent_ = 0;
    uint64_t number_ = 0;
  };

  // A call is made for `parent`. `give_up` is called at most once, on any thread, under no lock, and maybe still when
  // the place has just been left: it names what it ends by numbers that are not used again.
  Place Enter(ExecutionTag parent, std::function<void()> give_up);

  // The parent was given up. Costs next to nothing where no call has children.
  void GiveUp(ExecutionTag parent);

  size_t size() const { return size_.load(std::memory_order_relaxed); }

 private:
  std::atomic<size_t> size_{0};
  std::mutex mutex_;
  uint64_t next_ = 1;  // these two are guarded by mutex_
  std::unordered_multimap<ExecutionTag, std::pair<uint64_t, std::function<void()>>> children_;
};

}  // namespace mindserve::gateway
