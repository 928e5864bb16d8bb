// A TLS client for the tests of this folder.
#pragma once

#include <openssl/ssl.h>

#include <string>

#include "base/unique_fd.h"
#include "net/socket_bio.h"
#include "net/test_support.h"
#include "net/tls_context.h"

namespace mindserve::net::testing {

struct TlsClientOptions {
  std::string authority;           // that the server's certificate must chain to
  Identity identity;               // empty: no certificate
  std::string alpn = "\x02h2";     // as on the wire; empty: none
  SSL_SESSION* session = nullptr;  // to resume
  int max_version = 0;             // 0: any
};

// On a connected socket, by OpenSSL. Blocks.
class TlsClient {
 public:
  TlsClient(UniqueFd socket, const TlsClientOptions& options);

  // "" or what OpenSSL says of the handshake.
  std::string Connect();

  // Reads until the end, and says what was wrong with it ("" for a proper goodbye).
  std::string ReadToEnd(std::string* all);

  // Sends and receives at once, changing the keys on the way (TLS 1.3). Returns what came until the end: the server's
  // goodbye is lost when the socket takes no more just then.
  std::string Exchange(const std::string& text);

  bool Write(const std::string& text);
  // Changes the key first and asks the server to do so too (TLS 1.3).
  bool WriteWithNewKey(const std::string& text);
  // The same with nothing behind it.
  bool ChangeKey();
  void SayGoodbye() { SSL_shutdown(ssl_.get()); }

  SSL* ssl() { return ssl_.get(); }
  int fd() const { return socket_.get(); }

 private:
  short Wanted(int returned) const;

  UniqueFd socket_;
  SocketBio bio_;
  SslPtr<BIO_METHOD> bio_method_;
  SslPtr<SSL_CTX> context_;
  SslPtr<SSL> ssl_;
};

}  // namespace mindserve::net::testing
