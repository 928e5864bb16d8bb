#include "base/request_key.h"

#include <cstddef>
#include <cstring>
#include <string_view>

namespace mindserve {
namespace {

constexpr std::string_view kHex = "0123456789abcdef";

// Mixed, so that ids of keys that differ in few bits don't look alike in the rest.
uint64_t Mixed(const RequestKey& key) {
  return (key.high ^ key.low) * 0x9E3779B97F4A7C15;
}

}  // namespace

RequestKeyText TextOf(const RequestKey& key) {
  std::array<uint8_t, 16> bytes;
  std::memcpy(bytes.data(), &key.high, 8);
  std::memcpy(bytes.data() + 8, &key.low, 4);
  const auto mixed = static_cast<uint32_t>(Mixed(key) >> 32);
  std::memcpy(bytes.data() + 12, &mixed, 4);
  // The version and the variant take the places of six bits, which go where mixed ones were.
  bytes[15] = static_cast<uint8_t>((bytes[6] & 0xf0) | (bytes[15] & 0x0f));
  bytes[14] = static_cast<uint8_t>((bytes[8] & 0xc0) | (bytes[14] & 0x3f));
  bytes[6] = static_cast<uint8_t>(0x40 | (bytes[6] & 0x0f));
  bytes[8] = static_cast<uint8_t>(0x80 | (bytes[8] & 0x3f));
  RequestKeyText text;
  size_t at = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text[at++] = '-';
    text[at++] = kHex[bytes[i] >> 4];
    text[at++] = kHex[bytes[i] & 15];
  }
  return text;
}

RequestKeyPuid PuidOf(const RequestKey& key) {
  RequestKeyPuid text;
  size_t at = 0;
  const auto put = [&](uint64_t bits, int digits) {
    for (int digit = 0; digit < digits; ++digit, bits >>= 4) text[at++] = kHex[bits & 15];
  };
  put(key.high, 16);
  put(key.low, 8);
  put(Mixed(key), 16);
  return text;
}

}  // namespace mindserve
