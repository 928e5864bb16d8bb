// How OpenSSL reads and writes a socket, inside this folder.
#pragma once

#include <openssl/bio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace mindserve::net {

// The socket under a TLS connection. OpenSSL's own socket BIO writes without MSG_NOSIGNAL.
//
// Once `keeps_unsent` is set it keeps what the socket does not take, so that OpenSSL never has a record half under way.
// OpenSSL 3.0 has room for one such record only, and fails with "bad length" when the answer to a change of keys, which
// it may send from within a read, meets another.
struct SocketBio {
  int fd = -1;
  bool end_of_file = false;
  // For a socket that doesn't block. The last read took less than it had room for, so that the next would find nothing:
  // with `trusts_drained` it says so without asking the kernel. Whoever waits until the socket is readable resets it.
  bool trusts_drained = false;
  bool drained = false;
  // So often it may be read from; then it says, without asking, that nothing is there, and notes that it did so.
  // OpenSSL goes on by itself for as long as what comes is no data.
  size_t reads_left = SIZE_MAX;
  bool halted = false;
  // The peer does what it may not: reading is an error from now on.
  bool refused = false;
  int error = 0;                          // errno of the last failure but EAGAIN
  std::array<unsigned char, 16> first{};  // what the client said first
  size_t first_size = 0;
  bool keeps_unsent = false;
  std::vector<char> unsent;  // from `unsent_offset` on
  size_t unsent_offset = 0;

  size_t unsent_size() const { return unsent.size() - unsent_offset; }
};

// What is kept goes up to this: the longest record and many answers to changes of keys. Beyond, a write has to wait.
inline constexpr size_t kMostUnsent = 24 * 1024;

// Sends what is kept, as far as it goes; true if nothing is left. A failure is left in `error`.
bool SendUnsent(SocketBio& socket);

// Owned by the caller, nullptr without memory.
BIO_METHOD* NewSocketBioMethod();
// A BIO over `socket`, which outlives it; nullptr without memory.
BIO* NewSocketBio(const BIO_METHOD* method, SocketBio* socket);

}  // namespace mindserve::net
