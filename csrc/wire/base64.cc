#include "wire/base64.h"

#include <array>
#include <cstdint>

namespace mindserve::wire {
namespace {

constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr uint8_t kNone = 0xff;  // no digit; of those, none has a bit above the lowest six

constexpr std::array<uint8_t, 256> kDigits = [] {
  std::array<uint8_t, 256> digits{};
  digits.fill(kNone);
  for (size_t i = 0; i < kAlphabet.size(); ++i) digits[static_cast<uint8_t>(kAlphabet[i])] = static_cast<uint8_t>(i);
  return digits;
}();

uint32_t Digit(char c) {
  return kDigits[static_cast<uint8_t>(c)];
}

}  // namespace

bool DecodeBase64(std::string_view text, std::string* bytes) {
  if (text.size() % 4 != 0) return false;
  if (text.empty()) return true;
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  const size_t before = bytes->size();
  bytes->resize(before + text.size() / 4 * 3);
  char* out = bytes->data() + before;
  uint32_t wrong = 0;  // all digits together: a bit above the sixth means that one was none
  const auto decode = [&](const char* four) {
    const uint32_t a = Digit(four[0]), b = Digit(four[1]), c = Digit(four[2]), d = Digit(four[3]);
    wrong |= a | b | c | d;
    const uint32_t bits = a << 18 | b << 12 | c << 6 | d;
    *out++ = static_cast<char>(bits >> 16);
    *out++ = static_cast<char>(bits >> 8);
    *out++ = static_cast<char>(bits);
  };
  for (size_t i = 0; i + 4 < text.size(); i += 4) decode(text.data() + i);
  std::array<char, 4> last{};
  text.copy(last.data(), 4, text.size() - 4);
  for (size_t i = 4 - padding; i < 4; ++i) last[i] = 'A';
  decode(last.data());
  if ((wrong & ~0x3fu) != 0) {
    bytes->resize(before);
    return false;
  }
  bytes->resize(bytes->size() - padding);
  return true;
}

void EncodeBase64(std::string_view bytes, std::string* text) {
  text->reserve(text->size() + (bytes.size() + 2) / 3 * 4);
  const auto encode = [&](uint32_t bits) {
    const char four[] = {kAlphabet[bits >> 18], kAlphabet[bits >> 12 & 0x3f], kAlphabet[bits >> 6 & 0x3f],
                         kAlphabet[bits & 0x3f]};
    text->append(four, sizeof(four));
  };
  const auto byte = [&](size_t i) { return uint32_t{static_cast<uint8_t>(bytes[i])}; };
  size_t i = 0;
  for (; i + 3 <= bytes.size(); i += 3) encode(byte(i) << 16 | byte(i + 1) << 8 | byte(i + 2));
  const size_t rest = bytes.size() - i;
  if (rest == 0) return;
  encode(byte(i) << 16 | (rest == 2 ? byte(i + 1) << 8 : 0));
  for (size_t at = text->size() - (3 - rest); at < text->size(); ++at) (*text)[at] = '=';
}

}  // namespace mindserve::wire
