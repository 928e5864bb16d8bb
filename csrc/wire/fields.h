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
inline constexpr uint32_t kDepth = 6;
inline constexpr uint32_t kCallers = 7;
inline constexpr uint32_t kPlain = 8;
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

namespace reflection_request {
inline constexpr uint32_t kHost = 1;
inline constexpr uint32_t kFileByFilename = 3;
inline constexpr uint32_t kFileContainingSymbol = 4;
inline constexpr uint32_t kFileContainingExtension = 5;
inline constexpr uint32_t kAllExtensionNumbersOfType = 6;
inline constexpr uint32_t kListServices = 7;
}  // namespace reflection_request

namespace extension_request {
inline constexpr uint32_t kContainingType = 1;
inline constexpr uint32_t kExtensionNumber = 2;
}  // namespace extension_request

namespace reflection_response {
inline constexpr uint32_t kValidHost = 1;
inline constexpr uint32_t kOriginalRequest = 2;
inline constexpr uint32_t kFileDescriptorResponse = 4;
inline constexpr uint32_t kAllExtensionNumbersResponse = 5;
inline constexpr uint32_t kListServicesResponse = 6;
inline constexpr uint32_t kErrorResponse = 7;
}  // namespace reflection_response

namespace file_descriptor_response {
inline constexpr uint32_t kFileDescriptorProto = 1;
}  // namespace file_descriptor_response

namespace extension_number_response {
inline constexpr uint32_t kBaseTypeName = 1;
inline constexpr uint32_t kExtensionNumber = 2;
}  // namespace extension_number_response

namespace list_service_response {
inline constexpr uint32_t kService = 1;
}  // namespace list_service_response

namespace service_response {
inline constexpr uint32_t kName = 1;
}  // namespace service_response

namespace error_response {
inline constexpr uint32_t kErrorCode = 1;
inline constexpr uint32_t kErrorMessage = 2;
}  // namespace error_response

namespace list_applications_response {
inline constexpr uint32_t kApplicationNames = 1;
}  // namespace list_applications_response

namespace healthz_response {
inline constexpr uint32_t kMessage = 1;
}  // namespace healthz_response

// io.seldon.api.rpc, and google.protobuf.Any.
namespace classification_request {
inline constexpr uint32_t kMeta = 1;
inline constexpr uint32_t kData = 2;
}  // namespace classification_request

namespace classification_request_meta {
inline constexpr uint32_t kPuid = 1;
}  // namespace classification_request_meta

namespace classification_reply {
inline constexpr uint32_t kMeta = 1;
inline constexpr uint32_t kPredictions = 2;
inline constexpr uint32_t kCustom = 3;
}  // namespace classification_reply

namespace classification_reply_meta {
inline constexpr uint32_t kPuid = 1;
inline constexpr uint32_t kModelName = 2;
inline constexpr uint32_t kVariation = 3;
}  // namespace classification_reply_meta

namespace classification_result {
inline constexpr uint32_t kPrediction = 1;
inline constexpr uint32_t kPredictedClass = 2;
inline constexpr uint32_t kConfidence = 3;
}  // namespace classification_result

namespace any {
inline constexpr uint32_t kTypeUrl = 1;
inline constexpr uint32_t kValue = 2;
}  // namespace any

// google/protobuf/descriptor.proto, as far as names go.
namespace file_descriptor_set {
inline constexpr uint32_t kFile = 1;
}  // namespace file_descriptor_set

namespace file_descriptor {
inline constexpr uint32_t kName = 1;
inline constexpr uint32_t kPackage = 2;
inline constexpr uint32_t kDependency = 3;
inline constexpr uint32_t kMessageType = 4;
inline constexpr uint32_t kEnumType = 5;
inline constexpr uint32_t kService = 6;
inline constexpr uint32_t kExtension = 7;
}  // namespace file_descriptor

namespace message_descriptor {
inline constexpr uint32_t kName = 1;
inline constexpr uint32_t kField = 2;
inline constexpr uint32_t kNestedType = 3;
inline constexpr uint32_t kEnumType = 4;
inline constexpr uint32_t kExtension = 6;
inline constexpr uint32_t kOneofDecl = 8;
}  // namespace message_descriptor

namespace field_descriptor {
inline constexpr uint32_t kName = 1;
inline constexpr uint32_t kExtendee = 2;
inline constexpr uint32_t kNumber = 3;
}  // namespace field_descriptor

// Of enums and services alike: a name, and members, which are values and methods.
namespace group_descriptor {
inline constexpr uint32_t kName = 1;
inline constexpr uint32_t kMember = 2;
}  // namespace group_descriptor

// Of oneofs, enum values and methods alike.
namespace named_descriptor {
inline constexpr uint32_t kName = 1;
}  // namespace named_descriptor

}  // namespace mindserve::wire::field
