#include "base/siphash.h"

#include <bit>
#include <cstring>
#include <random>

namespace mindserve {

SipHash::Key SipHash::RandomKey() {
  std::random_device source;
  const auto word = [&] { return static_cast<uint64_t>(source()) << 32 | source(); };
  const uint64_t first = word();
  return {first, word()};
}

SipHash::SipHash(const Key& key)
    : v0_(key[0] ^ 0x736f6d6570736575),
      v1_(key[1] ^ 0x646f72616e646f6d),
      v2_(key[0] ^ 0x6c7967656e657261),
      v3_(key[1] ^ 0x7465646279746573) {}

void SipHash::Round() {
  v0_ += v1_;
  v2_ += v3_;
  v1_ = std::rotl(v1_, 13) ^ v0_;
  v3_ = std::rotl(v3_, 16) ^ v2_;
  v0_ = std::rotl(v0_, 32);
  v2_ += v1_;
  v0_ += v3_;
  v1_ = std::rotl(v1_, 17) ^ v2_;
  v3_ = std::rotl(v3_, 21) ^ v0_;
  v2_ = std::rotl(v2_, 32);
}

void SipHash::Compress(uint64_t word) {
  v3_ ^= word;
  Round();
  Round();
  v0_ ^= word;
}

void SipHash::Add(std::span<const std::byte> bytes) {
  const std::byte* at = bytes.data();
  const std::byte* const end = at + bytes.size();
  while (at != end && size_ % 8 != 0) {
    tail_ |= static_cast<uint64_t>(*at++) << 8 * (size_ % 8);
    if (++size_ % 8 == 0) {
      Compress(tail_);
      tail_ = 0;
    }
  }
  for (; end - at >= 8; at += 8, size_ += 8) {
    uint64_t word;
    std::memcpy(&word, at, sizeof(word));
    Compress(word);
  }
  for (; at != end; ++at, ++size_) tail_ |= static_cast<uint64_t>(*at) << 8 * (size_ % 8);
}

uint64_t SipHash::Finish() {
  Compress(tail_ | static_cast<uint64_t>(size_) << 56);
  v2_ ^= 0xff;
  for (int i = 0; i < 4; ++i) Round();
  return v0_ ^ v1_ ^ v2_ ^ v3_;
}

}  // namespace mindserve
