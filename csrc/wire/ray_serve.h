// The messages of ray.serve.RayServeAPIService (protos/ray_serve.proto).
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace mindserve::wire {

// Both requests are empty messages: there is nothing to read but whether they are ones. INVALID_ARGUMENT with `type`'s
// name if the bytes don't parse.
Status CheckEmptyMessage(std::span<const std::byte> request, std::string_view type);

std::string WriteListApplicationsResponse(const std::vector<std::string>& names);
std::string WriteHealthzResponse(std::string_view message);

}  // namespace mindserve::wire
