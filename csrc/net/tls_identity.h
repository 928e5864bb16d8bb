// What a certificate says of its owner.
#pragma once

#include <openssl/x509.h>

#include <string>

#include "net/transport.h"

namespace mindserve::net {

// The CN of the certificate's subject, the last if there are several; "" if there is none, or one that no log line
// could show.
std::string CommonName(const X509* certificate);

// The properties of a TLS peer. `certificate`: the verified one that it showed; null without one.
AuthProperties TlsProperties(X509* certificate);

}  // namespace mindserve::net
