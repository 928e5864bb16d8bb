// Ids of requests that come without one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace mindserve::gateway {

// What a client may give: 1 to 128 printable ASCII characters.
bool IsRequestId(std::string_view text);
// INVALID_ARGUMENT for another.
Status NoRequestId(std::string_view given);

// Makes random UUIDs (RFC 9562, version 4). Belongs to one thread.
class RequestIds {
 public:
  std::string Next();

 private:
  static constexpr size_t kIdBytes = 16;
  std::array<uint8_t, 256 * kIdBytes> random_;  // from the kernel, for many at a time
  size_t used_ = sizeof(random_);
};

}  // namespace mindserve::gateway
