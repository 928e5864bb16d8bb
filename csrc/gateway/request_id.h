// Ids of requests that come without one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/request_key.h"
#include "base/status.h"
#include "gateway/call.h"

namespace mindserve::gateway {

// A key of metadata, both ways.
inline constexpr std::string_view kRequestIdKey = "request_id";

// Makes random keys. Belongs to one thread.
class RequestKeys {
 public:
  RequestKey Next();

 private:
  static constexpr size_t kKeyBytes = 12;
  std::array<uint8_t, 256 * kKeyBytes> random_;  // from the kernel, for many at a time
  size_t used_ = sizeof(random_);
};

// A request's id: its client's, or else made of the key.
struct RequestId {
  std::string given = {};
  RequestKey made = {};

  std::string text() const;
};

// The id of a call, which goes back with whatever ends it: the client's, or else a new one. An empty one counts as
// none. INVALID_ARGUMENT: what the client gives is more than 128 characters, or not printable ASCII; the call then has
// a new one.
Status Identify(Call& call, RequestKeys& keys, RequestId* id);

}  // namespace mindserve::gateway
