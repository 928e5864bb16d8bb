// The messages of grpc.health.v1 (https://github.com/grpc/grpc/blob/master/doc/health-checking.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"

namespace mindserve::wire {

enum class ServingStatus : uint8_t { kUnknown = 0, kServing = 1, kNotServing = 2, kServiceUnknown = 3 };

// HealthCheckRequest.service; a view into the request. INVALID_ARGUMENT if the bytes don't parse.
Result<std::string_view> ReadHealthRequest(std::span<const std::byte> request);

// A HealthCheckResponse.
std::string WriteHealthResponse(ServingStatus status);

}  // namespace mindserve::wire
