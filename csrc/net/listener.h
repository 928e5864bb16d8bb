// Listening sockets.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/unique_fd.h"
#include "net/address.h"
#include "net/event_loop.h"

namespace mindserve::net {

struct ListenOptions {
  int unix_mode = 0600;  // of a Unix socket's file
  int backlog = 4096;
};

// Which file it is, whatever its name.
struct FileId {
  dev_t device = 0;
  ino_t inode = 0;
  bool operator==(const FileId&) const = default;
};

// A listener's sockets for another process, which may accept from them at the same time: they are the same sockets, and
// what waits in their queues belongs to both.
struct SharedSockets {
  std::vector<UniqueFd> sockets;
  std::optional<FileId> file;  // of a Unix socket
};

// Owns its sockets: one, or one for each address of a name. A Unix socket's file is removed with it, if it is still the
// one that was made. Lives on its loop's thread.
class Listener {
 public:
  virtual ~Listener() = default;
  // Begins to accept; `handler` gets each connection.
  virtual void Start(EventLoop& loop, std::function<void(UniqueFd)> handler) = 0;
  // Other descriptors of its sockets.
  virtual Result<SharedSockets> Share() const = 0;
  // Leaves a Unix socket's file to the process that the sockets are shared with.
  virtual void Disown() = 0;
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

// Listens with the sockets that another process shares, which listen on `address`. A Unix socket's file is this
// listener's, and has the mode of `options`, from Start on; if it is not there any more, nobody could reach the
// sockets, and this is Listen. INVALID_ARGUMENT: they are no listening sockets of such an address.
Result<std::unique_ptr<Listener>> Adopt(const Address& address, const ListenOptions& options, SharedSockets shared);

}  // namespace mindserve::net
