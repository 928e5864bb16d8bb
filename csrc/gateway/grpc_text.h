// The texts of gRPC over HTTP/2 (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md): timeouts,
// percent-encoded messages, base64 metadata, content types.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace mindserve::gateway {

// A grpc-timeout: one to eight digits and one of H M S m u n. Nothing if it is anything else.
std::optional<std::chrono::nanoseconds> ParseTimeout(std::string_view text);

// The longest grpc-message. Peers take 8 KiB of header fields at least, by the usual limit: there is room for some
// more.
inline constexpr size_t kMostGrpcMessage = 7 * 1024;

// As grpc-message wants it: bytes outside 0x20..0x7e, '%', and spaces at the ends as %XX. As much of `text`, which is
// UTF-8, as comes to `max` bytes.
std::string PercentEncode(std::string_view text, size_t max);

// Standard alphabet, padded or not. Nothing if it is no base64.
std::optional<std::string> Base64Decode(std::string_view text);
// Without padding, as gRPC prefers to send it.
std::string Base64Encode(std::string_view bytes);

// "application/grpc", also followed by "+subtype" or ";parameters".
bool IsGrpcContentType(std::string_view text);

// Trailing metadata that tells a client how long to wait before it tries again, and what it says where waiting helps.
inline constexpr const char* kRetryPushbackKey = "grpc-retry-pushback-ms";
inline constexpr const char* kRetryPushbackMs = "100";

// Whether a text can be the value of a key that is not "-bin".
inline bool IsMetadataText(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c >= 0x20 && c <= 0x7e; });
}

// Whether a header field of this (lower-case) name can be metadata: not a pseudo-header, not HTTP's own, not grpc-*.
bool IsMetadataKey(std::string_view name);
inline bool IsBinaryKey(std::string_view name) {
  return name.ends_with("-bin");
}

}  // namespace mindserve::gateway
