// Time, from a clock that tests can turn.
#pragma once

#include <atomic>
#include <chrono>

namespace mindserve {

// A point on the machine's monotonic clock (CLOCK_MONOTONIC), the same in every process of a host, so that a
// deadline can be handed from the gateway to a worker as it is.
using Clock = std::chrono::steady_clock;
using TimePoint = Clock::time_point;
using Duration = std::chrono::nanoseconds;

// "No deadline".
inline constexpr TimePoint kNever = TimePoint::max();

class TimeSource {
 public:
  virtual ~TimeSource() = default;
  virtual TimePoint Now() const = 0;
};

// The real clock. Has no state; one may be made wherever it is needed.
class SystemTime final : public TimeSource {
 public:
  TimePoint Now() const override;
};

// A clock that stands until a test moves it. Any thread may call any method.
class FakeTime final : public TimeSource {
 public:
  TimePoint Now() const override { return TimePoint(Duration(now_ns_.load())); }
  void Advance(Duration by) { now_ns_ += by.count(); }

 private:
  std::atomic<int64_t> now_ns_{1'000'000'000};
};

}  // namespace mindserve
