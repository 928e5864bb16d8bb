#include "net/listener.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
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
        waiting_ = false;
        handler_(std::move(connection));
        if (fd_ < 0) return;
        continue;
      }
      if (errno == EAGAIN || errno == EWOULDBLOCK) break;
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
  SocketListener(UniqueFd socket, Address address, std::optional<UnixSocketFile> file)
      : file_(std::move(file)), socket_(std::move(socket)), address_(std::move(address)) {}
  ~SocketListener() override {
    if (acceptor_) acceptor_->Close();
  }

  void Start(EventLoop& loop, std::function<void(UniqueFd)> handler) override {
    acceptor_ = std::make_shared<Acceptor>(loop, socket_.get(), address_.ToString(), std::move(handler));
    acceptor_->Await();
  }

  const Address& address() const override { return address_; }
  int fd() const override { return socket_.get(); }

 private:
  std::optional<UnixSocketFile> file_;
  UniqueFd socket_;
  Address address_;
  std::shared_ptr<Acceptor> acceptor_;  // see its comment
};

struct AddrInfoFree {
  void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
};
using AddrInfoList = std::unique_ptr<addrinfo, AddrInfoFree>;

Result<AddrInfoList> Resolve(const Address& address) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* list = nullptr;
  const int error = ::getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &list);
  AddrInfoList owned(list);
  if (error == EAI_SYSTEM) return ErrorStatus(errno, "looking up '" + address.host + "'");
  if (error != 0) {
    return Status(Code::kInvalidArgument, "looking up '" + address.host + "': " + ::gai_strerror(error));
  }
  return owned;
}

Result<UniqueFd> ListenTcp(const addrinfo& info, int backlog) {
  UniqueFd socket(::socket(info.ai_family, info.ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, info.ai_protocol));
  if (!socket) return ErrorStatus(errno, "");
  const int one = 1;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (info.ai_family == AF_INET6) {
    const int zero = 0;  // "[::]" takes IPv4 as well, whatever the system's default is
    ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
  }
  if (::bind(socket.get(), info.ai_addr, info.ai_addrlen) != 0 || ::listen(socket.get(), backlog) != 0) {
    return ErrorStatus(errno, "");
  }
  return socket;
}

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

Result<std::unique_ptr<Listener>> ListenOnHost(const Address& address, const ListenOptions& options) {
  const Result<AddrInfoList> list = Resolve(address);
  if (!list.ok()) return list.status();
  std::vector<const addrinfo*> candidates;
  for (const addrinfo* info = list->get(); info != nullptr; info = info->ai_next) candidates.push_back(info);
  // A client that was told "127.0.0.1" is to find a server that was told "localhost".
  std::stable_partition(candidates.begin(), candidates.end(),
                        [](const addrinfo* info) { return info->ai_family == AF_INET; });

  std::optional<Status> first_error;
  for (const addrinfo* info : candidates) {
    Result<UniqueFd> socket = ListenTcp(*info, options.backlog);
    if (socket.ok()) {
      Address bound = address;
      bound.port = BoundPort(socket->get());
      return std::unique_ptr<Listener>(
          std::make_unique<SocketListener>(std::move(*socket), std::move(bound), std::nullopt));
    }
    if (!first_error) first_error = socket.status();
    // Going on to ::1 while another server has 127.0.0.1 would share the name's port with it.
    if (socket.status().code() == Code::kUnavailable) break;
  }
  return first_error.value_or(Status(Code::kInvalidArgument, "the name has no address"));
}

Result<std::unique_ptr<Listener>> ListenOnPath(const Address& address, const ListenOptions& options) {
  Result<UnixListener> made = ListenUnix(address.path, options.unix_mode, options.backlog);
  if (!made.ok()) return made.status();
  return std::unique_ptr<Listener>(
      std::make_unique<SocketListener>(std::move(made->socket), address, std::move(made->file)));
}

}  // namespace

Result<std::unique_ptr<Listener>> Listen(const Address& address, const ListenOptions& options) {
  auto listener = address.unix_socket ? ListenOnPath(address, options) : ListenOnHost(address, options);
  if (listener.ok()) return listener;
  return Status(listener.status().code(), "address '" + address.ToString() + "': " + listener.status().message());
}

}  // namespace mindserve::net
