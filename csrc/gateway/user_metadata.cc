#include "gateway/user_metadata.h"

#include <algorithm>
#include <array>

#include "base/utf8.h"
#include "gateway/grpc_text.h"
#include "gateway/request_id.h"
#include "gateway/traffic.h"

namespace mindserve::gateway {
namespace {

// Of gRPC and HTTP/2 themselves, and what the latter forbids.
bool IsReserved(std::string_view key) {
  if (key == kStatusDetailsKey) return false;
  constexpr std::array<std::string_view, 6> kOfConnections = {"connection", "keep-alive",        "proxy-connection",
                                                              "upgrade",    "transfer-encoding", "status"};
  return !IsMetadataKey(key) || key == kRequestIdKey || key == kVariationKey ||
         std::ranges::find(kOfConnections, key) != kOfConnections.end();
}

bool IsKeyCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
}

// For a log line.
std::string Shown(std::string_view key) {
  std::string shown(CutUtf8(key, 64));
  std::ranges::replace_if(shown, [](char c) { return c < 0x20 || c > 0x7e; }, '?');
  return shown;
}

}  // namespace

Metadata ForClient(const wire::MetadataView& given, std::string_view request_id, ThreadContext& context) {
  // nghttp2 sends no block of header fields above 64 KiB, and says so to nobody.
  constexpr size_t kMostBytes = 48 * 1024;
  constexpr size_t kFieldCost = 32;  // as in request_head.cc
  const size_t most = std::min(kMostBytes, context.limits.max_metadata_bytes);
  Metadata metadata;
  size_t size = 0;
  for (const auto& [given_key, given_value] : given) {
    std::string key(given_key);
    for (char& c : key) {
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    }
    // The worker may still write where it lies: what is checked is what is sent.
    const std::string copied(given_value);
    std::string_view value = copied;
    const char* why = nullptr;
    if (IsReserved(key)) {
      why = "is reserved";
    } else if (!std::ranges::all_of(key, IsKeyCharacter)) {
      why = "has other characters than letters, digits, '_', '-' and '.'";
    } else if (!IsBinaryKey(key)) {
      while (value.starts_with(' ')) value.remove_prefix(1);
      while (value.ends_with(' ')) value.remove_suffix(1);
      if (!IsMetadataText(value)) why = "has a value that is not printable ASCII, as only those of '-bin' keys may be";
    }
    if (why == nullptr) {
      const size_t encoded = IsBinaryKey(key) ? (value.size() * 4 + 2) / 3 : value.size();
      size += key.size() + encoded + kFieldCost;
      if (size > most) why = "and what comes before it is more than max_metadata_bytes allows";
    }
    if (why != nullptr) {
      context.log.Warn(context.now, "request " + std::string(request_id) + ": its handler's metadata '" + Shown(key) +
                                        "' " + why + ", and is not sent");
      continue;
    }
    metadata.emplace_back(std::move(key), value);
  }
  return metadata;
}

}  // namespace mindserve::gateway
