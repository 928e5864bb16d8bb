// How deep in calls of servables by servables a call is.
#pragma once

#include <string_view>

#include "base/status.h"
#include "gateway/call.h"

namespace mindserve::gateway {

// Metadata by which workers of this server tell it: a decimal number, 0 where it is absent. Of others it means nothing.
inline constexpr std::string_view kDepthKey = "mindserve-depth";
// A call that is deeper is refused.
inline constexpr int kMostDepth = 16;

// Of a call from a worker.
Status CheckDepth(const Metadata& metadata);

}  // namespace mindserve::gateway
