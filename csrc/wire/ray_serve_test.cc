#include "wire/ray_serve.h"

#include <gtest/gtest.h>

#include "wire/test_messages.h"

namespace mindserve::wire {
namespace {

using test::Bytes;
using test::Field;

TEST(RayServe, ARequestIsAnEmptyMessage) {
  EXPECT_TRUE(CheckEmptyMessage({}, "HealthzRequest").ok());
  EXPECT_TRUE(CheckEmptyMessage(Bytes(test::UnknownFields()), "HealthzRequest").ok());
}

TEST(RayServe, WhatIsNoMessageIsRefused) {
  const std::string field = Field(1, "content");
  for (size_t size = 1; size < field.size(); ++size) {
    const Status status = CheckEmptyMessage(Bytes(std::string_view(field).substr(0, size)), "HealthzRequest");
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << size;
    EXPECT_NE(status.message().find("HealthzRequest"), std::string::npos);
  }
}

TEST(RayServe, ResponsesHoldTheirTexts) {
  EXPECT_EQ(WriteListApplicationsResponse({}), "");
  EXPECT_EQ(WriteListApplicationsResponse({"app1", "app2"}), Field(1, "app1") + Field(1, "app2"));
  EXPECT_EQ(WriteHealthzResponse("success"), Field(1, "success"));
}

}  // namespace
}  // namespace mindserve::wire
