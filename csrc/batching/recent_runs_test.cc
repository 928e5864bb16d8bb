#include "batching/recent_runs.h"

#include <gtest/gtest.h>

namespace mindserve::batching {
namespace {

using namespace std::chrono_literals;

TEST(RecentRunsTest, AFewRunsDontTellHowShortOneCanBe) {
  RecentRuns runs;
  for (size_t i = 0; i + 1 < RecentRuns::kEnough; ++i) runs.Add(5ms, 1);
  EXPECT_EQ(runs.shortest(), 0ms);
  runs.Add(7ms, 1);
  EXPECT_EQ(runs.shortest(), 5ms);
}

TEST(RecentRunsTest, TheShortestIsForgottenAfterAWhile) {
  RecentRuns runs;
  runs.Add(1ms, 1);
  for (size_t i = 1; i < RecentRuns::kRuns; ++i) runs.Add(i == 5 ? 3ms : 9ms, 1);
  EXPECT_EQ(runs.shortest(), 1ms);
  runs.Add(9ms, 1);
  EXPECT_EQ(runs.shortest(), 3ms);
  for (size_t i = 0; i < RecentRuns::kRuns; ++i) runs.Add(9ms, 1);
  EXPECT_EQ(runs.shortest(), 9ms);
}

TEST(RecentRunsTest, AveragesRiseFastAndFallSlowly) {
  RecentRuns runs;
  EXPECT_EQ(runs.average(), 0ms);
  runs.Add(16ms, 4);
  EXPECT_EQ(runs.average(), 16ms);
  EXPECT_EQ(runs.of_one(), 4ms);
  runs.Add(32ms, 4);
  EXPECT_EQ(runs.average(), 24ms);
  EXPECT_EQ(runs.of_one(), 6ms);
  runs.Add(8ms, 4);
  EXPECT_EQ(runs.average(), 23ms);
  for (int i = 0; i < 200; ++i) runs.Add(8ms, 4);
  EXPECT_LT(runs.average(), 9ms);
}

}  // namespace
}  // namespace mindserve::batching
