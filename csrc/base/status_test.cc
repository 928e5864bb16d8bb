#include "base/status.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>

namespace mindserve {
namespace {

TEST(Code, NamesAreGrpcs) {
  EXPECT_EQ(CodeName(Code::kOk), "OK");
  EXPECT_EQ(CodeName(Code::kCancelled), "CANCELLED");
  EXPECT_EQ(CodeName(Code::kUnknown), "UNKNOWN");
  EXPECT_EQ(CodeName(Code::kInvalidArgument), "INVALID_ARGUMENT");
  EXPECT_EQ(CodeName(Code::kDeadlineExceeded), "DEADLINE_EXCEEDED");
  EXPECT_EQ(CodeName(Code::kNotFound), "NOT_FOUND");
  EXPECT_EQ(CodeName(Code::kAlreadyExists), "ALREADY_EXISTS");
  EXPECT_EQ(CodeName(Code::kPermissionDenied), "PERMISSION_DENIED");
  EXPECT_EQ(CodeName(Code::kResourceExhausted), "RESOURCE_EXHAUSTED");
  EXPECT_EQ(CodeName(Code::kFailedPrecondition), "FAILED_PRECONDITION");
  EXPECT_EQ(CodeName(Code::kAborted), "ABORTED");
  EXPECT_EQ(CodeName(Code::kOutOfRange), "OUT_OF_RANGE");
  EXPECT_EQ(CodeName(Code::kUnimplemented), "UNIMPLEMENTED");
  EXPECT_EQ(CodeName(Code::kInternal), "INTERNAL");
  EXPECT_EQ(CodeName(Code::kUnavailable), "UNAVAILABLE");
  EXPECT_EQ(CodeName(Code::kDataLoss), "DATA_LOSS");
  EXPECT_EQ(CodeName(Code::kUnauthenticated), "UNAUTHENTICATED");
}

TEST(Code, EveryCodeHasANameOfItsOwnAndOthersAreUnknown) {
  std::set<std::string_view> names;
  for (uint8_t code = 0; code < kCodeCount; ++code) names.insert(CodeName(static_cast<Code>(code)));
  EXPECT_EQ(names.size(), kCodeCount);
  EXPECT_EQ(CodeName(static_cast<Code>(kCodeCount)), "UNKNOWN");
  EXPECT_EQ(CodeName(static_cast<Code>(255)), "UNKNOWN");
}

TEST(Status, IsOkByDefault) {
  EXPECT_TRUE(Status().ok());
  EXPECT_EQ(Status().code(), Code::kOk);
  EXPECT_EQ(Status().ToString(), "OK");
  EXPECT_EQ(Status::Ok(), Status());
}

TEST(Status, SaysItsCodeAndMessage) {
  const Status status(Code::kNotFound, "no model named add");
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_EQ(status.message(), "no model named add");
  EXPECT_EQ(status.ToString(), "NOT_FOUND: no model named add");
}

TEST(Status, ComparesCodeAndMessage) {
  const Status status(Code::kNotFound, "a");
  EXPECT_EQ(status, Status(Code::kNotFound, "a"));
  EXPECT_NE(status, Status(Code::kNotFound, "b"));
  EXPECT_NE(status, Status(Code::kAborted, "a"));
  EXPECT_NE(status, Status());
}

Status FailIf(bool fail) {
  return fail ? Status(Code::kAborted, "asked to") : Status();
}

Status Steps(bool fail, int* steps) {
  ++*steps;
  MS_RETURN_IF_ERROR(FailIf(fail));
  ++*steps;
  return Status::Ok();
}

Result<int> StepsToValue(bool fail) {
  MS_RETURN_IF_ERROR(FailIf(fail));
  return 7;
}

TEST(ReturnIfError, GoesOnWhenOk) {
  int steps = 0;
  EXPECT_TRUE(Steps(false, &steps).ok());
  EXPECT_EQ(steps, 2);
  EXPECT_EQ(*StepsToValue(false), 7);
}

TEST(ReturnIfError, ReturnsTheErrorFromStatusAndResultFunctions) {
  int steps = 0;
  EXPECT_EQ(Steps(true, &steps), Status(Code::kAborted, "asked to"));
  EXPECT_EQ(steps, 1);
  const auto result = StepsToValue(true);
  EXPECT_FALSE(result.ok());
  EXPECT_EQ(result.status(), Status(Code::kAborted, "asked to"));
}

TEST(ReturnIfError, IsOneStatementInAnUnbracedIf) {
  const auto run = [](bool check, bool other) -> Status {
    if (check)
      MS_RETURN_IF_ERROR(FailIf(true));
    else if (other)
      return Status(Code::kInternal, "other");
    return Status::Ok();
  };
  EXPECT_EQ(run(true, true).code(), Code::kAborted);
  EXPECT_EQ(run(false, true).code(), Code::kInternal);
  EXPECT_TRUE(run(false, false).ok());
}

TEST(Result, HoldsAValue) {
  Result<std::string> result(std::string("text"));
  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(result.status().ok());
  EXPECT_EQ(*result, "text");
  EXPECT_EQ(result.value(), "text");
  EXPECT_EQ(result->size(), 4u);
  *result += "s";
  EXPECT_EQ(std::as_const(result).value(), "texts");
}

TEST(Result, MovesAValueThatCannotBeCopied) {
  Result<std::unique_ptr<int>> result(std::make_unique<int>(3));
  ASSERT_TRUE(result.ok());
  const std::unique_ptr<int> taken = *std::move(result);
  EXPECT_EQ(*taken, 3);
  EXPECT_EQ(*Result<std::unique_ptr<int>>(std::make_unique<int>(4)).value(), 4);
}

}  // namespace
}  // namespace mindserve
