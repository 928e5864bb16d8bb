#include "wire/health.h"

#include <gtest/gtest.h>

#include "wire/test_messages.h"

namespace mindserve::wire {
namespace {

using test::Bytes;
using test::Field;
using test::Varint;

TEST(HealthRequest, NamesAService) {
  const std::string request = Field(1, "mindspore.serving.proto.MSService");
  const auto service = ReadHealthRequest(Bytes(request));
  ASSERT_TRUE(service.ok());
  EXPECT_EQ(*service, "mindspore.serving.proto.MSService");
  EXPECT_EQ(service->data(), request.data() + 2);
}

TEST(HealthRequest, IsForTheWholeServerWhenEmpty) {
  EXPECT_EQ(*ReadHealthRequest({}), "");
  EXPECT_EQ(*ReadHealthRequest(Bytes(Field(1, ""))), "");
}

TEST(HealthRequest, TakesTheLastServiceAndSkipsTheRest) {
  const std::string request =
      test::UnknownFields() + Varint(1, 1) + Field(1, "first") + Field(1, "last") + test::UnknownFields();
  EXPECT_EQ(*ReadHealthRequest(Bytes(request)), "last");
}

TEST(HealthRequest, RefusesEveryTruncation) {
  const std::string request = Field(1, "service");
  for (size_t size = 1; size < request.size(); ++size) {
    const std::string cut(request, 0, size);
    const auto service = ReadHealthRequest(Bytes(cut));
    ASSERT_FALSE(service.ok()) << size;
    EXPECT_EQ(service.status().code(), Code::kInvalidArgument);
  }
  EXPECT_FALSE(ReadHealthRequest(Bytes("\x0b")).ok());
  EXPECT_FALSE(ReadHealthRequest(Bytes(std::string(1, '\0'))).ok());
}

TEST(HealthRequest, RefusesAServiceThatIsNoUtf8) {
  EXPECT_TRUE(ReadHealthRequest(Bytes(Field(1, "caf\xc3\xa9"))).ok());
  const auto service = ReadHealthRequest(Bytes(Field(1, "caf\xe9") + Field(1, "last")));
  ASSERT_FALSE(service.ok());
  EXPECT_EQ(service.status().code(), Code::kInvalidArgument);
}

TEST(HealthResponse, HoldsTheStatus) {
  EXPECT_EQ(WriteHealthResponse(ServingStatus::kUnknown), "");
  EXPECT_EQ(WriteHealthResponse(ServingStatus::kServing), "\x08\x01");
  EXPECT_EQ(WriteHealthResponse(ServingStatus::kNotServing), "\x08\x02");
  EXPECT_EQ(WriteHealthResponse(ServingStatus::kServiceUnknown), "\x08\x03");
}

}  // namespace
}  // namespace mindserve::wire
