// Whether something that takes time goes on fast enough.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>

#include "base/clock.h"
#include "gateway/limits.h"

namespace mindserve::gateway {

// What is transferred has body_idle_timeout to begin with, and each byte is worth its share of a second at
// min_bytes_per_second, so that neither a pause of body_idle_timeout nor a slower rate on its average is allowed. More
// than body_idle_timeout is never saved up.
class Progress {
 public:
  void Begin(TimePoint now, const Limits& limits) {
    last_ = now;
    due_ = now + limits.body_idle_timeout;
  }
  void Took(size_t bytes, TimePoint now, const Limits& limits) {
    last_ = now;
    const TimePoint most = now + limits.body_idle_timeout;
    if (limits.min_bytes_per_second == 0) {
      due_ = most;
      return;
    }
    using Seconds = std::chrono::duration<double>;
    const Seconds worth(static_cast<double>(bytes) / static_cast<double>(limits.min_bytes_per_second));
    due_ = worth >= Seconds(most - due_) ? most : due_ + std::chrono::duration_cast<Clock::duration>(worth);
  }
  // For so long nothing could go on, for reasons that lie elsewhere.
  void Pause(Clock::duration time) {
    last_ += time;
    due_ += time;
  }

  TimePoint due() const { return due_; }
  TimePoint last() const { return last_; }  // when it began, or something was transferred
  bool over(TimePoint now) const { return due_ <= now; }
  // Of what is over: whether it came to a halt, or was slow only.
  bool halted(TimePoint now, const Limits& limits) const { return last_ + limits.body_idle_timeout <= now; }

 private:
  TimePoint due_;
  TimePoint last_;
};

}  // namespace mindserve::gateway
