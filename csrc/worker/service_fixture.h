// A runtime with handlers behind a real link, of which the test holds the gateway's end.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstring>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "link/lane.h"
#include "wire/call_head.h"
#include "worker/runtime.h"
#include "worker/service_call.h"

namespace mindserve::worker {

using CallPointer = std::shared_ptr<ServiceCall>;

// The handlers' numbers. On the link they come after the engine's methods, of which there are none unless a test adds
// some.
inline constexpr uint16_t kUnary = 0;
inline constexpr uint16_t kServerStreaming = 1;
inline constexpr uint16_t kClientStreaming = 2;
inline constexpr uint16_t kBothWays = 3;
inline constexpr uint16_t kLoopUnary = 4;
inline constexpr uint16_t kLoopBothWays = 5;

inline constexpr std::chrono::milliseconds kPatience{30'000};

// Waits for what other threads do.
template <typename Condition>
bool Eventually(Condition condition) {
  const auto until = std::chrono::steady_clock::now() + kPatience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= until) return false;
    ::poll(nullptr, 0, 1);
  }
  return true;
}

class ServiceFixture : public testing::Test {
 protected:
  struct Answer {
    link::WorkerFrame frame;
    std::string text;
  };

  void Start(size_t arena = size_t{4} << 20) {
    runtime_ = std::make_unique<Runtime>(*clock_, RuntimeOptions{.reply_arena_bytes = arena});
    if (before_serving_) before_serving_(runtime_->engine());
    first_handler_ = static_cast<uint16_t>(runtime_->engine().methods());
    Handlers& handlers = runtime_->handlers();
    handlers.Add({.path = "/t.T/Unary"});
    handlers.Add({.path = "/t.T/ServerStreaming", .server_streaming = true});
    handlers.Add({.path = "/t.T/ClientStreaming", .client_streaming = true});
    handlers.Add({.path = "/t.T/BothWays", .client_streaming = true, .server_streaming = true});
    handlers.Add({.path = "/t.T/LoopUnary", .on_loop = true});
    handlers.Add({.path = "/t.T/LoopBothWays", .client_streaming = true, .server_streaming = true, .on_loop = true});
    int fds[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    socket_.reset(fds[0]);
    served_ = std::async(std::launch::async, [this, fd = fds[1]] { return runtime_->Serve(UniqueFd(fd), kPatience); });
    auto port = link::GatewayPort::Create(size_t{64} << 20);
    ASSERT_TRUE(port.ok());
    port_ = *std::move(port);
    link::GatewayPort* ports[] = {port_.get()};
    auto shaken = link::GatewayHandshake::Run(socket_.get(), ports, kPatience);
    ASSERT_TRUE(shaken.ok()) << shaken.status().ToString();
    lane_ = std::move(shaken->lanes[0]);
    stats_ = std::move(shaken->stats);
  }

  void TearDown() override {
    if (runtime_) runtime_->Stop();
    for (std::thread& thread : threads_) thread.join();
    if (served_.valid()) served_.wait();
  }

  // A handler thread that does `handle` with each call; one that is parked comes again.
  void Run(const std::function<void(const CallPointer&)>& handle) {
    threads_.emplace_back([this, handle] {
      Handlers& handlers = runtime_->handlers();
      for (;;) {
        if (const CallPointer call = handlers.TryTake()) {
          handle(call);
          call->Park();
        } else if (!handlers.Await()) {
          return;
        } else {
          handlers.Stay(Duration::zero());
        }
      }
    });
  }

  // The gateway's end. What is sent is seen after Flush.
  link::Slab Lay(std::string_view bytes) {
    const auto slab = port_->arena().Allocate(bytes.size());
    EXPECT_TRUE(slab);
    if (!bytes.empty()) std::memcpy(slab->bytes.data(), bytes.data(), bytes.size());
    return *slab;
  }

  void Open(uint64_t call, uint16_t method, const wire::CallHead& head = {}) {
    const std::string bytes = wire::WriteCallHead(head);
    const link::Slab slab = Lay(bytes);
    link::Lane::Open open;
    open.call = call;
    open.method = static_cast<uint16_t>(first_handler_ + method);
    open.client = client_;
    open.offset = slab.offset;
    open.length = bytes.size();
    open.ends = false;
    open.deadline_ns = deadline_ns_;
    lane_->SendOpen(open);
  }

  void Message(uint64_t call, std::string_view bytes, bool ends) {
    const link::Slab slab = Lay(bytes);
    lane_->SendMessage(call, bytes.empty() ? 0 : slab.offset, bytes.size(), ends);
  }

  void OpenUnary(uint64_t call, uint16_t method, std::string_view request) {
    Open(call, method);
    Message(call, request, true);
    lane_->Flush();
  }

  // The next frame of the worker. Memory of answers is given back at once, with credit unless the test keeps that.
  Answer Receive() {
    Answer answer;
    if (!Wait([&] { return lane_->Receive(&answer.frame); })) {
      ADD_FAILURE() << "the worker does not answer";
      return answer;
    }
    answer.text.assign(reinterpret_cast<const char*>(answer.frame.payload.data()), answer.frame.payload.size());
    if (keeps_replies_) {
      kept_.push_back(answer.frame);
    } else {
      GiveBack(answer.frame);
      lane_->Flush();
    }
    return answer;
  }

  void GiveBack(const link::WorkerFrame& frame) {
    if (frame.type == link::FrameType::kReply) {
      lane_->ReleaseReply(frame.payload, frame.call);
    } else {
      lane_->ReleaseReply(frame.payload);
    }
  }

  void GiveBackKept(size_t count) {
    for (size_t i = 0; i < count && !kept_.empty(); ++i) {
      GiveBack(kept_.front());
      kept_.erase(kept_.begin());
    }
    lane_->Flush();
  }

  // Whether the worker says something within so long.
  bool Hears(std::chrono::milliseconds within) {
    return Wait([&] { return lane_->HasWork(); }, within);
  }

  template <typename Condition>
  bool Wait(Condition condition, std::chrono::milliseconds within = kPatience) {
    const auto until = std::chrono::steady_clock::now() + within;
    while (!condition()) {
      EXPECT_FALSE(lane_->broken()) << lane_->fault().ToString();
      if (lane_->broken() || std::chrono::steady_clock::now() >= until) return false;
      port_->Asleep();
      if (!lane_->HasWork()) {
        pollfd bell{port_->bell_fd(), POLLIN, 0};
        ::poll(&bell, 1, static_cast<int>(std::min(within, std::chrono::milliseconds(1000)).count()));
      }
      port_->Awake();
      port_->EmptyBell();
    }
    return true;
  }

  // A message of the client's, as a handler reads it.
  static std::string ReadNow(ServiceCall& call) {
    std::string text;
    const auto reading = call.Read([&](std::span<const std::byte> bytes) {
      text.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    });
    switch (reading) {
      case ServiceCall::Reading::kMessage:
        return text;
      case ServiceCall::Reading::kHalfClosed:
        return "<half-closed>";
      case ServiceCall::Reading::kNotYet:
        return "<not yet>";
      case ServiceCall::Reading::kGone:
        return "<gone>";
    }
    return "";
  }

  static std::string ReadBlocking(ServiceCall& call) {
    std::string text = ReadNow(call);
    while (text == "<not yet>") {
      call.AwaitReadable();
      text = ReadNow(call);
    }
    return text;
  }

  SystemTime time_;
  FakeTime fake_time_;
  const TimeSource* clock_ = &time_;  // the runtime's
  std::unique_ptr<Runtime> runtime_;
  UniqueFd socket_;
  std::future<Status> served_;
  std::vector<std::thread> threads_;
  std::unique_ptr<link::GatewayPort> port_;
  std::unique_ptr<link::Lane> lane_;
  std::optional<link::StatsReader> stats_;
  int64_t deadline_ns_ = INT64_MAX;                        // of calls that are opened
  uint64_t client_ = 7;                                    // whose the calls are that are opened
  std::function<void(pipeline::Engine&)> before_serving_;  // adds to what is served
  uint16_t first_handler_ = 0;                             // on the link
  bool keeps_replies_ = false;
  std::vector<link::WorkerFrame> kept_;
};

}  // namespace mindserve::worker
