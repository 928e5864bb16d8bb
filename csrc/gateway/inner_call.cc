#include "gateway/inner_call.h"

#include <charconv>
#include <string>
#include <vector>

#include "base/utf8.h"
#include "wire/call_head.h"

namespace mindserve::gateway {
namespace {

constexpr int kDecimal = 10;
constexpr int kHexadecimal = 16;

template <typename Number>
bool Parse(std::string_view text, int base, Number* number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number, base);
  return error == std::errc() && end == text.data() + text.size();
}

bool ParseCallers(std::string_view text, std::vector<ExecutionTag>* callers) {
  for (bool more = true; more;) {
    const size_t space = text.find(' ');
    if (callers->size() > wire::kMostDepth || !Parse(text.substr(0, space), kHexadecimal, &callers->emplace_back())) {
      return false;
    }
    more = space != std::string_view::npos;
    if (more) text.remove_prefix(space + 1);
  }
  return true;
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
      if (!ParseCallers(value, &call.callers)) return NotUnderstood(key, value);
    }
  }
  if (call.depth <= wire::kMostDepth) return call;
  return Status(Code::kFailedPrecondition, "servables call one another " + std::to_string(call.depth) +
                                               " deep, at most " + std::to_string(wire::kMostDepth) +
                                               " is possible: a cycle of servables that call each other is likely");
}

}  // namespace mindserve::gateway
