// Listening sockets.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/status.h"
#include "base/unique_fd.h"
#include "net/address.h"
#include "net/event_loop.h"

namespace mindserve::net {

struct ListenOptions {
  int unix_mode = 0600;  // of a Unix socket's file
  int backlog = 4096;
};

// Owns its sockets: one, or one for each address of a name. A Unix socket's file is removed with it, if it is still the
// one that was made. Lives on its loop's thread.
class Listener {
 public:
  virtual ~Listener() = default;
  // Begins to accept; `handler` gets each connection.
  virtual void Start(EventLoop& loop, std::function<void(UniqueFd)> handler) = 0;
  // The address with the port that was really bound.
  virtual const Address& address() const = 0;
  // The first socket.
  virtual int fd() const = 0;
};

// Binds and listens, on any thread. A port in use is UNAVAILABLE, never shared (no SO_REUSEPORT; SO_REUSEADDR is set).
// A name with several addresses (localhost: 127.0.0.1 and ::1) listens, with one port, on all of them that this host
// has; a port in use on any is an error. "[::]" takes IPv4 too. A Unix socket file that no server answers on is
// replaced; one that a live server answers on, or a file that is no socket, is refused; its directory must exist.
Result<std::unique_ptr<Listener>> Listen(const Address& address, const ListenOptions& options);

}  // namespace mindserve::net
