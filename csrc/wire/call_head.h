// What the gateway and a worker tell each other about a call besides its messages: of a user's service, and of Predict
// where there is anything to tell. Protobuf, with the field numbers of fields.h; internal, like the link
// (docs/wire_format.md).
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/execution.h"
#include "base/status.h"

namespace mindserve::wire {

// Keys in lower case; values of "-bin" keys as they are, not in base64. Views into what was read.
using MetadataView = std::vector<std::pair<std::string_view, std::string_view>>;

// Calls within calls of servables are at most so deep.
inline constexpr uint32_t kMostDepth = 16;

// Gateway to worker: opens the call.
struct CallHead {
  std::string_view request_id = {};
  std::string_view model_id = {};  // of multiplexed_model_id; empty: none
  std::string_view peer = {};      // as grpcio writes it: "ipv4:127.0.0.1:50321", "unix:"
  MetadataView metadata = {};      // the client's
  MetadataView auth = {};          // grpcio's auth_context: properties, a key maybe several times; empty for plaintext
  uint32_t depth = 0;              // of how many calls within calls of servables it is the innermost
  std::vector<ExecutionTag> callers = {};  // the calls that wait for it, the innermost first
  bool plain = false;                      // the client takes no compressed messages
};
std::string WriteCallHead(const CallHead& head);
Result<CallHead> ReadCallHead(std::span<const std::byte> bytes);
// Whether ReadCallHead will be OK, and the depth that it will give, at most kMostDepth; needs no memory.
Status CheckCallHead(std::span<const std::byte> bytes, uint32_t* depth);

// Worker to gateway: ends it. Its status code stands in the frame.
struct CallEnd {
  std::string_view details;
  MetadataView trailing;
};
std::string WriteCallEnd(const CallEnd& end);
Result<CallEnd> ReadCallEnd(std::span<const std::byte> bytes);

// Worker to gateway: the answer's initial metadata.
std::string WriteMetadata(const MetadataView& metadata);
Result<MetadataView> ReadMetadata(std::span<const std::byte> bytes);

}  // namespace mindserve::wire
