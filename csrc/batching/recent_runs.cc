#include "batching/recent_runs.h"

#include <algorithm>
#include <utility>

namespace mindserve::batching {
namespace {

void Follow(Duration value, bool is_first, Duration* average) {
  if (is_first) {
    *average = value;
  } else if (value > *average) {
    *average += (value - *average) / 2;
  } else {
    *average -= (*average - value) / 16;
  }
}

}  // namespace

void RecentRuns::Add(Duration run, size_t instances) {
  Follow(run, count_ == 0, &average_);
  Follow(run / static_cast<int64_t>(instances), count_ == 0, &of_one_);
  const Duration forgotten = std::exchange(runs_[count_ % kRuns], run);
  ++count_;
  if (count_ == 1 || run <= shortest_) {
    shortest_ = run;
  } else if (count_ > kRuns && forgotten == shortest_) {
    shortest_ = *std::ranges::min_element(runs_);
  }
}

}  // namespace mindserve::batching
