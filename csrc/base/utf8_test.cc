#include "base/utf8.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

namespace mindserve {
namespace {

// The bits of a number in so many bytes, allowed or not.
std::string Encode(uint32_t code, size_t size) {
  if (size == 1) return std::string(1, static_cast<char>(code));
  std::string bytes(size, '\0');
  for (size_t i = size; --i > 0; code >>= 6) bytes[i] = static_cast<char>(0x80 | (code & 0x3f));
  bytes[0] = static_cast<char>((0xff00 >> size & 0xff) | code);
  return bytes;
}

size_t SizeOf(uint32_t code) {
  if (code < 0x80) return 1;
  if (code < 0x800) return 2;
  return code < 0x10000 ? 3 : 4;
}

TEST(IsUtf8, TakesEveryCharacterInItsShortestFormAlone) {
  for (uint32_t code = 0; code < 0x200000; ++code) {
    const bool valid = code < 0xd800 || (code > 0xdfff && code <= 0x10ffff);
    for (size_t size = SizeOf(code); size <= 4; ++size) {
      ASSERT_EQ(IsUtf8(Encode(code, size)), valid && size == SizeOf(code)) << code << " in " << size;
    }
  }
}

TEST(IsUtf8, LooksAtEveryPlace) {
  for (size_t length = 0; length < 40; ++length) {
    const std::string text(length, 'a');
    EXPECT_TRUE(IsUtf8(text));
    for (size_t at = 0; at <= length; ++at) {
      const std::string before = text.substr(0, at);
      const std::string after = text.substr(at);
      EXPECT_TRUE(IsUtf8(before + "\xc3\xa9" + after));
      EXPECT_TRUE(IsUtf8(before + "\xf0\x9f\x98\x80" + after));
      EXPECT_FALSE(IsUtf8(before + "\xff" + after)) << length << " " << at;
      EXPECT_FALSE(IsUtf8(before + "\x80" + after)) << length << " " << at;
    }
  }
}

TEST(IsUtf8, RefusesCharactersThatAreCut) {
  for (const std::string character : {"\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"}) {
    for (size_t size = 1; size < character.size(); ++size) {
      EXPECT_FALSE(IsUtf8(character.substr(0, size)));
      EXPECT_FALSE(IsUtf8(character.substr(0, size) + "a"));
      EXPECT_FALSE(IsUtf8(character.substr(0, size) + character));
    }
  }
  EXPECT_FALSE(IsUtf8("\xf8\x88\x80\x80\x80"));
}

TEST(CutUtf8, CutsBetweenCharacters) {
  const std::string text = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z";  // 1, 2, 3, 4 and 1 bytes
  const std::vector<size_t> sizes = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11, 11};
  for (size_t max = 0; max < sizes.size(); ++max) {
    EXPECT_EQ(CutUtf8(text, max), text.substr(0, sizes[max])) << max;
    EXPECT_TRUE(IsUtf8(CutUtf8(text, max)));
  }
}

TEST(CutUtf8, CutsOtherBytesToo) {
  EXPECT_EQ(CutUtf8(std::string(100, '\x80'), 50).size(), 47u);
  EXPECT_EQ(CutUtf8(std::string(100, '\xff'), 50).size(), 50u);
  EXPECT_EQ(CutUtf8("\x80\x80\x80", 2), "");
}

}  // namespace
}  // namespace mindserve
