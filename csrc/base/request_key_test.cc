#include "base/request_key.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace mindserve {
namespace {

std::string Text(const RequestKey& key) {
  const RequestKeyText text = TextOf(key);
  return {text.data(), text.size()};
}

TEST(RequestKeyTest, ItsTextIsAUuidOfVersion4) {
  for (const RequestKey& key : {RequestKey{1, 0}, RequestKey{0, 1}, RequestKey{~uint64_t{0}, ~uint32_t{0}}}) {
    const std::string text = Text(key);
    ASSERT_EQ(text.size(), 36u);
    for (size_t i = 0; i < text.size(); ++i) {
      if (i == 8 || i == 13 || i == 18 || i == 23) {
        EXPECT_EQ(text[i], '-') << text;
      } else {
        EXPECT_NE(std::string("0123456789abcdef").find(text[i]), std::string::npos) << text;
      }
    }
    EXPECT_EQ(text[14], '4') << text;
    EXPECT_NE(std::string("89ab").find(text[19]), std::string::npos) << text;
    EXPECT_EQ(text, Text(key));
  }
}

TEST(RequestKeyTest, EachBitOfAKeyIsInItsText) {
  std::set<std::string> texts{Text({})};
  for (int bit = 0; bit < 64; ++bit) EXPECT_TRUE(texts.insert(Text({uint64_t{1} << bit, 0})).second) << bit;
  for (int bit = 0; bit < 32; ++bit) EXPECT_TRUE(texts.insert(Text({0, uint32_t{1} << bit})).second) << bit;
}

TEST(RequestKeyTest, AsAPuidItHas40DigitsWithEachOfItsBits) {
  std::set<std::string> puids;
  const auto add = [&](const RequestKey& key) {
    const RequestKeyPuid puid = PuidOf(key);
    const std::string text(puid.data(), puid.size());
    EXPECT_EQ(text.find_first_not_of("0123456789abcdef"), std::string::npos) << text;
    EXPECT_TRUE(puids.insert(text).second) << text;
    EXPECT_EQ(PuidOf(key), puid);
  };
  add({});
  for (int bit = 0; bit < 64; ++bit) add({uint64_t{1} << bit, 0});
  for (int bit = 0; bit < 32; ++bit) add({0, uint32_t{1} << bit});
}

TEST(RequestKeyTest, NoneIsKnownOfNoBits) {
  EXPECT_FALSE(RequestKey().known());
  EXPECT_TRUE((RequestKey{0, 1}).known());
  EXPECT_TRUE((RequestKey{1, 0}).known());
}

}  // namespace
}  // namespace mindserve
