#include "base/status.h"

#include <array>

namespace mindserve {

std::string_view CodeName(Code code) {
  static constexpr std::array<std::string_view, kCodeCount> kNames = {
      "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
      "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
      "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
      "DATA_LOSS", "UNAUTHENTICATED"};
  const auto index = static_cast<size_t>(code);
  return index < kNames.size() ? kNames[index] : kNames[static_cast<size_t>(Code::kUnknown)];
}

std::string Status::ToString() const {
  std::string text(CodeName(code_));
  if (!ok()) text.append(": ").append(message_);
  return text;
}

}  // namespace mindserve
