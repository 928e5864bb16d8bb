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

 private:
  static IoResult Failed(const char* doing) {
    if (errno == EAGAIN || errno == EWOULDBLOCK) return {IoResult::Kind::kAgain, 0, {}};
    return {IoResult::Kind::kError, 0, std::string(doing) + ": " + ErrorText(errno)};
  }

  UniqueFd socket_;
  std::unique_ptr<Watch> watch_;  // after the socket: has to be gone before it is closed
  Peer peer_;
};

}  // namespace

std::unique_ptr<Transport> NewTransport(EventLoop& loop, UniqueFd socket, std::shared_ptr<const TlsContext> tls) {
  SetNonBlocking(socket.get());
  const int one = 1;
  ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);  // refused by Unix sockets, which need none
  if (tls) return NewTlsTransport(loop, std::move(socket), std::move(tls));
  return std::make_unique<PlainTransport>(loop, std::move(socket));
}

}  // namespace mindserve::net
