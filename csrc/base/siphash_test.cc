#include "base/siphash.h"

#include <gtest/gtest.h>

#include <vector>

namespace mindserve {
namespace {

constexpr SipHash::Key kKey = {0x0706050403020100, 0x0f0e0d0c0b0a0908};

std::vector<std::byte> Counted(size_t size) {
  std::vector<std::byte> bytes;
  for (size_t i = 0; i < size; ++i) bytes.push_back(static_cast<std::byte>(i));
  return bytes;
}

uint64_t Hash(std::span<const std::byte> bytes, const SipHash::Key& key = kKey) {
  SipHash hash(key);
  hash.Add(bytes);
  return hash.Finish();
}

// From the paper that defines it.
TEST(SipHashTest, ThePublishedVectors) {
  EXPECT_EQ(Hash(Counted(0)), 0x726fdb47dd0e0e31u);
  EXPECT_EQ(Hash(Counted(15)), 0xa129ca6149be45e5u);
}

TEST(SipHashTest, PiecesAreOneRunOfBytes) {
  const std::vector<std::byte> bytes = Counted(40);
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    SipHash hash(kKey);
    hash.Add(std::span(bytes).first(cut));
    hash.Add(std::span(bytes).subspan(cut));
    EXPECT_EQ(hash.Finish(), Hash(bytes)) << cut;
  }
}

TEST(SipHashTest, KeysDiffer) {
  const SipHash::Key key = SipHash::RandomKey();
  EXPECT_NE(key, SipHash::RandomKey());
  EXPECT_NE(Hash(Counted(8), key), Hash(Counted(8)));
}

}  // namespace
}  // namespace mindserve
