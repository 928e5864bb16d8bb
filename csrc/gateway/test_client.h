// A gRPC client for the tests, on a blocking socket: what it sends and when is all in the test's hands.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "gateway/http2_session.h"
#include "net/address.h"

namespace mindserve::gateway {

// A connected socket; fails the test if there is none.
UniqueFd ConnectTo(const net::Address& address);

// A gRPC message with its prefix.
std::string Framed(std::string_view message, bool compressed = false);
std::string Gzip(std::string_view bytes);
std::string Deflate(std::string_view bytes);

class TestClient {
 public:
  using Fields = std::vector<std::pair<std::string, std::string>>;
  struct Response {
    std::map<std::string, std::string> headers;
    std::map<std::string, std::string> trailers;  // for a trailers-only answer the same as headers
    std::string body;
    bool closed = false;
    uint32_t error = 0;  // of RST_STREAM

    int grpc_status() const;  // -1: none
    std::string grpc_message() const;
    std::vector<std::string> messages() const;
  };

  explicit TestClient(const net::Address& address, uint32_t stream_window = 1 << 20);
  // As above, over a socket that is connected already. One that `reads_slowly` takes what fills its streams' windows,
  // and more only by Consume.
  explicit TestClient(UniqueFd socket, uint32_t stream_window = 1 << 20, bool reads_slowly = false);
  ~TestClient();

  // Begins a call; nothing is sent before the next Wait or Flush. With `ends`, `body` is all there is.
  int32_t Start(std::string_view path, std::string body, bool ends = true, const Fields& more = {});
  // A request of just these fields.
  int32_t StartRaw(const Fields& fields, std::string body, bool ends);
  void Send(int32_t stream, std::string_view body, bool ends);
  void Reset(int32_t stream);
  void Ping();
  // Has the server encode header fields with a table of that size.
  void SetTableSize(uint32_t bytes);
  void Consume(int32_t stream, size_t bytes);
  // How much may be sent on it now.
  // For a test that reads by itself what comes from now on.
  int socket() const { return socket_.get(); }
  int32_t window(int32_t stream) { return nghttp2_session_get_stream_remote_window_size(session_.get(), stream); }
  // Whether there is more to be sent on it.
  bool waits(int32_t stream) { return streams_[stream].sent < streams_[stream].out.size(); }

  // Sends and receives until `done` says so, or the connection ends: false then, and after 20 s, when the test fails.
  bool RunUntil(const std::function<bool()>& done);
  void Flush();
  // Until that call is over. The response as far as it came.
  const Response& Wait(int32_t stream);
  // A whole call.
  const Response& Call(std::string_view path, std::string_view message, const Fields& more = {});

  Response& response(int32_t stream) { return streams_[stream].response; }
  bool ended() const { return ended_; }
  int goaways() const { return goaways_; }
  uint32_t goaway_error() const { return goaway_error_; }
  int pings() const { return pings_; }  // that the server sent
  int pings_acked() const { return pings_acked_; }
  std::map<int32_t, uint32_t> settings() const { return settings_; }
  int fd() const { return socket_.get(); }

 private:
  struct Callbacks;
  struct Stream {
    Response response;
    std::string out;
    size_t sent = 0;
    bool ends = false;
    bool deferred = false;
  };

  UniqueFd socket_;
  Http2Owned<nghttp2_session_callbacks> callbacks_;
  Http2Owned<nghttp2_session> session_;
  const bool reads_slowly_;
  std::map<int32_t, Stream> streams_;
  std::map<int32_t, uint32_t> settings_;
  bool ended_ = false;
  int goaways_ = 0;
  uint32_t goaway_error_ = 0;
  int pings_ = 0;
  int pings_acked_ = 0;
};

}  // namespace mindserve::gateway
