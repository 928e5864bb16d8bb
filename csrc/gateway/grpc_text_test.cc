#include "gateway/grpc_text.h"

#include <gtest/gtest.h>

namespace mindserve::gateway {
namespace {

using namespace std::chrono_literals;

TEST(TimeoutTest, EachUnit) {
  EXPECT_EQ(ParseTimeout("2H"), 2h);
  EXPECT_EQ(ParseTimeout("3M"), 3min);
  EXPECT_EQ(ParseTimeout("4S"), 4s);
  EXPECT_EQ(ParseTimeout("5m"), 5ms);
  EXPECT_EQ(ParseTimeout("6u"), 6us);
  EXPECT_EQ(ParseTimeout("7n"), 7ns);
  EXPECT_EQ(ParseTimeout("0n"), 0ns);
  EXPECT_EQ(ParseTimeout("99999999S"), 99999999s);
  EXPECT_GT(*ParseTimeout("99999999M"), 1000000h);
}

TEST(TimeoutTest, MoreThanTheClockHoldsIsCut) {
  EXPECT_EQ(ParseTimeout("99999999H"), 1'000'000h);
}

TEST(TimeoutTest, AnythingElseIsRefused) {
  for (const char* text : {"", "S", "1", "123456789S", "-1S", "1.5S", " 1S", "1s", "1h", "1 S", "0x1S"}) {
    EXPECT_FALSE(ParseTimeout(text)) << text;
  }
}

TEST(PercentTest, PrintableAsciiStaysAndTheRestIsEncoded) {
  EXPECT_EQ(PercentEncode("", 100), "");
  EXPECT_EQ(PercentEncode("plain text ~!", 100), "plain text ~!");
  EXPECT_EQ(PercentEncode("100%", 100), "100%25");
  EXPECT_EQ(PercentEncode("a\nb\tc\x7f", 100), "a%0Ab%09c%7F");
  EXPECT_EQ(PercentEncode("h\xc3\xa9", 100), "h%C3%A9");
  EXPECT_EQ(PercentEncode(std::string(1, '\0'), 100), "%00");
  EXPECT_EQ(PercentEncode(" a b ", 100), "%20a b%20");
  EXPECT_EQ(PercentEncode(" ", 100), "%20");
}

TEST(PercentTest, WhatIsTooLongIsCutWithinTheSizeThatIsSent) {
  for (const std::string_view character : {"a", "%", " ", "\xc3\xa9", "\xe2\x82\xac"}) {
    std::string text;
    while (text.size() < 1000) text += character;
    for (size_t max = 0; max < 50; ++max) {
      const std::string encoded = PercentEncode(text, max);
      EXPECT_LE(encoded.size(), max);
      EXPECT_GE(encoded.size() + 13, max);
    }
  }
}

TEST(Base64Test, GoesThereAndBackWithAndWithoutPadding) {
  EXPECT_EQ(Base64Encode(""), "");
  EXPECT_EQ(Base64Encode("f"), "Zg");
  EXPECT_EQ(Base64Encode("fo"), "Zm8");
  EXPECT_EQ(Base64Encode("foo"), "Zm9v");
  EXPECT_EQ(Base64Decode("Zg=="), "f");
  EXPECT_EQ(Base64Decode("Zm8="), "fo");
  EXPECT_EQ(Base64Decode("Zm9v"), "foo");
  std::string bytes;
  for (int i = 0; i < 256; ++i) {
    bytes += static_cast<char>(i);
    EXPECT_EQ(Base64Decode(Base64Encode(bytes)), bytes);
  }
  EXPECT_EQ(Base64Encode("\xfb\xff"), "+/8");
}

TEST(Base64Test, AnythingElseIsRefused) {
  for (const char* text : {"Z", "Zg=", "Zm9v=", "=", "====", "Zm9v====", "Zh==", "Zm9", "Z-8_", "Zm 9v", "Zm9v\n"}) {
    EXPECT_FALSE(Base64Decode(text)) << text;
  }
}

TEST(ContentTypeTest, GrpcAndItsSubtypes) {
  EXPECT_TRUE(IsGrpcContentType("application/grpc"));
  EXPECT_TRUE(IsGrpcContentType("application/grpc+proto"));
  EXPECT_TRUE(IsGrpcContentType("application/grpc; charset=utf-8"));
  EXPECT_FALSE(IsGrpcContentType("application/grpc-web"));
  EXPECT_FALSE(IsGrpcContentType("application/json"));
  EXPECT_FALSE(IsGrpcContentType(""));
}

TEST(MetadataKeyTest, WhatBelongsToTheProtocolIsNoMetadata) {
  EXPECT_TRUE(IsMetadataKey("x-request-id"));
  EXPECT_TRUE(IsMetadataKey("user-agent"));
  for (const char* name : {":path", "grpc-timeout", "grpc-status", "te", "content-type", ""}) {
    EXPECT_FALSE(IsMetadataKey(name)) << name;
  }
}

}  // namespace
}  // namespace mindserve::gateway
