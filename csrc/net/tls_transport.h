// The TLS side of transport.h, inside this folder.
#pragma once

#include <memory>

#include "net/transport.h"

namespace mindserve::net {

// `socket` is connected and non-blocking; `tls` is not null.
std::unique_ptr<Transport> NewTlsTransport(EventLoop& loop, UniqueFd socket, std::shared_ptr<const TlsContext> tls);

}  // namespace mindserve::net
