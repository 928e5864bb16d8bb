#include "gateway/test_client.h"

#include <gtest/gtest.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>

namespace mindserve::gateway {

UniqueFd ConnectTo(const net::Address& address) {
  if (address.unix_socket) {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un to{};
    to.sun_family = AF_UNIX;
    std::memcpy(to.sun_path, address.path.data(), std::min(address.path.size(), sizeof(to.sun_path) - 1));
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof(to)), 0) << address.path;
    return fd;
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  EXPECT_EQ(::getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found), 0);
  UniqueFd fd(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(::connect(fd.get(), found->ai_addr, found->ai_addrlen), 0) << address.ToString();
  ::freeaddrinfo(found);
  const int one = 1;
  ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  return fd;
}

std::string Framed(std::string_view message, bool compressed) {
  std::string framed(1, compressed ? 1 : 0);
  for (int shift = 24; shift >= 0; shift -= 8) framed += static_cast<char>(message.size() >> shift & 0xff);
  return framed.append(message);
}

static std::string Compress(std::string_view bytes, int window_bits) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, 9, Z_DEFLATED, window_bits, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(deflateBound(&stream, bytes.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string Gzip(std::string_view bytes) {
  return Compress(bytes, MAX_WBITS + 16);
}

std::string Deflate(std::string_view bytes) {
  return Compress(bytes, MAX_WBITS);
}

int TestClient::Response::grpc_status() const {
  const auto found = trailers.find("grpc-status");
  return found == trailers.end() ? -1 : std::stoi(found->second);
}

std::string TestClient::Response::grpc_message() const {
  const auto found = trailers.find("grpc-message");
  if (found == trailers.end()) return "";
  std::string text;
  const std::string& in = found->second;
  for (size_t i = 0; i < in.size(); ++i) {
    if (in[i] == '%') {
      text += static_cast<char>(std::stoi(in.substr(i + 1, 2), nullptr, 16));
      i += 2;
    } else {
      text += in[i];
    }
  }
  return text;
}

std::vector<std::string> TestClient::Response::messages() const {
  std::vector<std::string> all;
  std::string_view rest = body;
  while (rest.size() >= 5) {
    EXPECT_EQ(rest[0], 0);
    size_t size = 0;
    for (int i = 1; i < 5; ++i) size = size << 8 | static_cast<uint8_t>(rest[i]);
    EXPECT_LE(size, rest.size() - 5);
    all.emplace_back(rest.substr(5, size));
    rest.remove_prefix(std::min(rest.size(), 5 + size));
  }
  EXPECT_TRUE(rest.empty());
  return all;
}

struct TestClient::Callbacks {
  static TestClient& Self(void* user) { return *static_cast<TestClient*>(user); }

  static int OnHeader(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                      const uint8_t* value, size_t value_size, uint8_t, void* user) {
    Response& response = Self(user).response(frame->hd.stream_id);
    const std::string key(reinterpret_cast<const char*>(name), name_size);
    const std::string text(reinterpret_cast<const char*>(value), value_size);
    const bool first = frame->headers.cat == NGHTTP2_HCAT_RESPONSE;
    if (first) response.headers[key] = text;
    if (!first || (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) response.trailers[key] = text;
    return 0;
  }

  static int OnData(nghttp2_session* session, uint8_t, int32_t id, const uint8_t* data, size_t size, void* user) {
    if (Self(user).reads_slowly_) nghttp2_session_consume_connection(session, size);
    Self(user).response(id).body.append(reinterpret_cast<const char*>(data), size);
    return 0;
  }

  static int OnFrame(nghttp2_session*, const nghttp2_frame* frame, void* user) {
    TestClient& self = Self(user);
    if (frame->hd.type == NGHTTP2_GOAWAY) {
      ++self.goaways_;
      self.goaway_error_ = frame->goaway.error_code;
    }
    if (frame->hd.type == NGHTTP2_PING && (frame->hd.flags & NGHTTP2_FLAG_ACK) != 0) ++self.pings_acked_;
    if (frame->hd.type == NGHTTP2_PING && (frame->hd.flags & NGHTTP2_FLAG_ACK) == 0) ++self.pings_;
    if (frame->hd.type == NGHTTP2_SETTINGS) {
      for (size_t i = 0; i < frame->settings.niv; ++i) {
        self.settings_[frame->settings.iv[i].settings_id] = frame->settings.iv[i].value;
      }
    }
    return 0;
  }

  static int OnClose(nghttp2_session*, int32_t id, uint32_t error, void* user) {
    Self(user).response(id).closed = true;
    Self(user).response(id).error = error;
    return 0;
  }

  static ssize_t Read(nghttp2_session*, int32_t id, uint8_t* into, size_t max, uint32_t* flags, nghttp2_data_source*,
                      void* user) {
    Stream& stream = Self(user).streams_[id];
    const size_t n = std::min(max, stream.out.size() - stream.sent);
    if (n == 0 && !stream.ends) {
      stream.deferred = true;
      return NGHTTP2_ERR_DEFERRED;
    }
    std::memcpy(into, stream.out.data() + stream.sent, n);
    stream.sent += n;
    if (stream.ends && stream.sent == stream.out.size()) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return static_cast<ssize_t>(n);
  }
};

TestClient::TestClient(const net::Address& address, uint32_t stream_window)
    : TestClient(ConnectTo(address), stream_window) {}

TestClient::TestClient(UniqueFd socket, uint32_t stream_window, bool reads_slowly)
    : socket_(std::move(socket)), reads_slowly_(reads_slowly) {
  nghttp2_session_callbacks* callbacks = nullptr;
  nghttp2_session_callbacks_new(&callbacks);
  callbacks_.reset(callbacks);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, Callbacks::OnHeader);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, Callbacks::OnData);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, Callbacks::OnFrame);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, Callbacks::OnClose);
  nghttp2_session* session = nullptr;
  nghttp2_option* option = nullptr;
  nghttp2_option_new(&option);
  nghttp2_option_set_no_auto_window_update(option, reads_slowly ? 1 : 0);
  nghttp2_session_client_new2(&session, callbacks, this, option);
  nghttp2_option_del(option);
  session_.reset(session);
  const nghttp2_settings_entry entries[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, stream_window}};
  nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, entries, 1);
  nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0, 64 << 20);
}

TestClient::~TestClient() = default;

int32_t TestClient::Start(std::string_view path, std::string body, bool ends, const Fields& more) {
  Fields fields = {{":method", "POST"},
                   {":scheme", "http"},
                   {":path", std::string(path)},
                   {":authority", "test"},
                   {"te", "trailers"},
                   {"content-type", "application/grpc"},
                   {"user-agent", "mindserve-test"}};
  fields.insert(fields.end(), more.begin(), more.end());
  return StartRaw(fields, std::move(body), ends);
}

int32_t TestClient::StartRaw(const Fields& fields, std::string body, bool ends) {
  std::vector<nghttp2_nv> list;
  for (const auto& [name, value] : fields) list.push_back(Field(std::string_view(name), value));
  nghttp2_data_provider provider{};
  provider.read_callback = Callbacks::Read;
  const bool bodiless = body.empty() && ends;
  const int32_t id = nghttp2_submit_request(session_.get(), nullptr, list.data(), list.size(),
                                            bodiless ? nullptr : &provider, nullptr);
  EXPECT_GT(id, 0) << nghttp2_strerror(id);
  streams_[id].out = std::move(body);
  streams_[id].ends = ends;
  return id;
}

void TestClient::Send(int32_t id, std::string_view body, bool ends) {
  Stream& stream = streams_[id];
  stream.out.append(body);
  stream.ends = ends;
  if (std::exchange(stream.deferred, false)) nghttp2_session_resume_data(session_.get(), id);
}

void TestClient::Reset(int32_t stream) {
  nghttp2_submit_rst_stream(session_.get(), NGHTTP2_FLAG_NONE, stream, NGHTTP2_CANCEL);
}

void TestClient::Ping() {
  nghttp2_submit_ping(session_.get(), NGHTTP2_FLAG_NONE, nullptr);
}

void TestClient::SetTableSize(uint32_t bytes) {
  const nghttp2_settings_entry entry{NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, bytes};
  nghttp2_submit_settings(session_.get(), NGHTTP2_FLAG_NONE, &entry, 1);
}

void TestClient::Consume(int32_t stream, size_t bytes) {
  nghttp2_session_consume_stream(session_.get(), stream, bytes);
}

void TestClient::Flush() {
  // In one piece: the server's patience with what has begun must not depend on when this thread runs.
  std::string all;
  const uint8_t* data = nullptr;
  for (ssize_t n; (n = nghttp2_session_mem_send(session_.get(), &data)) > 0;) {
    all.append(reinterpret_cast<const char*>(data), static_cast<size_t>(n));
  }
  for (std::string_view rest = all; !rest.empty();) {
    const ssize_t sent = ::send(socket_.get(), rest.data(), rest.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      rest.remove_prefix(static_cast<size_t>(sent));
      continue;
    }
    if (errno != EAGAIN) {
      ended_ = true;
      return;
    }
    // The server may have to be read from before it takes more; what comes is kept by the kernel.
    pollfd wait{socket_.get(), POLLOUT, 0};
    if (::poll(&wait, 1, 20'000) != 1) {
      ADD_FAILURE() << "the server takes nothing";
      ended_ = true;
      return;
    }
  }
}

bool TestClient::RunUntil(const std::function<bool()>& done) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  for (;;) {
    Flush();
    if (nghttp2_session_want_read(session_.get()) == 0 && nghttp2_session_want_write(session_.get()) == 0) {
      // After a GOAWAY without a call left. From here on nghttp2 answers nothing, not even a PING.
      ended_ = true;
      ::shutdown(socket_.get(), SHUT_RDWR);
    }
    if (done()) return true;
    if (ended_) return false;
    pollfd wait{socket_.get(), POLLIN, 0};
    if (std::chrono::steady_clock::now() > deadline || ::poll(&wait, 1, 20'000) != 1) {
      ADD_FAILURE() << "what is waited for did not happen";
      return false;
    }
    uint8_t buffer[65536];
    const ssize_t n = ::recv(socket_.get(), buffer, sizeof(buffer), 0);
    if (n <= 0) {
      ended_ = true;
      ::shutdown(socket_.get(), SHUT_RDWR);  // as clients do
    } else if (nghttp2_session_mem_recv(session_.get(), buffer, static_cast<size_t>(n)) < 0) {
      ADD_FAILURE() << "the server's bytes are no HTTP/2";
      ended_ = true;
    }
  }
}

const TestClient::Response& TestClient::Wait(int32_t stream) {
  RunUntil([&] { return streams_[stream].response.closed; });
  return streams_[stream].response;
}

const TestClient::Response& TestClient::Call(std::string_view path, std::string_view message, const Fields& more) {
  return Wait(Start(path, Framed(message), true, more));
}

}  // namespace mindserve::gateway
