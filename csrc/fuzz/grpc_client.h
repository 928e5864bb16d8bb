// A gRPC client for fuzzers at the other end of the harness's pipe: it speaks HTTP/2 as it should, so that what it is
// made to say reaches the services, and holds the gateway to what a client may expect.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fuzz/gateway_harness.h"
#include "gateway/http2_session.h"

namespace mindserve::fuzz {

// A gRPC message with its prefix.
std::string Framed(std::string_view message, bool compressed = false);

class GrpcClient {
 public:
  using Fields = std::vector<std::pair<std::string, std::string>>;

  // Connects. The gateway may send so much of each answer before the client gives more.
  GrpcClient(GatewayHarness& harness, bool internal, uint32_t stream_window);
  // Hangs up.
  ~GrpcClient();
  GrpcClient(const GrpcClient&) = delete;

  // Begins a call; -1: there can be no more.
  int32_t Start(std::string_view path, const Fields& more, bool ends);
  int32_t StartRaw(const Fields& fields, bool ends);
  void Send(int32_t stream, std::string_view bytes, bool ends);
  void Reset(int32_t stream);
  void Ping();
  // Gives the gateway room for so much more of an answer.
  void GiveWindow(int32_t stream, uint32_t bytes);

  // Sends and receives until nothing moves.
  void Run();

  size_t calls() const { return calls_.size(); }
  // The stream of the n-th call, counted around; 0: there is none.
  int32_t stream(size_t n) const { return order_.empty() ? 0 : order_[n % order_.size()]; }
  bool over(int32_t stream) const { return calls_.at(stream).closed; }

 private:
  struct Callbacks;
  struct Call {
    std::string out;
    size_t sent = 0;
    bool ends = false;
    bool deferred = false;
    bool reset = false;  // by us
    int http_status = 0;
    bool grpc = false;
    int grpc_statuses = 0;
    size_t received = 0;
    bool closed = false;
  };

  GatewayHarness& harness_;
  gateway::Http2Owned<nghttp2_session_callbacks> callbacks_;
  gateway::Http2Owned<nghttp2_session> session_;
  std::map<int32_t, Call> calls_;
  std::vector<int32_t> order_;
};

}  // namespace mindserve::fuzz
