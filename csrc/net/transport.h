// A connection's stream of bytes, plain or TLS, without blocking.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "base/unique_fd.h"
#include "net/event_loop.h"
#include "net/tls.h"

namespace mindserve::net {

// Who is at the other end.
struct Peer {
  std::string address;  // as gRPC writes it: "ipv4:127.0.0.1:4711", "ipv6:[::1]:4711", "unix:"
  bool tls = false;
  std::string subject;  // of a verified client certificate: its subject's CN; "" without one
};

// What authenticated the peer, as grpcio's auth_context has it: properties in gRPC's order, a name maybe several times.
// Empty for plaintext.
using AuthProperties = std::vector<std::pair<std::string, std::string>>;

struct IoResult {
  enum class Kind : unsigned char { kDone, kAgain, kEof, kError };
  Kind kind = Kind::kDone;
  size_t bytes = 0;      // kDone
  std::string error;     // kError: one line
  bool refused = false;  // kError: since the peer does what it may not
};

// Lives on one loop's thread.
class Transport {
 public:
  virtual ~Transport() = default;
  // TLS handshake; at once for plain. `done` gets OK, or what went wrong in one line (a plaintext client on a TLS port
  // says so). The transport is not to be destroyed from within other than by destroying it as the last thing that
  // `done` does.
  virtual void Start(std::function<void(Status)> done) = 0;
  // Takes what is there. kAgain: nothing now.
  virtual IoResult Read(std::span<std::byte> into) = 0;
  // Writes as much as goes now. kAgain: nothing goes now. After kAgain, and after a part was taken, what is left must
  // be offered again, unchanged, before anything else: a TLS record may be half under way.
  virtual IoResult Write(std::span<const iovec> parts) = 0;
  // Calls `handler` once when Read (Write) is worth trying; a handler that is waiting is replaced by none: await once
  // at a time.
  virtual void AwaitReadable(std::function<void()> handler) = 0;
  virtual void AwaitWritable(std::function<void()> handler) = 0;
  // Says goodbye (TLS close_notify, then shutdown of writing) as far as it goes without waiting.
  virtual void Shutdown() = 0;
  virtual const Peer& peer() const = 0;
  // Read from the certificate when first asked for.
  virtual const AuthProperties& auth() = 0;
};

// `tls` null: plain. The socket is connected; it is made non-blocking. On TCP, TCP_NODELAY is set, and a
// peer that is gone without a word, or takes nothing of what is sent, ends the connection after about two minutes.
std::unique_ptr<Transport> NewTransport(EventLoop& loop, UniqueFd socket, std::shared_ptr<const TlsContext> tls);

}  // namespace mindserve::net
