// How OpenSSL reads and writes a socket, inside this folder.
#pragma once

#include <openssl/bio.h>

#include <array>
#include <cstddef>

namespace mindserve::net {

// The socket under a TLS connection. OpenSSL's own socket BIO writes without MSG_NOSIGNAL.
struct SocketBio {
  int fd = -1;
  bool end_of_file = false;
  int error = 0;                          // errno of the last failure but EAGAIN
  std::array<unsigned char, 16> first{};  // what the client said first
  size_t first_size = 0;
};

// Owned by the caller, nullptr without memory.
BIO_METHOD* NewSocketBioMethod();
// A BIO over `socket`, which outlives it; nullptr without memory.
BIO* NewSocketBio(const BIO_METHOD* method, SocketBio* socket);

}  // namespace mindserve::net
