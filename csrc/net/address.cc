#include "net/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <algorithm>
#include <string_view>

namespace mindserve::net {
namespace {

constexpr std::string_view kUnixPrefix = "unix:";

// The longest path that fits into a Unix socket's address with its end mark.
constexpr size_t kMaxUnixPath = sizeof(sockaddr_un::sun_path) - 1;

bool IsHostName(std::string_view text) {
  return !text.empty() && text.size() <= 253 && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' || c == '-' ||
           c == '_';
  });
}

// With or without a zone: "fe80::1%eth0".
bool IsIpv6(std::string_view text) {
  in6_addr ignored;
  const std::string address(text.substr(0, text.find('%')));
  return inet_pton(AF_INET6, address.c_str(), &ignored) == 1;
}

Result<Address> ParseUnix(const std::string& text, const Status& illegal) {
  std::string path = text.substr(kUnixPrefix.size());
  if (path.empty()) return Status(Code::kInvalidArgument, "Empty grpc server unix domain socket address");
  if (path.starts_with("//")) {
    if (!path.starts_with("///")) return illegal;  // "unix://host/path": there is no host
    path.erase(0, 2);
  }
  if (path.find('\0') != std::string::npos || path.ends_with('/')) return illegal;
  MS_RETURN_IF_ERROR(CheckUnixPath(path));
  Address address;
  address.unix_socket = true;
  address.path = std::move(path);
  return address;
}

}  // namespace

Status CheckUnixPath(const std::string& path) {
  if (path.size() <= kMaxUnixPath) return Status::Ok();
  return Status(Code::kInvalidArgument, "The path '" + path + "' of a unix domain socket has " +
                                            std::to_string(path.size()) + " bytes, at most " +
                                            std::to_string(kMaxUnixPath) + " are possible");
}

std::string Address::ToString() const {
  if (unix_socket) return std::string(kUnixPrefix) + path;
  const bool ipv6 = host.find(':') != std::string::npos;
  return (ipv6 ? '[' + host + ']' : host) + ':' + std::to_string(port);
}

Result<Address> ParseAddress(const std::string& text, const std::string& what) {
  const Status illegal(Code::kInvalidArgument, "The format of the " + what + " address '" + text +
                                                   "' is illegal: expected 'host:port', '[IPv6]:port' or "
                                                   "'unix:path'");
  if (text.starts_with(kUnixPrefix)) return ParseUnix(text, illegal);

  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) return illegal;
  std::string host = text.substr(0, colon);
  if (host.starts_with('[')) {
    if (!host.ends_with(']')) return illegal;
    host = host.substr(1, host.size() - 2);
    if (!IsIpv6(host)) return illegal;
  } else if (!IsHostName(host)) {
    return illegal;
  }

  std::string_view digits = std::string_view(text).substr(colon + 1);
  const bool negative = digits.starts_with('-');
  if (negative) digits.remove_prefix(1);
  if (digits.empty() || digits.find_first_not_of("0123456789") != std::string_view::npos) return illegal;
  uint32_t port = 0;
  for (const char digit : digits) port = std::min<uint32_t>(port * 10 + static_cast<uint32_t>(digit - '0'), 65536);
  if (port > 65535 || (negative && port != 0)) {
    return Status(Code::kInvalidArgument,
                  "The port of the " + what + " address '" + text + "' is out of legal range [1 ~ 65535]");
  }

  Address address;
  address.host = std::move(host);
  address.port = static_cast<uint16_t>(port);
  return address;
}

}  // namespace mindserve::net
