#include "net/transport.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <utility>

#include "net/socket.h"
#include "net/tls_transport.h"

namespace mindserve::net {
namespace {

// When a silent connection is probed, in seconds, and after how many probes without an answer it is given up.
constexpr int kKeepaliveIdle = 60;
constexpr int kKeepaliveInterval = 15;
constexpr int kKeepaliveProbes = 4;

class PlainTransport final : public Transport {
 public:
  PlainTransport(EventLoop& loop, UniqueFd socket)
      : socket_(std::move(socket)),
        watch_(loop.NewWatch(socket_.get())),
        peer_{PeerAddress(socket_.get()), false, ""} {}

  void Start(std::function<void(Status)> done) override { done(Status::Ok()); }

  IoResult Read(std::span<std::byte> into) override {
    if (into.empty()) return {};
    ssize_t n;
    do {
      n = ::recv(socket_.get(), into.data(), into.size(), 0);
    } while (n < 0 && errno == EINTR);
    if (n > 0) return {IoResult::Kind::kDone, static_cast<size_t>(n), {}};
    if (n == 0) return {IoResult::Kind::kEof, 0, {}};
    return Failed("reading");
  }

  IoResult Write(std::span<const iovec> parts) override {
    if (parts.empty()) return {};
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(parts.data());
    message.msg_iovlen = std::min<size_t>(parts.size(), IOV_MAX);
    ssize_t n;
    do {
      n = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n >= 0) return {IoResult::Kind::kDone, static_cast<size_t>(n), {}};
    return Failed("writing");
  }

  void AwaitReadable(std::function<void()> handler) override { watch_->AwaitReadable(std::move(handler)); }
  void AwaitWritable(std::function<void()> handler) override { watch_->AwaitWritable(std::move(handler)); }
  void Shutdown() override { ::shutdown(socket_.get(), SHUT_WR); }
  const Peer& peer() const override { return peer_; }
  const AuthProperties& auth() override {
    static const AuthProperties none;
    return none;
  }

 private:
  static IoResult Failed(const char* doing) {
    if (errno == EAGAIN || errno == EWOULDBLOCK) return {IoResult::Kind::kAgain, 0, {}};
    return {IoResult::Kind::kError, 0, std::string(doing) + ": " + ErrorText(errno)};
  }

  UniqueFd socket_;
  std::unique_ptr<Watch> watch_;  // after the socket: has to be gone before it is closed
  Peer peer_;
};

// All are refused by Unix sockets, which need none.
void SetTcpOptions(int fd) {
  const auto set = [fd](int level, int name, int value) { ::setsockopt(fd, level, name, &value, sizeof value); };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, kKeepaliveIdle);
  set(IPPROTO_TCP, TCP_KEEPINTVL, kKeepaliveInterval);
  set(IPPROTO_TCP, TCP_KEEPCNT, kKeepaliveProbes);
  // Probes are sent only while nothing else is under way; this is for data that the peer does not take.
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, 1000 * (kKeepaliveIdle + kKeepaliveProbes * kKeepaliveInterval));
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
}

}  // namespace

std::unique_ptr<Transport> NewTransport(EventLoop& loop, UniqueFd socket, std::shared_ptr<const TlsContext> tls) {
  SetNonBlocking(socket.get());
  SetTcpOptions(socket.get());
  if (tls) return NewTlsTransport(loop, std::move(socket), std::move(tls));
  return std::make_unique<PlainTransport>(loop, std::move(socket));
}

}  // namespace mindserve::net
