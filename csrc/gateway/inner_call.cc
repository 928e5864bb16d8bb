#include "gateway/inner_call.h"

#include <charconv>
#include <string>

#include "base/utf8.h"

namespace mindserve::gateway {
namespace {

constexpr int kDecimal = 10;
constexpr int kHexadecimal = 16;

template <typename Number>
bool Parse(std::string_view text, int base, Number* number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number, base);
  return error == std::errc() && end == text.data() + text.size();
}

Status NotUnderstood(std::string_view key, std::string_view value) {
  return {Code::kInvalidArgument,
          "metadata '" + std::string(key) + "' is '" + std::string(CutUtf8(value, 64)) + "', expected a number"};
}

}  // namespace

Result<InnerCall> ReadInnerCall(const Metadata& metadata) {
  InnerCall call;
  for (const auto& [key, value] : metadata) {
    if (key == kDepthKey) {
      if (!Parse(value, kDecimal, &call.depth)) return NotUnderstood(key, value);
    } else if (key == kParentKey) {
      if (!Parse(value, kHexadecimal, &call.parent.emplace())) return NotUnderstood(key, value);
    }
  }
  if (call.depth <= kMostDepth) return call;
  return Status(Code::kFailedPrecondition, "servables call one another " + std::to_string(call.depth) +
                                               " deep, at most " + std::to_string(kMostDepth) +
                                               " is possible: a cycle of servables that call each other is likely");
}

}  // namespace mindserve::gateway
