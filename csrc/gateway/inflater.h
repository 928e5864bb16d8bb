// What messages may be compressed by, and its reverse, bounded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"

namespace mindserve::gateway {

// grpc-encoding of a request. kDeflate is zlib's format (RFC 1950), as gRPC has it.
enum class Encoding : uint8_t { kNone, kIdentity, kGzip, kDeflate };

// For grpc-accept-encoding: all of them.
inline constexpr const char* kAcceptedEncodings = "identity,deflate,gzip";

// What an inflater needs besides its output, and of that before there is any: zlib has a window and tables.
inline constexpr size_t kInflaterBytes = 64 * 1024;

// Inflates one message as its bytes come.
class Inflater {
 public:
  // More than `max_bytes` of output is refused: RESOURCE_EXHAUSTED naming max_msg_mb_size. `encoding`: kGzip or
  // kDeflate.
  Inflater(size_t max_bytes, Encoding encoding);
  ~Inflater();

  // INTERNAL: it is not so compressed. Output grows with what was really inflated.
  Status Feed(std::span<const std::byte> data);
  // After the last byte: INTERNAL if the stream is not complete.
  Status End() const;
  std::span<const std::byte> output() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// What is said of a message of more than `max_bytes`, however it was found.
Status TooLarge(size_t max_bytes);

}  // namespace mindserve::gateway
