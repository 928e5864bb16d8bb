#include "gateway/inner_call.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "wire/call_head.h"

namespace mindserve::gateway {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(InnerCall, SaysNothingWithoutMetadata) {
  const auto call = ReadInnerCall({{"other", "7"}});
  ASSERT_TRUE(call.ok());
  EXPECT_EQ(call->depth, 0u);
  EXPECT_THAT(call->callers, IsEmpty());
}

TEST(InnerCall, SaysHowDeepItIsAndForWhat) {
  const auto call =
      ReadInnerCall({{"mindserve-depth", "3"}, {"mindserve-parent", "00ff000000000007 0000000000000001"}});
  ASSERT_TRUE(call.ok());
  EXPECT_EQ(call->depth, 3u);
  EXPECT_THAT(call->callers, ElementsAre(0x00ff000000000007, 1));
}

TEST(InnerCall, IsRefusedWhenItIsTooDeep) {
  EXPECT_TRUE(ReadInnerCall({{"mindserve-depth", std::to_string(wire::kMostDepth)}}).ok());
  const auto refused = ReadInnerCall({{"mindserve-depth", std::to_string(wire::kMostDepth + 1)}});
  EXPECT_EQ(refused.status().code(), Code::kFailedPrecondition);
  EXPECT_THAT(refused.status().message(), HasSubstr("17 deep, at most 16 is possible"));
}

TEST(InnerCall, IsRefusedWhenItCannotBeUnderstood) {
  for (const char* depth : {"", "x", "-1", "1x", " 1", "99999999999"}) {
    EXPECT_EQ(ReadInnerCall({{"mindserve-depth", depth}}).status().code(), Code::kInvalidArgument) << depth;
  }
  for (const char* parent : {"", "x", " 1", "1 ", "1  2", "1,2", "10000000000000000"}) {
    EXPECT_EQ(ReadInnerCall({{"mindserve-parent", parent}}).status().code(), Code::kInvalidArgument) << parent;
  }
  std::string callers = "1";
  for (uint32_t i = 0; i < wire::kMostDepth; ++i) callers += " 1";
  EXPECT_TRUE(ReadInnerCall({{"mindserve-parent", callers}}).ok());
  EXPECT_FALSE(ReadInnerCall({{"mindserve-parent", callers + " 1"}}).ok());
}

TEST(InnerCall, ItsKeysAreForNoHandler) {
  EXPECT_TRUE(IsInnerCallKey("mindserve-depth"));
  EXPECT_TRUE(IsInnerCallKey("mindserve-parent"));
  EXPECT_FALSE(IsInnerCallKey("mindserve-other"));
}

}  // namespace
}  // namespace mindserve::gateway
