// The field numbers of the messages on the wire (protos/ms_service.proto, grpc.health.v1) and on the link, each once.
#pragma once

#include <cstdint>

namespace mindserve::wire::field {

namespace predict_request {
inline constexpr uint32_t kServableSpec = 1;
inline constexpr uint32_t kInstances = 2;
}  // namespace predict_request

namespace predict_reply {
inline constexpr uint32_t kServableSpec = 1;
inline constexpr uint32_t kInstances = 3;
inline constexpr uint32_t kErrorMsg = 4;
}  // namespace predict_reply

namespace error_msg {
inline constexpr uint32_t kErrorCode = 1;
inline constexpr uint32_t kErrorMsg = 2;
}  // namespace error_msg

namespace servable_spec {
inline constexpr uint32_t kName = 1;
inline constexpr uint32_t kMethodName = 2;
inline constexpr uint32_t kVersionNumber = 3;
}  // namespace servable_spec

namespace instance {
inline constexpr uint32_t kItems = 1;
}  // namespace instance

// An entry of Instance.items; every protobuf map has these two.
namespace map_entry {
inline constexpr uint32_t kKey = 1;
inline constexpr uint32_t kValue = 2;
}  // namespace map_entry

namespace tensor {
inline constexpr uint32_t kShape = 1;
inline constexpr uint32_t kDtype = 2;
inline constexpr uint32_t kData = 3;
inline constexpr uint32_t kBytesVal = 4;
}  // namespace tensor

namespace tensor_shape {
inline constexpr uint32_t kDims = 1;
}  // namespace tensor_shape

// The three of call_head.h, which pass over the link alone.
namespace call_head {
inline constexpr uint32_t kRequestId = 1;
inline constexpr uint32_t kModelId = 2;
inline constexpr uint32_t kPeer = 3;
inline constexpr uint32_t kMetadata = 4;
inline constexpr uint32_t kAuth = 5;
}  // namespace call_head

namespace call_end {
inline constexpr uint32_t kDetails = 1;
inline constexpr uint32_t kTrailing = 2;
}  // namespace call_end

namespace initial_metadata {
inline constexpr uint32_t kMetadata = 1;
}  // namespace initial_metadata

namespace health_check_request {
inline constexpr uint32_t kService = 1;
}  // namespace health_check_request

namespace health_check_response {
inline constexpr uint32_t kStatus = 1;
}  // namespace health_check_response

}  // namespace mindserve::wire::field
