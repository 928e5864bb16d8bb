#include "gateway/grpc_text.h"

#include <algorithm>
#include <array>
#include <cstdint>

#include "base/utf8.h"

namespace mindserve::gateway {
namespace {

constexpr std::string_view kHex = "0123456789ABCDEF";
constexpr std::string_view kBase64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

constexpr std::array<int8_t, 256> Base64Values() {
  std::array<int8_t, 256> values{};
  for (auto& value : values) value = -1;
  for (size_t i = 0; i < kBase64.size(); ++i) values[static_cast<uint8_t>(kBase64[i])] = static_cast<int8_t>(i);
  return values;
}

}  // namespace

std::optional<std::chrono::nanoseconds> ParseTimeout(std::string_view text) {
  if (text.size() < 2 || text.size() > 9) return std::nullopt;
  int64_t value = 0;
  for (char c : text.substr(0, text.size() - 1)) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + (c - '0');
  }
  switch (text.back()) {
    case 'H':
      // 99999999 hours are more nanoseconds than 64 bits hold.
      return std::chrono::nanoseconds(std::chrono::hours(std::min<int64_t>(value, 1'000'000)));
    case 'M':
      return std::chrono::nanoseconds(std::chrono::minutes(value));
    case 'S':
      return std::chrono::nanoseconds(std::chrono::seconds(value));
    case 'm':
      return std::chrono::nanoseconds(std::chrono::milliseconds(value));
    case 'u':
      return std::chrono::nanoseconds(std::chrono::microseconds(value));
    case 'n':
      return std::chrono::nanoseconds(value);
    default:
      return std::nullopt;
  }
}

std::string PercentEncode(std::string_view text, size_t max) {
  const auto plain = [](char c) { return c >= 0x20 && c <= 0x7e && c != '%'; };
  constexpr size_t kEscaped = 3;
  const size_t most = max - std::min(max, 2 * (kEscaped - 1));  // the ends may take more
  size_t size = 0;
  size_t taken = 0;
  while (taken < text.size() && (size += plain(text[taken]) ? 1 : kEscaped) <= most) ++taken;
  if (taken < text.size()) text = CutUtf8(text, taken);
  std::string out;
  out.reserve(std::min(size, max));
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    // HTTP allows no space at the ends of a value, and nghttp2 drops one that has.
    const bool at_end = c == ' ' && (i == 0 || i + 1 == text.size());
    if (plain(c) && !at_end) {
      out += c;
    } else {
      out += '%';
      out += kHex[static_cast<uint8_t>(c) >> 4];
      out += kHex[static_cast<uint8_t>(c) & 15];
    }
  }
  return out;
}

std::optional<std::string> Base64Decode(std::string_view text) {
  static constexpr auto kValues = Base64Values();
  if (text.ends_with('=')) {
    if (text.size() % 4 != 0) return std::nullopt;
    text.remove_suffix(text.ends_with("==") ? 2 : 1);
  }
  if (text.size() % 4 == 1) return std::nullopt;
  std::string out;
  out.reserve(text.size() * 3 / 4);
  uint32_t bits = 0;
  int count = 0;
  for (char c : text) {
    const int8_t value = kValues[static_cast<uint8_t>(c)];
    if (value < 0) return std::nullopt;
    bits = bits << 6 | static_cast<uint32_t>(value);
    count += 6;
    if (count >= 8) {
      count -= 8;
      out += static_cast<char>(bits >> count);
    }
  }
  // The left-over bits of the last character must be zero, or two texts would mean the same bytes.
  if ((bits & ((1u << count) - 1)) != 0) return std::nullopt;
  return out;
}

std::string Base64Encode(std::string_view bytes) {
  std::string out;
  out.reserve((bytes.size() * 4 + 2) / 3);
  uint32_t bits = 0;
  int count = 0;
  for (char c : bytes) {
    bits = bits << 8 | static_cast<uint8_t>(c);
    count += 8;
    while (count >= 6) {
      count -= 6;
      out += kBase64[bits >> count & 63];
    }
  }
  if (count > 0) out += kBase64[bits << (6 - count) & 63];
  return out;
}

bool IsGrpcContentType(std::string_view text) {
  constexpr std::string_view kType = "application/grpc";
  if (!text.starts_with(kType)) return false;
  return text.size() == kType.size() || text[kType.size()] == '+' || text[kType.size()] == ';';
}

bool IsMetadataKey(std::string_view name) {
  if (name.empty() || name.front() == ':' || name.starts_with("grpc-")) return false;
  return name != "te" && name != "content-type" && name != "content-length" && name != "host" &&
         name != "accept-encoding";
}

}  // namespace mindserve::gateway
