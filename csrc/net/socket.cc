#include "net/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace mindserve::net {
namespace {

std::string Ipv4Text(const void* address, uint16_t port) {
  std::array<char, INET_ADDRSTRLEN> text{};
  inet_ntop(AF_INET, address, text.data(), text.size());
  return "ipv4:" + std::string(text.data()) + ':' + std::to_string(port);
}

std::string Ipv6Text(const sockaddr_in6& address) {
  const uint16_t port = ntohs(address.sin6_port);
  // An IPv4 client of a socket that listens on both.
  if (IN6_IS_ADDR_V4MAPPED(&address.sin6_addr)) return Ipv4Text(address.sin6_addr.s6_addr + 12, port);
  std::array<char, INET6_ADDRSTRLEN> text{};
  inet_ntop(AF_INET6, &address.sin6_addr, text.data(), text.size());
  std::string host = text.data();
  if (address.sin6_scope_id != 0) host += '%' + std::to_string(address.sin6_scope_id);
  return "ipv6:[" + host + "]:" + std::to_string(port);
}

}  // namespace

std::string ErrorText(int error) {
  return std::system_category().message(error);
}

Status ErrorStatus(int error, const std::string& what, const std::string& detail) {
  Code code = Code::kUnavailable;
  if (error == EACCES || error == EPERM) code = Code::kPermissionDenied;
  if (error == ENOENT || error == ENOTDIR) code = Code::kNotFound;
  if (error == EADDRNOTAVAIL || error == EAFNOSUPPORT || error == EINVAL || error == ENAMETOOLONG)
    code = Code::kInvalidArgument;
  return Status(code,
                (what.empty() ? "" : what + ": ") + ErrorText(error) + (detail.empty() ? "" : " (" + detail + ')'));
}

void SetNonBlocking(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags >= 0 && (flags & O_NONBLOCK) == 0) ::fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

std::string PeerAddress(int fd) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) return "unknown";
  if (storage.ss_family == AF_UNIX) return "unix:";
  if (storage.ss_family == AF_INET) {
    sockaddr_in address;
    std::memcpy(&address, &storage, sizeof address);
    return Ipv4Text(&address.sin_addr, ntohs(address.sin_port));
  }
  if (storage.ss_family == AF_INET6) {
    sockaddr_in6 address;
    std::memcpy(&address, &storage, sizeof address);
    return Ipv6Text(address);
  }
  return "unknown";
}

}  // namespace mindserve::net
