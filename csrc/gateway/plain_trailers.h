// The trailers of calls that end well: frames of which nothing changes from call to call but the request id, written
// past nghttp2, whose encoder costs more than all else that it does for a small answer.
#pragma once

#include <array>
#include <cstdint>

#include "base/request_key.h"
#include "gateway/output.h"

namespace mindserve::gateway {

inline constexpr uint8_t kEndStream = 0x1;
inline constexpr uint8_t kEndHeaders = 0x4;

// Puts out a HEADERS frame that ends the stream: grpc-status 0, and the request id of a key that is known. Its fields
// are literals that neither read nor change the encoder's table (RFC 7541, 6.2.2), so that nghttp2 need not know.
void PutPlainTrailers(int32_t stream, const RequestKey& key, Output& output);

}  // namespace mindserve::gateway
