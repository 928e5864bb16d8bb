// A gRPC server that does nothing: reads each request's whole body, answers a constant. What nghttp2 and the kernel
// cost, and so the ceiling for any gRPC server on this machine. One thread, epoll, the gateway's windows and buffer
// sizes, one read and one write a connection and round.
//
//   do_nothing_server <address> <reply bytes>     address: a port on 127.0.0.1, 0 for any, or unix:PATH
//
// Prints "listening on ADDRESS" and runs until it is killed.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace {

constexpr int kStreamWindow = 4 << 20;
constexpr int kConnectionWindow = 64 << 20;
constexpr size_t kReadBuffer = 256 * 1024;

std::string reply;  // a gRPC message with its prefix

nghttp2_nv Header(const char* name, const char* value) {
  return {reinterpret_cast<uint8_t*>(const_cast<char*>(name)), reinterpret_cast<uint8_t*>(const_cast<char*>(value)),
          std::strlen(name), std::strlen(value), NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
}

struct Connection {
  int fd = -1;
  nghttp2_session* session = nullptr;
  std::string out;  // what the socket did not take yet
  std::map<int32_t, size_t> sent;
};

ssize_t ReadReply(nghttp2_session* session, int32_t stream, uint8_t* buffer, size_t length, uint32_t* flags,
                  nghttp2_data_source*, void* user) {
  size_t& sent = static_cast<Connection*>(user)->sent[stream];
  const size_t count = std::min(length, reply.size() - sent);
  std::memcpy(buffer, reply.data() + sent, count);
  sent += count;
  if (sent == reply.size()) {
    *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    const nghttp2_nv trailer = Header("grpc-status", "0");
    nghttp2_submit_trailer(session, stream, &trailer, 1);
    static_cast<Connection*>(user)->sent.erase(stream);
  }
  return static_cast<ssize_t>(count);
}

int OnFrame(nghttp2_session* session, const nghttp2_frame* frame, void*) {
  const bool carries = frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS;
  if (!carries || (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) return 0;
  const std::array<nghttp2_nv, 2> headers = {Header(":status", "200"), Header("content-type", "application/grpc")};
  nghttp2_data_provider body{};
  body.read_callback = ReadReply;
  return nghttp2_submit_response(session, frame->hd.stream_id, headers.data(), headers.size(), &body);
}

int OnClose(nghttp2_session*, int32_t stream, uint32_t, void* user) {
  static_cast<Connection*>(user)->sent.erase(stream);
  return 0;
}

// False when the connection is over.
bool Flush(Connection& connection) {
  while (true) {
    while (connection.out.size() < kReadBuffer) {
      const uint8_t* data = nullptr;
      const ssize_t size = nghttp2_session_mem_send(connection.session, &data);
      if (size < 0) return false;
      if (size == 0) break;
      connection.out.append(reinterpret_cast<const char*>(data), static_cast<size_t>(size));
    }
    if (connection.out.empty()) return true;
    const ssize_t sent =
        ::send(connection.fd, connection.out.data(), connection.out.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) return errno == EAGAIN;
    connection.out.erase(0, static_cast<size_t>(sent));
    if (!connection.out.empty()) return true;
  }
}

[[noreturn]] void Fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

int Listen(const std::string& address) {
  int fd = -1;
  if (address.starts_with("unix:")) {
    fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    std::snprintf(name.sun_path, sizeof(name.sun_path), "%s", address.c_str() + 5);
    if (::bind(fd, reinterpret_cast<sockaddr*>(&name), sizeof(name)) != 0) Fail("bind");
    std::printf("listening on %s\n", address.c_str());
  } else {
    fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    name.sin_port = htons(static_cast<uint16_t>(std::atoi(address.c_str())));
    const int on = 1;
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (::bind(fd, reinterpret_cast<sockaddr*>(&name), sizeof(name)) != 0) Fail("bind");
    socklen_t size = sizeof(name);
    ::getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size);
    std::printf("listening on 127.0.0.1:%d\n", ntohs(name.sin_port));
  }
  if (::listen(fd, 4096) != 0) Fail("listen");
  std::fflush(stdout);
  return fd;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s <port or unix:PATH> <reply bytes>\n", argv[0]);
    return 2;
  }
  const size_t size = std::strtoul(argv[2], nullptr, 10);
  reply.assign(5 + size, '\0');
  for (size_t i = 0; i < 4; ++i) reply[1 + i] = static_cast<char>(size >> (24 - 8 * i));

  nghttp2_session_callbacks* callbacks = nullptr;
  nghttp2_session_callbacks_new(&callbacks);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, OnFrame);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, OnClose);

  const int listener = Listen(argv[1]);
  const int poll = ::epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = listener;
  ::epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
  std::map<int, std::unique_ptr<Connection>> connections;
  std::vector<uint8_t> buffer(kReadBuffer);
  std::array<epoll_event, 256> events{};
  while (true) {
    const int ready = ::epoll_wait(poll, events.data(), static_cast<int>(events.size()), -1);
    for (int i = 0; i < ready; ++i) {
      const int fd = events[static_cast<size_t>(i)].data.fd;
      if (fd == listener) {
        const int accepted = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (accepted < 0) continue;
        const int on = 1;
        ::setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        auto connection = std::make_unique<Connection>();
        connection->fd = accepted;
        nghttp2_session_server_new(&connection->session, callbacks, connection.get());
        const std::array<nghttp2_settings_entry, 2> settings = {
            {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 1000}, {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, kStreamWindow}}};
        nghttp2_submit_settings(connection->session, NGHTTP2_FLAG_NONE, settings.data(), settings.size());
        nghttp2_session_set_local_window_size(connection->session, NGHTTP2_FLAG_NONE, 0, kConnectionWindow);
        event.events = EPOLLIN | EPOLLOUT | EPOLLET;
        event.data.fd = accepted;
        ::epoll_ctl(poll, EPOLL_CTL_ADD, accepted, &event);
        connections[accepted] = std::move(connection);
        continue;
      }
      Connection& connection = *connections[fd];
      bool alive = true;
      if ((events[static_cast<size_t>(i)].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
        while (alive) {
          const ssize_t got = ::recv(fd, buffer.data(), buffer.size(), 0);
          if (got < 0) {
            alive = errno == EAGAIN;
            break;
          }
          alive =
              got > 0 && nghttp2_session_mem_recv(connection.session, buffer.data(), static_cast<size_t>(got)) == got;
          if (static_cast<size_t>(got) < buffer.size()) break;  // edge-triggered: a short read has emptied the socket
        }
      }
      if (alive) alive = Flush(connection);
      if (!alive) {
        nghttp2_session_del(connection.session);
        ::close(fd);
        connections.erase(fd);
      }
    }
  }
}
