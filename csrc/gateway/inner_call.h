// What a call says that a servable makes of another one, by way of its worker's connection to this gateway.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/status.h"
#include "gateway/call.h"

namespace mindserve::gateway {

// Metadata by which workers of this server say it. Of others they mean nothing, and no handler sees them.
inline constexpr std::string_view kDepthKey = "mindserve-depth";  // a decimal number; 0 where it is absent
// The call that it is made for, and those that that one was made for: 16 hexadecimal digits each, spaces in between.
inline constexpr std::string_view kParentKey = "mindserve-parent";

// Of a call from a worker. INVALID_ARGUMENT if it says nothing that can be understood, FAILED_PRECONDITION if it is
// deeper than wire::kMostDepth.
Result<InnerCall> ReadInnerCall(const Metadata& metadata);

// For metadata of whatever call, on its way to a handler.
inline bool IsInnerCallKey(std::string_view key) {
  return key == kDepthKey || key == kParentKey;
}

}  // namespace mindserve::gateway
