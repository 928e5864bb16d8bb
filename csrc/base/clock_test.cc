#include "base/clock.h"

#include <gtest/gtest.h>
#include <time.h>

namespace mindserve {
namespace {

TEST(SystemTime, NeverGoesBack) {
  const SystemTime time;
  const TimePoint first = time.Now();
  EXPECT_GE(time.Now(), first);
  EXPECT_LT(first, kNever);
}

TEST(SystemTime, IsTheMachinesMonotonicClockSoThatProcessesAgree) {
  const auto monotonic = [] {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return TimePoint(std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec));
  };
  const TimePoint before = monotonic();
  const TimePoint now = SystemTime().Now();
  EXPECT_LE(before, now);
  EXPECT_LE(now, monotonic());
}

TEST(FakeTime, StandsUntilItIsMoved) {
  FakeTime time;
  const TimePoint start = time.Now();
  EXPECT_EQ(time.Now(), start);
  time.Advance(std::chrono::milliseconds(3));
  EXPECT_EQ(time.Now() - start, std::chrono::milliseconds(3));
  time.Advance(Duration(1));
  EXPECT_EQ(time.Now() - start, Duration(3'000'001));
}

TEST(FakeTime, StartsAfterTheEpochSoThatEarlierTimesCanBeSaid) {
  const FakeTime time;
  EXPECT_GT(time.Now() - std::chrono::milliseconds(100), TimePoint());
}

}  // namespace
}  // namespace mindserve
