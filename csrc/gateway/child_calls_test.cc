#include "gateway/child_calls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

namespace mindserve::gateway {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

constexpr ChildCall kFirst{.thread = 0, .connection = 5, .stream = 1};
constexpr ChildCall kSecond{.thread = 1, .connection = 5, .stream = 3};

class ChildCallsTest : public testing::Test {
 protected:
  ChildCallsTest() { calls_.Expect(); }
  ChildCalls calls_;
};

TEST_F(ChildCallsTest, AreGivenUpWithTheirParentAndWithNoOther) {
  const auto first = calls_.Enter(1, kFirst);
  const auto second = calls_.Enter(1, kSecond);
  const auto other = calls_.Enter(2, {.thread = 2});
  EXPECT_EQ(calls_.size(), 3u);
  EXPECT_THAT(calls_.GiveUp(7), IsEmpty());
  EXPECT_THAT(calls_.GiveUp(1), UnorderedElementsAre(kFirst, kSecond));
  EXPECT_EQ(calls_.size(), 1u);
  EXPECT_THAT(calls_.GiveUp(1), IsEmpty()) << "each once";
}

TEST_F(ChildCallsTest, ThatAreOverAreNotGivenUp) {
  std::optional place = calls_.Enter(1, kFirst);
  const auto sibling = calls_.Enter(1, kSecond);
  place.reset();
  EXPECT_EQ(calls_.size(), 1u);
  EXPECT_THAT(calls_.GiveUp(1), ElementsAre(kSecond));
}

TEST_F(ChildCallsTest, LeaveOnceHoweverTheirPlaceIsMoved) {
  ChildCalls::Place kept;
  {
    ChildCalls::Place place = *calls_.Enter(1, kFirst);
    kept = std::move(place);
  }
  EXPECT_EQ(calls_.size(), 1u);
  kept = *calls_.Enter(2, kSecond);
  EXPECT_EQ(calls_.size(), 1u) << "the place that was overwritten is left";
  kept = {};
  EXPECT_EQ(calls_.size(), 0u);
}

TEST_F(ChildCallsTest, MayLeaveAfterTheyWereGivenUp) {
  auto place = calls_.Enter(1, kFirst);
  calls_.GiveUp(1);
  place.reset();
  EXPECT_EQ(calls_.size(), 0u);
}

TEST_F(ChildCallsTest, OfAParentThatWasGivenUpLatelyFindNoPlace) {
  EXPECT_TRUE(calls_.Enter(0, kFirst)) << "0 is a tag like others";
  calls_.GiveUp(0);
  EXPECT_FALSE(calls_.Enter(0, kFirst));
  EXPECT_TRUE(calls_.Enter(1, kFirst));
  for (ExecutionTag tag = 1; tag < ChildCalls::kRemembered; ++tag) calls_.GiveUp(tag);
  EXPECT_FALSE(calls_.Enter(0, kFirst));
  calls_.GiveUp(ChildCalls::kRemembered);
  EXPECT_TRUE(calls_.Enter(0, kFirst)) << "it is remembered no more";
}

TEST(ChildCalls, AreNotLookedForBeforeTheyAreExpected) {
  ChildCalls calls;
  calls.GiveUp(1);
  EXPECT_TRUE(calls.Enter(1, kFirst));
}

}  // namespace
}  // namespace mindserve::gateway
