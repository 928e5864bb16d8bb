#include "gateway/child_calls.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <vector>

namespace mindserve::gateway {
namespace {

TEST(ChildCalls, AreGivenUpWithTheirParentAndWithNoOther) {
  ChildCalls calls;
  std::vector<int> given_up;
  const auto first = calls.Enter(1, [&] { given_up.push_back(1); });
  const auto second = calls.Enter(1, [&] { given_up.push_back(2); });
  const auto other = calls.Enter(2, [&] { given_up.push_back(3); });
  EXPECT_EQ(calls.size(), 3u);
  calls.GiveUp(7);
  EXPECT_TRUE(given_up.empty());
  calls.GiveUp(1);
  std::ranges::sort(given_up);
  EXPECT_EQ(given_up, (std::vector{1, 2}));
  EXPECT_EQ(calls.size(), 1u);
  calls.GiveUp(1);
  EXPECT_EQ(given_up.size(), 2u) << "each once";
}

TEST(ChildCalls, ThatAreOverAreNotGivenUp) {
  ChildCalls calls;
  int given_up = 0;
  std::optional place = calls.Enter(1, [&] { ++given_up; });
  const auto sibling = calls.Enter(1, [&] { given_up += 10; });
  place.reset();
  EXPECT_EQ(calls.size(), 1u);
  calls.GiveUp(1);
  EXPECT_EQ(given_up, 10);
}

TEST(ChildCalls, LeaveOnceHoweverTheirPlaceIsMoved) {
  ChildCalls calls;
  ChildCalls::Place kept;
  {
    ChildCalls::Place place = calls.Enter(1, [] {});
    kept = std::move(place);
  }
  EXPECT_EQ(calls.size(), 1u);
  kept = calls.Enter(2, [] {});
  EXPECT_EQ(calls.size(), 1u) << "the place that was overwritten is left";
  kept = {};
  EXPECT_EQ(calls.size(), 0u);
}

TEST(ChildCalls, MayLeaveAfterTheyWereGivenUp) {
  ChildCalls calls;
  auto place = calls.Enter(1, [] {});
  calls.GiveUp(1);
  place = {};
  EXPECT_EQ(calls.size(), 0u);
}

}  // namespace
}  // namespace mindserve::gateway
