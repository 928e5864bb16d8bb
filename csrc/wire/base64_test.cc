#include "wire/base64.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>

namespace mindserve::wire {
namespace {

std::string Encoded(std::string_view bytes) {
  std::string text;
  EncodeBase64(bytes, &text);
  return text;
}

// The examples of RFC 4648, section 10.
TEST(Base64, Examples) {
  const std::pair<std::string, std::string> examples[] = {
      {"", ""},
      {"f", "Zg=="},
      {"fo", "Zm8="},
      {"foo", "Zm9v"},
      {"foob", "Zm9vYg=="},
      {"fooba", "Zm9vYmE="},
      {"foobar", "Zm9vYmFy"},
  };
  for (const auto& [bytes, text] : examples) {
    EXPECT_EQ(Encoded(bytes), text);
    std::string decoded = "before ";
    ASSERT_TRUE(DecodeBase64(text, &decoded)) << text;
    EXPECT_EQ(decoded, "before " + bytes);
  }
}

TEST(Base64, AllBytesThereAndBack) {
  std::mt19937 random(1);
  for (size_t size = 0; size < 300; ++size) {
    std::string bytes(size, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    std::string decoded;
    ASSERT_TRUE(DecodeBase64(Encoded(bytes), &decoded));
    EXPECT_EQ(decoded, bytes);
  }
}

TEST(Base64, WhatIsNone) {
  for (const char* text : {"Z", "Zg", "Zg=", "Zg==Zg==", "Z===", "====", "=Zg=", "Zm9v\n", "Zm9\n", "Zm-v", "Zm_v",
                           "Zm 9vYg=", "Zg==Zm9v", "\xc3\xa9Zm"}) {
    std::string bytes = "before";
    EXPECT_FALSE(DecodeBase64(text, &bytes)) << text;
    EXPECT_EQ(bytes, "before");
  }
}

// Each byte that is no digit, at each place.
TEST(Base64, EveryWrongByteIsSeen) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    for (size_t at = 0; at < 8; ++at) {
      std::string text = "Zm9vYmFy";
      text[at] = c;
      std::string bytes;
      const bool padding = c == '=' && at == 7;
      EXPECT_EQ(DecodeBase64(text, &bytes), kDigits.find(c) != std::string_view::npos || padding) << text;
    }
  }
}

}  // namespace
}  // namespace mindserve::wire
