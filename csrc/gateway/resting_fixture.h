// Connections of a thread whose clock the test turns, to services that hold on to what clients send, for tests of what
// clients hold while they rest, or are slow, and others lack it.
#pragma once

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/log.h"
#include "gateway/admit.h"
#include "gateway/http2_connection.h"
#include "gateway/test_client.h"
#include "link/lane.h"
#include "net/event_loop.h"

namespace mindserve::gateway {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

inline constexpr const char* kDown = "/t.Rests/Down";
inline constexpr const char* kUp = "/t.Rests/Up";
inline constexpr const char* kBoth = "/t.Rests/Both";
inline constexpr const char* kUnary = "/t.Rests/Unary";
inline constexpr const char* kAsk = "/t.Rests/Ask";  // up, and takes all at once, as reflection does
inline constexpr size_t kMostBytes = 128 << 10;      // fits into a socket

// The server's end of a pair of sockets. Whoever has it says when to look.
class PairTransport final : public net::Transport {
 public:
  explicit PairTransport(UniqueFd socket) : socket_(std::move(socket)) {}
  void Start(std::function<void(Status)> done) override { done(Status::Ok()); }
  net::IoResult Read(std::span<std::byte> into) override {
    return Done(::recv(socket_.get(), into.data(), into.size(), MSG_DONTWAIT));
  }
  net::IoResult Write(std::span<const iovec> parts) override {
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(parts.data());
    message.msg_iovlen = parts.size();
    return Done(::sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL));
  }
  void AwaitReadable(std::function<void()> handler) override { readable_ = std::move(handler); }
  void AwaitWritable(std::function<void()> handler) override { writable_ = std::move(handler); }
  void Shutdown() override { ::shutdown(socket_.get(), SHUT_WR); }
  const net::Peer& peer() const override { return peer_; }
  const net::AuthProperties& auth() override { return auth_; }

  void SetSendBuffer(int bytes) { ::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)); }
  void Look() {
    if (auto handler = std::exchange(readable_, nullptr)) handler();
    if (auto handler = std::exchange(writable_, nullptr)) handler();
  }

 private:
  static net::IoResult Done(ssize_t n) {
    if (n > 0) return {.kind = net::IoResult::Kind::kDone, .bytes = static_cast<size_t>(n), .error = {}};
    const bool again = n < 0 && errno == EAGAIN;
    return {.kind = again ? net::IoResult::Kind::kAgain : net::IoResult::Kind::kEof, .bytes = 0, .error = {}};
  }

  const UniqueFd socket_;
  std::function<void()> readable_, writable_;
  const net::Peer peer_{.address = "ipv4:127.0.0.1:4711", .tls = false, .subject = {}};
  const net::AuthProperties auth_;
};

class RestingTest : public testing::Test {
 protected:
  // A call is admitted when it begins, and ends when the test says so.
  class Handler final : public CallHandler {
   public:
    Handler(RestingTest& test, Call& call, bool stream) : test_(test), call_(call) {
      const auto refused =
          Admit(test.admission_, test.of_servable_, "s", 0, {.client = call.client(), .streams = stream},
                test.context_.now, test.context_.stats, &admitted_);
      if (refused) {
        call_.Finish(std::move(refused->status), std::move(refused->trailing));
      } else {
        test_.handlers_.push_back(this);
      }
    }
    ~Handler() override { std::erase(test_.handlers_, this); }
    void OnMessage(Message message) override { messages_.push_back(std::move(message)); }
    void OnHalfClose() override {}
    void OnCancel() override { admitted_.Release(); }

    void Send(std::string text) {
      Reply reply;
      reply.emplace_back(std::move(text));
      call_.Send(std::move(reply));
    }
    void Finish() {
      admitted_.Release();
      call_.Finish(Status::Ok());
    }
    // As when the worker has read a message.
    void Take() {
      messages_.erase(messages_.begin());
      call_.MessageTaken();
    }
    // As when it then waits for the next.
    void Want(uint32_t taken) { call_.MessageWanted(taken); }
    // As when an answer waits at the worker for what the client has not taken of others.
    void WaitForShare() { call_.AnswerWaits(); }
    const std::vector<Message>& messages() const { return messages_; }

   private:
    RestingTest& test_;
    Call& call_;
    Admitted admitted_;
    std::vector<Message> messages_;
  };

  class Rests final : public Service {
   public:
    Rests(RestingTest& test, const char* path, bool up, bool down, bool holds)
        : Service(test.context_.stats.Of({.path = path})), test_(test), up_(up), down_(down), holds_(holds) {}
    bool client_streaming() const override { return up_; }
    bool server_streaming() const override { return down_; }
    bool counts_as_request() const override { return true; }
    bool holds_messages() const override { return holds_; }
    bool answers_are_enqueued() const override { return !holds_ && up_; }
    std::unique_ptr<CallHandler> Start(Call& call) override {
      return std::make_unique<Handler>(test_, call, up_ || down_);
    }

   private:
    RestingTest& test_;
    const bool up_, down_, holds_;
  };

  // One that reads no more than its window is given.
  struct Client {
    PairTransport* transport;
    std::unique_ptr<Http2Connection> connection;
    std::unique_ptr<TestClient> end;
    TestClient* operator->() const { return end.get(); }
  };

  RestingTest() {
    SetLogSink([this](LogLevel, std::string_view line) { log_.emplace_back(line); });
    admission_.SetMaxRequests(3);
    admission_.SetMaxBytes(kMostBytes);
    of_servable_.SetMaxRequests(0);
    of_servable_.SetMaxBytes(0);
    context_.now = TimePoint(hours(1));
    context_.http2 = std::make_shared<const Http2Settings>();
    const auto serve = [&](const char* path, bool up, bool down, bool holds) {
      context_.services[path] = std::make_unique<Rests>(*this, path, up, down, holds);
    };
    serve(kUnary, false, false, false);
    serve(kDown, false, true, false);
    serve(kUp, true, false, true);
    serve(kBoth, true, true, true);
    serve(kAsk, true, false, false);
  }
  ~RestingTest() override {
    clients_.clear();
    context_.spare_streams.clear();
    EXPECT_EQ(admission_.requests(), 0u);
    EXPECT_EQ(admission_.bytes(), 0u);
    SetLogSink(nullptr);
  }

  Client& Connect(uint32_t window = 1 << 20, bool internal = false) {
    int pair[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    auto transport = std::make_unique<PairTransport>(UniqueFd(pair[0]));
    Client client{.transport = transport.get(), .connection = nullptr, .end = nullptr};
    client.connection = std::make_unique<Http2Connection>(context_, std::move(transport), internal);
    client.connection->Start();
    client.end = std::make_unique<TestClient>(UniqueFd(pair[1]), window, /*reads_slowly=*/true);
    clients_.push_back(std::make_unique<Client>(std::move(client)));
    return *clients_.back();
  }

  void Round() {
    for (const auto& client : clients_) client->transport->Look();
    context_.timers.RunDue(context_.now);
    while (!context_.dirty.empty()) {
      for (Http2Connection* connection : std::exchange(context_.dirty, {})) connection->Flush();
    }
  }
  // All that was sent either way has come.
  void Sync() {
    for (const auto& client : clients_) {
      const int acked = (*client)->pings_acked();
      (*client)->Ping();
      EXPECT_TRUE((*client)->RunUntil([&] {
        Round();
        return (*client)->pings_acked() > acked;
      }));
    }
  }
  // In steps that are shorter than any timeout.
  void Pass(Clock::duration time) {
    for (const TimePoint end = context_.now + time; context_.now < end;) {
      context_.now = std::min(end, context_.now + kStep);
      Sync();
    }
  }
  // Begins a call, and has it come.
  int32_t Begin(Client& client, const char* path, bool ends = true) {
    const int32_t call = client->Start(path, ends ? Framed("m") : "", ends);
    Sync();
    return call;
  }
  // Somebody asks for a place: the code of the answer, or -1, if it is let in; it leaves then.
  int Ask(Client& client) {
    const size_t before = handlers_.size();
    const int32_t call = Begin(client, kUnary);
    if (handlers_.size() > before) {
      handlers_.back()->Send("answer");
      handlers_.back()->Finish();
    }
    Sync();
    EXPECT_TRUE(client->response(call).closed);
    return client->response(call).grpc_status();
  }
  bool LetsIn(Client& client) { return Ask(client) == 0; }
  uint64_t Refused(Refusal by) const { return context_.stats.refused[static_cast<size_t>(by)]; }
  int Logged(std::string_view text) const {
    return static_cast<int>(
        std::ranges::count_if(log_, [&](const std::string& line) { return line.find(text) != std::string::npos; }));
  }

  static constexpr auto kStep = milliseconds(2500);
  static constexpr auto kTimeout = Limits().body_idle_timeout;
  static constexpr const char* kReset =
      "a call of ipv4:127.0.0.1:4711 reset: its reply was not taken within body_idle_timeout 30000 ms, while others "
      "lacked max_enqueued_requests";

  std::vector<std::string> log_;
  net::EventLoop loop_;
  Admission admission_;
  Admission of_servable_;
  ChildCalls children_;
  std::unique_ptr<link::GatewayPort> port_ = *link::GatewayPort::Create(64 << 20);
  RequestMemory memory_{port_->arena(), admission_};
  ThreadContext context_{0, loop_, memory_, children_};
  std::vector<Handler*> handlers_;
  std::vector<std::unique_ptr<Client>> clients_;
};

}  // namespace mindserve::gateway
