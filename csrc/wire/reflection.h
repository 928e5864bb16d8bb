// The messages of grpc.reflection.v1 and v1alpha, which differ in nothing but the package's name
// (https://github.com/grpc/grpc/blob/master/doc/server-reflection.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace mindserve::wire {

// A ServerReflectionRequest; its texts are views into its bytes.
struct ReflectionRequest {
  enum class Kind : uint8_t {
    kNone,
    kFileByFilename,
    kFileContainingSymbol,
    kFileContainingExtension,
    kAllExtensionNumbersOfType,
    kListServices,
  };
  Kind kind = Kind::kNone;
  std::string_view text;  // the file's, symbol's or message type's name
  int32_t extension_number = 0;
  std::string_view host;
  std::span<const std::byte> bytes;  // all of it
};

// INVALID_ARGUMENT if the bytes don't parse.
Result<ReflectionRequest> ReadReflectionRequest(std::span<const std::byte> bytes);

// ServerReflectionResponses to `request`, of at least one file or service.
std::string WriteFiles(const ReflectionRequest& request, const std::vector<std::string_view>& files);
std::string WriteExtensionNumbers(const ReflectionRequest& request, const std::vector<int32_t>& numbers);
std::string WriteServices(const ReflectionRequest& request, const std::vector<std::string>& services);
std::string WriteReflectionError(const ReflectionRequest& request, const Status& error);

}  // namespace mindserve::wire
