// What a TLS context holds, inside this folder.
#pragma once

#include <openssl/bio.h>
#include <openssl/ssl.h>

#include <ctime>
#include <limits>
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
  void operator()(X509_CRL* crl) const { X509_CRL_free(crl); }
  void operator()(ASN1_TIME* time) const { ASN1_STRING_free(time); }
  void operator()(SSL_SESSION* session) const { SSL_SESSION_free(session); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
template <typename T>
using SslPtr = std::unique_ptr<T, SslFree>;

inline constexpr time_t kForever = std::numeric_limits<time_t>::max();

struct TlsContext::State {
  SslPtr<SSL_CTX> context;
  SslPtr<BIO_METHOD> socket_bio;   // reads and writes a TlsTransport's socket
  time_t resume_until = kForever;  // what clients are verified by may judge otherwise then
};

// The reason of the oldest error in this thread's queue, in OpenSSL's words, which is emptied; `otherwise` if there is
// none.
std::string TakeSslError(const std::string& otherwise);

}  // namespace mindserve::net
