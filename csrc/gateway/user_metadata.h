// Metadata on its way between clients and users' handlers.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "gateway/call.h"
#include "gateway/thread_context.h"
#include "wire/call_head.h"

namespace mindserve::gateway {

// Keys that the gateway reads, besides kRequestIdKey.
inline constexpr std::string_view kApplicationKey = "application";
inline constexpr std::string_view kModelIdKey = "multiplexed_model_id";

// The only one of gRPC's own keys that handlers may send: where libraries put a status in its richer form, a
// google.rpc.Status.
inline constexpr std::string_view kStatusDetailsKey = "grpc-status-details-bin";

// What a handler gave for its client: keys in lower case. What can't be sent is left out, with a warning: reserved
// keys, keys and texts of characters that metadata can't have, and all from where it comes to more than
// max_metadata_bytes.
Metadata ForClient(const wire::MetadataView& given, std::string_view request_id, ThreadContext& context);

}  // namespace mindserve::gateway
