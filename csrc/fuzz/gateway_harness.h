// The gateway of one I/O thread for fuzzers: the real connection, services, routing and link, but no thread, no socket
// and no clock, so that the same input does the same every time. A worker at the other end of the link answers in
// between.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fuzz/input.h"
#include "gateway/child_calls.h"
#include "gateway/health_service.h"
#include "gateway/http2_connection.h"
#include "gateway/mirrors.h"
#include "gateway/router.h"
#include "gateway/served.h"
#include "gateway/thread_context.h"
#include "gateway/traffic.h"
#include "gateway/user_service.h"
#include "gateway/worker_calls.h"
#include "link/lane.h"
#include "net/event_loop.h"

namespace mindserve::fuzz {

// What there is to call.
inline constexpr const char* kUnary = "/t.Users/Unary";
inline constexpr const char* kDown = "/t.Users/Down";
inline constexpr const char* kUp = "/t.Users/Up";
inline constexpr const char* kBoth = "/t.Users/Both";
inline constexpr const char* kFails = "/t.Users/Fails";
extern const std::vector<std::string> kPaths;  // of these and all built-in methods

// Their numbers on the link.
enum WorkerMethod : uint16_t {
  kAddNumber,
  kUnaryNumber,
  kDownNumber,
  kUpNumber,
  kBothNumber,
  kFailsNumber,
  kTellNumber,
  kDriverNumber,
  kClassifyNumber
};

// The worker's end of the link.
class HarnessWorker {
 public:
  virtual ~HarnessWorker() = default;
  // Its turn: takes what there is, and answers as it likes.
  virtual void Step() = 0;
  // Whether it keeps to the link's rules: then the gateway must never say otherwise.
  virtual bool good() const = 0;
};

// What lies between the gateway and a client, instead of sockets.
struct Pipe {
  std::string to_gateway;
  bool ended = false;  // the client has closed
  std::string to_client;
  size_t room = 0;  // bytes that the client's socket still takes
  std::function<void()> readable, writable;
};

class GatewayHarness {
 public:
  GatewayHarness();
  ~GatewayHarness();

  // The worker that answers, at the other end of `lane`. One at a time.
  void Attach(std::unique_ptr<link::Lane> lane, std::unique_ptr<HarnessWorker> worker);
  // It has died: what it holds is lost.
  void RemoveWorker();
  bool has_worker() const { return worker_end_ != nullptr; }
  link::GatewayPort& port() { return *port_; }

  // A client connects; `internal`: it is one of the server's own workers.
  void Connect(bool internal);
  bool connected() const { return connection_ != nullptr; }
  gateway::Http2Connection* connection() { return connection_.get(); }
  Pipe& pipe() { return *pipe_; }
  void Advance(Duration by) { context_.now += by; }
  gateway::Health& health() { return health_; }

  // A round of the event loop; the worker has its turn in it. False: there was nothing to do.
  bool Round();
  // The client goes. From then on nothing of it may be left.
  void HangUp();

 private:
  void FlushConnection();
  bool MoveOn();

  net::EventLoop loop_;  // needed, never run: nothing here waits
  gateway::Admission admission_;
  gateway::Admission mirrored_;
  gateway::ChildCalls children_;
  std::unique_ptr<link::GatewayPort> port_;
  gateway::RequestMemory memory_;
  gateway::ThreadContext context_;
  gateway::WorkerCalls calls_;
  gateway::Router router_;
  gateway::Traffic traffic_;
  gateway::Mirrors mirrors_;
  std::shared_ptr<const gateway::Served> served_;
  gateway::Health health_;
  std::unique_ptr<gateway::UserCalls> user_calls_;
  std::shared_ptr<gateway::VersionState> version_;
  std::shared_ptr<gateway::WorkerEnd> worker_end_;
  std::unique_ptr<HarnessWorker> worker_;
  Status fault_;  // of the worker
  std::shared_ptr<Pipe> pipe_;
  std::unique_ptr<gateway::Http2Connection> connection_;
};

// A harness with a worker that answers as it should, which the gateway must never find faulty.
std::unique_ptr<GatewayHarness> NewHarnessWithGoodWorker();

// A FileDescriptorSet of t.Users.
std::string HarnessDescriptors();

}  // namespace mindserve::fuzz
