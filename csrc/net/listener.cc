#include "net/listener.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "base/log.h"
#include "net/socket.h"
#include "net/unix_socket.h"

namespace mindserve::net {
namespace {

// How many connections one round takes, so that a flood of them does not starve those that are there.
constexpr int kAcceptsPerRound = 64;

// How long connections stay in the backlog when none can be accepted.
constexpr auto kBackOff = std::chrono::milliseconds(100);

// How often the system may choose a port before it is free on all addresses of a name.
constexpr int kChoicesOfPort = 16;

// Whether accept failed because of the one connection, which is gone then, so that the next may be well.
bool IsAboutOne(int error) {
  switch (error) {
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case EPERM:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
      return true;
    default:
      return false;
  }
}

// Owned by the listener, and by Accept while it runs, in which the handler may destroy the listener.
class Acceptor : public std::enable_shared_from_this<Acceptor> {
 public:
  Acceptor(EventLoop& loop, int fd, std::string name, std::function<void(UniqueFd)> handler)
      : fd_(fd),
        name_(std::move(name)),
        handler_(std::move(handler)),
        watch_(loop.NewWatch(fd)),
        timer_(loop.NewTimer()) {}

  void Await() {
    watch_->AwaitReadable([this] { Accept(); });
  }

  void Close() {
    fd_ = -1;
    watch_.reset();
    timer_.reset();
  }

 private:
  void Accept() {
    const auto self = shared_from_this();
    for (int i = 0; i < kAcceptsPerRound; ++i) {
      UniqueFd connection(::accept4(fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (connection) {
        handler_(std::move(connection));
        if (fd_ < 0) return;
        continue;
      }
      if (errno == EAGAIN || errno == EWOULDBLOCK) {
        waiting_ = false;  // nobody does
        break;
      }
      if (!IsAboutOne(errno)) return BackOff(errno);
    }
    Await();
  }

  void BackOff(int error) {
    if (!waiting_) {
      Log(LogLevel::kWarning, "connections to " + name_ + " have to wait: accept: " + ErrorText(error));
      waiting_ = true;
    }
    timer_->Start(Clock::now() + kBackOff, [this] { Accept(); });
  }

  int fd_;  // -1 once closed
  const std::string name_;
  const std::function<void(UniqueFd)> handler_;
  std::unique_ptr<Watch> watch_;
  std::unique_ptr<Timer> timer_;
  bool waiting_ = false;  // for descriptors or memory; said in the log
};

class SocketListener final : public Listener {
 public:
  // At least one socket. `unix_mode`: what the file gets at the start, if it has to be set then.
  SocketListener(std::vector<UniqueFd> sockets, Address address, std::optional<UnixSocketFile> file,
                 std::optional<int> unix_mode = {})
      : file_(std::move(file)), unix_mode_(unix_mode), sockets_(std::move(sockets)), address_(std::move(address)) {}
  ~SocketListener() override {
    for (const auto& acceptor : acceptors_) acceptor->Close();
  }

  void Start(EventLoop& loop, std::function<void(UniqueFd)> handler) override {
    if (file_) file_->set_owned(true);
    if (file_ && unix_mode_) {
      if (const Status status = file_->SetMode(*unix_mode_); !status.ok()) {
        Log(LogLevel::kWarning, address_.ToString() + ": " + status.message());
      }
    }
    for (const UniqueFd& socket : sockets_) {
      acceptors_.push_back(std::make_shared<Acceptor>(loop, socket.get(), address_.ToString(), handler));
      acceptors_.back()->Await();
    }
  }

  Result<SharedSockets> Share() const override {
    SharedSockets shared;
    for (const UniqueFd& socket : sockets_) {
      shared.sockets.emplace_back(::fcntl(socket.get(), F_DUPFD_CLOEXEC, 0));
      if (!shared.sockets.back()) return ErrorStatus(errno, "sharing the socket of " + address_.ToString());
    }
    if (file_) shared.file = file_->id();
    return shared;
  }

  void Disown() override {
    if (file_) file_->set_owned(false);
  }

  const Address& address() const override { return address_; }
  int fd() const override { return sockets_.front().get(); }

 private:
  std::optional<UnixSocketFile> file_;
  const std::optional<int> unix_mode_;
  std::vector<UniqueFd> sockets_;
  Address address_;
  std::vector<std::shared_ptr<Acceptor>> acceptors_;  // one for each socket; see its comment
};

struct AddrInfoFree {
  void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
};
using AddrInfoList = std::unique_ptr<addrinfo, AddrInfoFree>;

// An address of a name, or the one that was given in digits.
class Endpoint {
 public:
  explicit Endpoint(const addrinfo& info) : size_(info.ai_addrlen) { std::memcpy(&storage_, info.ai_addr, size_); }

  bool operator==(const Endpoint& other) const {
    return size_ == other.size_ && std::memcmp(&storage_, &other.storage_, size_) == 0;
  }

  int family() const { return storage_.ss_family; }

  void SetPort(uint16_t port) {
    const uint16_t big_endian = htons(port);
    const size_t offset = family() == AF_INET6 ? offsetof(sockaddr_in6, sin6_port) : offsetof(sockaddr_in, sin_port);
    std::memcpy(reinterpret_cast<char*>(&storage_) + offset, &big_endian, sizeof big_endian);
  }

  // In digits.
  std::string HostText() const {
    std::array<char, NI_MAXHOST> text{};
    const int error = ::getnameinfo(reinterpret_cast<const sockaddr*>(&storage_), size_, text.data(), text.size(),
                                    nullptr, 0, NI_NUMERICHOST);
    return error == 0 ? text.data() : "unknown";
  }

  // Returns an errno, or 0 and the socket. `both` lets "::" take IPv4 as well, whatever the system's default is.
  int Listen(bool both, int backlog, UniqueFd& socket) const {
    UniqueFd made(::socket(family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!made) return errno;
    const int one = 1;
    ::setsockopt(made.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (family() == AF_INET6) {
      const int only = both ? 0 : 1;
      ::setsockopt(made.get(), IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only);
    }
    if (::bind(made.get(), reinterpret_cast<const sockaddr*>(&storage_), size_) != 0) return errno;
    if (::listen(made.get(), backlog) != 0) return errno;
    socket = std::move(made);
    return 0;
  }

 private:
  sockaddr_storage storage_{};
  socklen_t size_;
};

uint16_t BoundPort(int fd) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) return 0;
  if (storage.ss_family == AF_INET6) {
    sockaddr_in6 address;
    std::memcpy(&address, &storage, sizeof address);
    return ntohs(address.sin6_port);
  }
  sockaddr_in address;
  std::memcpy(&address, &storage, sizeof address);
  return ntohs(address.sin_port);
}

// What an address to listen on stands for.
struct Resolved {
  std::vector<Endpoint> endpoints;  // each once, IPv4 first
  bool is_name = false;
};

Result<Resolved> Resolve(const Address& address) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV | AI_NUMERICHOST;
  const std::string port = std::to_string(address.port);
  Resolved resolved;
  addrinfo* list = nullptr;
  int error = ::getaddrinfo(address.host.c_str(), port.c_str(), &hints, &list);
  if (error == EAI_NONAME) {
    resolved.is_name = true;
    hints.ai_flags &= ~AI_NUMERICHOST;
    error = ::getaddrinfo(address.host.c_str(), port.c_str(), &hints, &list);
  }
  if (error == EAI_SYSTEM) return ErrorStatus(errno, "looking up '" + address.host + "'");
  if (error != 0) {
    return Status(Code::kInvalidArgument, "looking up '" + address.host + "': " + ::gai_strerror(error));
  }
  const AddrInfoList owned(list);
  for (const addrinfo* info = list; info != nullptr; info = info->ai_next) {
    if (info->ai_family != AF_INET && info->ai_family != AF_INET6) continue;
    const Endpoint endpoint(*info);
    if (std::find(resolved.endpoints.begin(), resolved.endpoints.end(), endpoint) == resolved.endpoints.end()) {
      resolved.endpoints.push_back(endpoint);
    }
  }
  std::stable_partition(resolved.endpoints.begin(), resolved.endpoints.end(),
                        [](const Endpoint& endpoint) { return endpoint.family() == AF_INET; });
  return resolved;
}

// Sockets that listen on one port.
struct Bound {
  std::vector<UniqueFd> sockets;
  uint16_t port = 0;
  // Why not. `taken_again`: another program has the port that the system chose for the first socket.
  Status status = Status::Ok();
  bool taken_again = false;
};

Bound ListenOnAll(const Resolved& resolved, uint16_t port, int backlog) {
  Bound bound{{}, port, Status::Ok(), false};
  for (size_t i = 0; i < resolved.endpoints.size(); ++i) {
    Endpoint endpoint = resolved.endpoints[i];
    endpoint.SetPort(bound.port);
    UniqueFd socket;
    const int error = endpoint.Listen(!resolved.is_name, backlog, socket);
    if (error == 0) {
      if (bound.port == 0) bound.port = BoundPort(socket.get());
      bound.sockets.push_back(std::move(socket));
      continue;
    }
    Status status = ErrorStatus(error, "", i == 0 ? "" : "at " + endpoint.HostText());
    if (error == EADDRNOTAVAIL || error == EAFNOSUPPORT) {
      if (bound.status.ok()) bound.status = std::move(status);
      continue;
    }
    // Without this address another server would share the name's port with this one.
    bound.taken_again = error == EADDRINUSE && port == 0 && !bound.sockets.empty();
    bound.sockets.clear();
    bound.status = std::move(status);
    return bound;
  }
  return bound;
}

Result<std::unique_ptr<Listener>> ListenOnHost(const Address& address, const ListenOptions& options) {
  const Result<Resolved> resolved = Resolve(address);
  if (!resolved.ok()) return resolved.status();
  if (resolved->endpoints.empty()) return Status(Code::kInvalidArgument, "the name has no IPv4 or IPv6 address");
  Bound bound = ListenOnAll(*resolved, address.port, options.backlog);
  for (int i = 1; i < kChoicesOfPort && bound.taken_again; ++i) {
    bound = ListenOnAll(*resolved, address.port, options.backlog);
  }
  if (bound.sockets.empty()) return bound.status;
  Address really = address;
  really.port = bound.port;
  return std::unique_ptr<Listener>(
      std::make_unique<SocketListener>(std::move(bound.sockets), std::move(really), std::nullopt));
}

Result<std::unique_ptr<Listener>> ListenOnPath(const Address& address, const ListenOptions& options) {
  Result<UnixListener> made = ListenUnix(address.path, options.unix_mode, options.backlog);
  if (!made.ok()) return made.status();
  std::vector<UniqueFd> sockets;
  sockets.push_back(std::move(made->socket));
  return std::unique_ptr<Listener>(
      std::make_unique<SocketListener>(std::move(sockets), address, std::move(made->file)));
}

Status CheckListening(int fd, bool unix_socket) {
  int listening = 0;
  int domain = 0;
  socklen_t size = sizeof listening;
  if (::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0 ||
      ::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0) {
    return Status(Code::kInvalidArgument, "descriptor " + std::to_string(fd) + ": " + ErrorText(errno));
  }
  if (listening == 0 || (domain == AF_UNIX) != unix_socket) {
    return Status(Code::kInvalidArgument,
                  "descriptor " + std::to_string(fd) + " is no listening socket of such an address");
  }
  return Status::Ok();
}

Result<std::unique_ptr<Listener>> AdoptSockets(const Address& address, const ListenOptions& options,
                                               SharedSockets shared) {
  if (shared.sockets.empty()) return Status(Code::kInvalidArgument, "there is no socket to adopt");
  for (const UniqueFd& socket : shared.sockets) {
    MS_RETURN_IF_ERROR(CheckListening(socket.get(), address.unix_socket));
    SetNonBlocking(socket.get());
    ::fcntl(socket.get(), F_SETFD, FD_CLOEXEC);
  }
  if (!address.unix_socket) {
    Address really = address;
    really.port = BoundPort(shared.sockets.front().get());
    return std::unique_ptr<Listener>(
        std::make_unique<SocketListener>(std::move(shared.sockets), std::move(really), std::nullopt));
  }
  Result<std::optional<UnixSocketFile>> file = FindUnixFile(address.path, shared.file.value_or(FileId{}));
  if (!file.ok()) return file.status();
  if (!*file) return ListenOnPath(address, options);
  return std::unique_ptr<Listener>(
      std::make_unique<SocketListener>(std::move(shared.sockets), address, *std::move(file), options.unix_mode));
}

Result<std::unique_ptr<Listener>> WithAddress(Result<std::unique_ptr<Listener>> listener, const Address& address) {
  if (listener.ok()) return listener;
  return Status(listener.status().code(), "address '" + address.ToString() + "': " + listener.status().message());
}

}  // namespace

Result<std::unique_ptr<Listener>> Listen(const Address& address, const ListenOptions& options) {
  return WithAddress(address.unix_socket ? ListenOnPath(address, options) : ListenOnHost(address, options), address);
}

Result<std::unique_ptr<Listener>> Adopt(const Address& address, const ListenOptions& options, SharedSockets shared) {
  return WithAddress(AdoptSockets(address, options, std::move(shared)), address);
}

}  // namespace mindserve::net
