// TLS server configuration. OpenSSL is named only in this folder's .cc files.
#pragma once

#include <memory>
#include <string>

#include "base/status.h"

namespace mindserve::net {

struct TlsOptions {
  std::string certificate;  // PEM text: the chain, leaf first
  std::string private_key;  // PEM text
  std::string client_ca;    // PEM text of the CAs that client certificates must chain to
  bool verify_client = false;
  // PEM text of revocation lists (CRLs), signed by authorities of `client_ca`; "": none. A client's certificate is
  // refused unless there is a list of its issuer, in its time, that doesn't name it; those between it and the root are
  // held against the lists that there are.
  std::string client_crl = {};
};

// What the connections of a listener share. TLS 1.2 and 1.3, ALPN "h2" required, session tickets on, no renegotiation,
// no compression, sound ciphers. X.509 v1 certificates with their name only in CN work. Immutable; shared by the
// listener and by the connections that it accepted, which may outlive it.
//
// A session is resumed only under the context that began it, and neither after its client's certificate has expired nor
// after any of the authorities' certificates or revocation lists has: then there is a whole handshake, with all that is
// verified in it.
class TlsContext {
 public:
  // INVALID_ARGUMENT: what OpenSSL refuses, said in words.
  static Result<std::shared_ptr<const TlsContext>> Create(const TlsOptions& options);
  ~TlsContext();

 private:
  friend class TlsTransport;
  struct State;
  explicit TlsContext(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace mindserve::net
