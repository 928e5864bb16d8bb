// Addresses to listen on and to name peers by.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"

namespace mindserve::net {

// "127.0.0.1:5500", "localhost:5500", "[::1]:5500", "0.0.0.0:0", "unix:relative/or/absolute/path", "unix:///absolute".
struct Address {
  bool unix_socket = false;
  std::string host;   // a name, or an IPv4 or IPv6 address without brackets
  uint16_t port = 0;  // 0: any free one
  std::string path;   // of the Unix socket
  std::string ToString() const;
};

// INVALID_ARGUMENT with MindSpore Serving's texts, where `what` is "Serving gRPC server" or "RESTful server":
//   "The format of the Serving gRPC server address 'A' is illegal"
//   "The port of the Serving gRPC server address 'A' is out of legal range [1 ~ 65535]" (0 too is taken as any free
//   port) "Empty grpc server unix domain socket address"
Result<Address> ParseAddress(const std::string& text, const std::string& what);

// INVALID_ARGUMENT if `path` is longer than the path of a Unix socket can be.
Status CheckUnixPath(const std::string& path);

}  // namespace mindserve::net
