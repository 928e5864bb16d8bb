// What a TLS context holds, inside this folder.
#pragma once

#include <openssl/bio.h>
#include <openssl/ssl.h>

#include <memory>
#include <string>

#include "net/tls.h"

namespace mindserve::net {

struct SslFree {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(SSL* ssl) const { SSL_free(ssl); }
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(BIO_METHOD* method) const { BIO_meth_free(method); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
template <typename T>
using SslPtr = std::unique_ptr<T, SslFree>;

struct TlsContext::State {
  SslPtr<SSL_CTX> context;
  SslPtr<BIO_METHOD> socket_bio;  // reads and writes a TlsTransport's socket
};

// The reason of the oldest error in this thread's queue, in OpenSSL's words, which is emptied; `otherwise` if there is
// none.
std::string TakeSslError(const std::string& otherwise);

}  // namespace mindserve::net
