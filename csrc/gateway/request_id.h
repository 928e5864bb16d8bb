// Ids of requests that come without one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "gateway/call.h"

namespace mindserve::gateway {

// A key of metadata, both ways.
inline constexpr std::string_view kRequestIdKey = "request_id";

// Makes random ids. Belongs to one thread.
class RequestIds {
 public:
  std::string Next();      // a UUID (RFC 9562, version 4)
  std::string NextPuid();  // 40 hexadecimal digits, as Seldon's ids of predictions have

 private:
  uint8_t NextByte();

  static constexpr size_t kIdBytes = 16;
  std::array<uint8_t, 4096> random_;  // from the kernel, for many at a time
  size_t used_ = sizeof(random_);
};

// The id of a call, which goes back with whatever ends it: the client's, or else a new one, if one is to be made. An
// empty one counts as none. INVALID_ARGUMENT: what the client gives is more than 128 characters, or not printable
// ASCII; the call then has a new one.
enum class WithoutId : uint8_t { kMakeOne, kGoOn };
Status Identify(Call& call, RequestIds& ids, WithoutId without, std::string* id);

}  // namespace mindserve::gateway
