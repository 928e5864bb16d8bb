#include "gateway/depth.h"

#include <algorithm>
#include <charconv>
#include <string>

#include "base/utf8.h"

namespace mindserve::gateway {

Status CheckDepth(const Metadata& metadata) {
  const auto found = std::ranges::find(metadata, kDepthKey, &Metadata::value_type::first);
  if (found == metadata.end()) return Status::Ok();
  const std::string& text = found->second;
  int depth = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), depth);
  if (error != std::errc() || end != text.data() + text.size() || depth < 0) {
    return {Code::kInvalidArgument,
            "metadata '" + std::string(kDepthKey) + "' is '" + std::string(CutUtf8(text, 64)) + "', expected a number"};
  }
  if (depth <= kMostDepth) return Status::Ok();
  return {Code::kFailedPrecondition, "servables call one another " + std::to_string(depth) + " deep, at most " +
                                         std::to_string(kMostDepth) +
                                         " is possible: a cycle of servables that call each other is likely"};
}

}  // namespace mindserve::gateway
