// How long a stage's runs have taken lately.
#pragma once

#include <array>
#include <cstddef>

#include "base/clock.h"

namespace mindserve::batching {

// Not thread-safe: guarded by its Queue.
class RecentRuns {
 public:
  static constexpr size_t kRuns = 32;   // that are looked back at
  static constexpr size_t kEnough = 8;  // to tell how short a run can be

  // A run of so many instances, at least one.
  void Add(Duration run, size_t instances);

  // The shortest of the last kRuns; zero before kEnough: it may be anything.
  Duration shortest() const { return count_ < kEnough ? Duration::zero() : shortest_; }
  // Of a run, and of one instance of it. Rise fast and fall slowly; zero before the first run.
  Duration average() const { return average_; }
  Duration of_one() const { return of_one_; }

 private:
  std::array<Duration, kRuns> runs_{};
  size_t count_ = 0;
  Duration shortest_{0};
  Duration average_{0};
  Duration of_one_{0};
};

}  // namespace mindserve::batching
