// Calls that handlers and stage functions make of other servables. They come to the gateway like any others; when the
// call that they were made for is given up, so are they.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/execution.h"
#include "base/status.h"

namespace mindserve::gateway {

// Where a call is: names that are not used again.
struct ChildCall {
  size_t thread = 0;  // number of the I/O thread
  uint64_t connection = 0;
  int32_t stream = 0;
  bool operator==(const ChildCall&) const = default;
};

// How a child ends whose parent was given up.
inline Status ParentGivenUp() {
  return {Code::kCancelled, "the call that this one was made for was given up"};
}

// Of all I/O threads. Thread-safe.
class ChildCalls {
 public:
  // So many parents are remembered that were given up last: a call that was made for one may come after that.
  static constexpr size_t kRemembered = 1024;

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

    ChildCalls* calls_ = nullptr;  // which outlives it
    ExecutionTag parent_ = 0;
    uint64_t number_ = 0;
  };

  // From now on children may come. Before the first one, for parents that are given up meanwhile.
  void Expect() { expected_.store(true); }

  // A call is made for `parent`. Nothing if that one has been given up.
  std::optional<Place> Enter(ExecutionTag parent, const ChildCall& child);

  // The parent was given up: its children are to be, too. A child may have just ended. Costs nothing as long as none
  // are expected.
  std::vector<ChildCall> GiveUp(ExecutionTag parent);

  size_t size() const;

 private:
  std::atomic<bool> expected_{false};
  mutable std::mutex mutex_;
  // All guarded by mutex_.
  uint64_t next_ = 1;
  std::unordered_multimap<ExecutionTag, std::pair<uint64_t, ChildCall>> children_;
  std::array<ExecutionTag, kRemembered> given_up_{};  // as a ring
  size_t times_given_up_ = 0;
};

}  // namespace mindserve::gateway
