#include "base/utf8.h"

#include <cstdint>
#include <cstring>

namespace mindserve {
namespace {

bool Continues(uint8_t byte) {
  return (byte & 0xc0) == 0x80;
}

// Bytes of the character that begins `text`, which is no ASCII; 0 if none does.
size_t CharacterSize(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte(0);
  size_t size = 0;
  // What the second byte may be: this is where overlong forms, surrogates and too large numbers show.
  uint8_t low = 0x80;
  uint8_t high = 0xbf;
  if (first >= 0xc2 && first <= 0xdf) {
    size = 2;
  } else if (first >= 0xe0 && first <= 0xef) {
    size = 3;
    if (first == 0xe0) low = 0xa0;
    if (first == 0xed) high = 0x9f;
  } else if (first >= 0xf0 && first <= 0xf4) {
    size = 4;
    if (first == 0xf0) low = 0x90;
    if (first == 0xf4) high = 0x8f;
  } else {
    return 0;
  }
  if (text.size() < size || byte(1) < low || byte(1) > high) return 0;
  for (size_t i = 2; i < size; ++i) {
    if (!Continues(byte(i))) return 0;
  }
  return size;
}

}  // namespace

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    uint64_t eight = 0;
    while (text.size() >= sizeof(eight)) {
      std::memcpy(&eight, text.data(), sizeof(eight));
      if ((eight & 0x8080808080808080) != 0) break;
      text.remove_prefix(sizeof(eight));
    }
    while (!text.empty() && static_cast<uint8_t>(text.front()) < 0x80) text.remove_prefix(1);
    if (text.empty()) return true;
    const size_t size = CharacterSize(text);
    if (size == 0) return false;
    text.remove_prefix(size);
  }
  return true;
}

std::string_view CutUtf8(std::string_view text, size_t max) {
  if (text.size() <= max) return text;
  constexpr size_t kMostContinuations = 3;
  size_t size = max;
  while (size > 0 && max - size < kMostContinuations && Continues(static_cast<uint8_t>(text[size]))) --size;
  return text.substr(0, size);
}

}  // namespace mindserve
