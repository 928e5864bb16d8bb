// What clients hold while they rest, or are slow, and others lack it: connections of a thread whose clock the test
// turns.
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
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

constexpr const char* kDown = "/t.Rests/Down";
constexpr const char* kUp = "/t.Rests/Up";
constexpr const char* kBoth = "/t.Rests/Both";
constexpr const char* kUnary = "/t.Rests/Unary";
constexpr const char* kAsk = "/t.Rests/Ask";  // up, and takes all at once, as reflection does
constexpr size_t kMostBytes = 128 << 10;      // fits into a socket

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
          Admit(test.admission_, test.of_servable_, "s", 0, stream, test.context_.now, test.context_.stats, &admitted_);
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

// --- Places. ---

class ReadersTest : public RestingTest {
 protected:
  // As many streams as there may be, each with an answer that nobody takes.
  std::vector<int32_t> Fill(Client& client) {
    std::vector<int32_t> calls;
    for (size_t i = 0; i < admission_.max_requests(); ++i) {
      calls.push_back(Begin(client, kDown));
      handlers_.back()->Send(std::string(100, 'x'));
    }
    Sync();
    return calls;
  }
};

TEST_F(ReadersTest, WhoRestsMakesRoomForThoseWhoAreRefused) {
  Client& resting = Connect(0);
  Client& other = Connect();
  const auto calls = Fill(resting);
  EXPECT_EQ(Ask(other), static_cast<int>(Code::kResourceExhausted));
  Pass(kTimeout - kStep);
  EXPECT_FALSE(LetsIn(other));
  Pass(kStep + kTimeout / 4);
  EXPECT_TRUE(LetsIn(other));
  for (const int32_t call : calls) {
    EXPECT_TRUE(resting->response(call).closed);
    EXPECT_EQ(resting->response(call).error, static_cast<uint32_t>(NGHTTP2_CANCEL));
  }
  EXPECT_EQ(Logged(kReset), 3);
  EXPECT_EQ(Refused(Refusal::kMaxEnqueuedRequests), 2u + 3u);
}

TEST_F(ReadersTest, WhoHasRestedForLongDoesSoAtOnce) {
  Client& resting = Connect(0);
  Client& other = Connect();
  Fill(resting);
  Pass(hours(1));
  EXPECT_FALSE(LetsIn(other));
  Pass(kTimeout / 4);
  EXPECT_TRUE(LetsIn(other));
}

TEST_F(ReadersTest, WhereNobodyIsRefusedTheyMayRest) {
  Client& resting = Connect(0);
  const auto calls = Fill(resting);
  Pass(hours(3));
  for (const int32_t call : calls) EXPECT_FALSE(resting->response(call).closed);
  EXPECT_EQ(Logged("reset"), 0);
}

TEST_F(ReadersTest, SomebodyWhoWasRefusedLongAgoLacksNothing) {
  Client& resting = Connect(0);
  Client& other = Connect();
  std::vector<int32_t> calls;
  for (int i = 0; i < 3; ++i) calls.push_back(Begin(resting, kDown));
  EXPECT_FALSE(LetsIn(other));
  Pass(kStep);
  for (Handler* handler : handlers_) handler->Send(std::string(100, 'x'));
  Pass(hours(1));
  for (const int32_t call : calls) EXPECT_FALSE(resting->response(call).closed);
}

TEST_F(ReadersTest, WhoTakesSomethingNowAndThenIsNotEnded) {
  Client& reader = Connect(10);
  Client& other = Connect();
  const auto calls = Fill(reader);
  for (int i = 0; i < 5; ++i) {
    Pass(kTimeout - 2 * kStep);
    EXPECT_FALSE(LetsIn(other));
    for (const int32_t call : calls) reader->Consume(call, 10);
    Sync();
  }
  for (const int32_t call : calls) EXPECT_FALSE(reader->response(call).closed);
  EXPECT_EQ(Logged("reset"), 0);
}

TEST_F(ReadersTest, AHandlerThatTakesItsTimeIsNoReaderThatRests) {
  Client& patient = Connect();
  Client& other = Connect();
  const int32_t down = Begin(patient, kDown);
  const int32_t unary = Begin(patient, kUnary);
  // It has sent its message, and waits.
  const int32_t both = Begin(patient, kBoth, false);
  patient->Send(both, Framed("m"), false);
  Sync();
  handlers_.back()->Take();
  for (int i = 0; i < 40; ++i) {
    Pass(kTimeout / 4);
    EXPECT_FALSE(LetsIn(other));
  }
  for (const int32_t call : {down, unary, both}) EXPECT_FALSE(patient->response(call).closed);
}

TEST_F(ReadersTest, AHandlerThatWaitsForMoreMakesItTheClientsTurn) {
  Client& resting = Connect();
  Client& other = Connect();
  std::vector<int32_t> calls;
  for (int i = 0; i < 3; ++i) {
    calls.push_back(Begin(resting, kBoth, false));
    resting->Send(calls.back(), Framed("a") + Framed("b"), false);
    Sync();
    handlers_.back()->Take();
    // By then the second is on its way to it.
    handlers_.back()->Want(1);
    handlers_.back()->Take();
  }
  for (int i = 0; i < 10; ++i) {
    Pass(kTimeout / 4);
    EXPECT_FALSE(LetsIn(other));
  }
  Handler& computes = *handlers_[0];
  handlers_[1]->Want(2);
  handlers_[2]->Want(2);
  Pass(kTimeout / 2);
  EXPECT_FALSE(LetsIn(other)) << "from now on they rest";
  handlers_[2]->Send("an answer");
  Pass(kTimeout / 2);
  EXPECT_TRUE(LetsIn(other));
  EXPECT_FALSE(resting->response(calls[0]).closed);
  EXPECT_EQ(resting->response(calls[1]).grpc_status(), static_cast<int>(Code::kResourceExhausted));
  EXPECT_FALSE(resting->response(calls[2]).closed) << "it has rested for half as long";
  computes.Send("an answer at last");
  Sync();
  EXPECT_FALSE(resting->response(calls[0]).closed);
}

TEST_F(ReadersTest, WhoComesBackWithNewStreamsLeavesRoomForCallsThatEnd) {
  Client& resting = Connect();
  Client& other = Connect();
  // Each is opened again as soon as it has ended.
  std::vector<int32_t> calls(3, -1);
  const auto open_again = [&] {
    for (int32_t& call : calls) {
      if (call < 0 || resting->response(call).closed) call = Begin(resting, kUp, false);
    }
  };
  open_again();
  EXPECT_FALSE(LetsIn(other));
  Pass(kTimeout);
  open_again();
  int refused = 0;
  for (int i = 0; i < 60; ++i) {
    if (!LetsIn(other)) ++refused;
    Pass(kTimeout / 10);
    open_again();
  }
  EXPECT_LE(refused, 12) << "once in a while, for as long as it takes until they have rested";
  const auto open =
      static_cast<size_t>(std::ranges::count_if(calls, [&](int32_t call) { return !resting->response(call).closed; }));
  EXPECT_GE(open, 1u);
  // In the end they have all places again.
  for (const int32_t call : calls) resting->Reset(call);
  Sync();
  Pass(std::chrono::minutes(2));
  for (int32_t& call : calls) call = Begin(resting, kUp, false);
  EXPECT_FALSE(LetsIn(other));
}

TEST_F(ReadersTest, AnswersThatHaveEndedHoldNoPlace) {
  Client& resting = Connect(0);
  Client& other = Connect();
  const auto calls = Fill(resting);
  handlers_.front()->Finish();
  EXPECT_TRUE(LetsIn(other));
  const int32_t again = Begin(resting, kDown);
  EXPECT_FALSE(LetsIn(other));
  Pass(kTimeout);
  EXPECT_TRUE(LetsIn(other));
  EXPECT_FALSE(resting->response(calls[0]).closed);
  EXPECT_TRUE(resting->response(calls[1]).closed);
  EXPECT_TRUE(resting->response(calls[2]).closed);
  EXPECT_FALSE(resting->response(again).closed);
}

TEST_F(ReadersTest, WorkersOfTheServerMayRest) {
  Client& worker = Connect(0, /*internal=*/true);
  Client& other = Connect();
  const auto calls = Fill(worker);
  for (int i = 0; i < 20; ++i) {
    Pass(kTimeout / 4);
    EXPECT_FALSE(LetsIn(other));
  }
  for (const int32_t call : calls) EXPECT_FALSE(worker->response(call).closed);
}

class SendersTest : public ReadersTest, public testing::WithParamInterface<const char*> {};

TEST_P(SendersTest, WhoSendsNothingMakesRoomForThoseWhoAreRefused) {
  Client& resting = Connect();
  Client& other = Connect();
  std::vector<int32_t> calls;
  for (int i = 0; i < 3; ++i) calls.push_back(Begin(resting, GetParam(), false));
  // One was answered, one has sent nothing yet, and one goes on.
  resting->Send(calls[0], Framed("m"), false);
  Sync();
  handlers_[0]->Take();
  if (GetParam() == kBoth) handlers_[0]->Send("answer");
  for (int i = 0; i < 6; ++i) {
    Pass(kTimeout / 4);
    EXPECT_EQ(LetsIn(other), i > 2);
    if (resting->response(calls[2]).closed) break;
    resting->Send(calls[2], Framed("m"), false);
    Sync();
    handlers_.back()->Take();
  }
  for (const int32_t call : {calls[0], calls[1]}) {
    EXPECT_EQ(resting->response(call).grpc_status(), static_cast<int>(Code::kResourceExhausted));
    EXPECT_EQ(resting->response(call).grpc_message(),
              "no message came within body_idle_timeout 30000 ms, while others lacked max_enqueued_requests");
  }
  EXPECT_FALSE(resting->response(calls[2]).closed);
  EXPECT_EQ(Logged("no message came within body_idle_timeout 30000 ms"), 2);
}

TEST_P(SendersTest, WhereNobodyIsRefusedTheyMayRest) {
  Client& resting = Connect();
  std::vector<int32_t> calls;
  for (int i = 0; i < 3; ++i) calls.push_back(Begin(resting, GetParam(), false));
  Pass(hours(3));
  for (const int32_t call : calls) EXPECT_FALSE(resting->response(call).closed);
}

TEST_P(SendersTest, ThoseWhoseMessagesAreNotReadDoNotRest) {
  Client& patient = Connect();
  Client& other = Connect();
  std::vector<int32_t> calls;
  for (int i = 0; i < 3; ++i) {
    calls.push_back(Begin(patient, GetParam(), false));
    patient->Send(calls.back(), Framed("m"), false);
    Sync();
  }
  for (int i = 0; i < 20; ++i) {
    Pass(kTimeout / 4);
    EXPECT_FALSE(LetsIn(other));
  }
  for (const int32_t call : calls) EXPECT_FALSE(patient->response(call).closed);
  // From when they are, it is their turn.
  for (Handler* handler : handlers_) {
    handler->Take();
    if (GetParam() == kBoth) handler->Send("answer");
  }
  Pass(kTimeout - kStep);
  EXPECT_FALSE(LetsIn(other));
  Pass(kStep + kTimeout / 4);
  EXPECT_TRUE(LetsIn(other));
}

INSTANTIATE_TEST_SUITE_P(, SendersTest, testing::Values(kUp, kBoth));

// --- Bytes. ---

class SlowMessagesTest : public RestingTest {
 protected:
  static constexpr size_t kClaimed = kMostBytes / 8 - 1024;

  SlowMessagesTest() {
    admission_.SetMaxRequests(100);
    context_.limits.max_msg_mb_size = 1;
    context_.limits.min_bytes_per_second = 64;
  }
  // Connections whose messages take nearly all that there is, of which next to nothing has come.
  void Claim() {
    for (int i = 0; i < 4; ++i) {
      Client& client = Connect();
      for (int j = 0; j < 2; ++j) {
        slow_.emplace_back(&client, client->Start(kUp, Framed(std::string(kClaimed, 'x')).substr(0, 10), false));
      }
    }
    Sync();
  }
  // Each gets on, a little faster than it must, for so long.
  void Drip(Clock::duration time) {
    const auto rate = context_.limits.min_bytes_per_second * 11 / 10;
    for (const TimePoint end = context_.now + time; context_.now < end;) {
      for (const auto& [client, call] : slow_) {
        if (!(*client)->response(call).closed) {
          (*client)->Send(call, std::string(rate * kStep.count() / 1000, 'x'), false);
        }
      }
      Pass(kStep);
    }
  }
  // The code of the answer to a large message.
  int Large(Client& client) {
    const size_t before = handlers_.size();
    const int32_t call = client->Start(kUnary, Framed(std::string(kMostBytes / 2, 'y')), true);
    Sync();
    if (!client->response(call).closed) {
      EXPECT_EQ(handlers_.size(), before + 1);
      handlers_.back()->Send("answer");
      handlers_.back()->Finish();
      Sync();
    }
    return client->response(call).grpc_status();
  }

  std::vector<std::pair<Client*, int32_t>> slow_;
};

TEST_F(SlowMessagesTest, MakeRoomForThoseWhoAreRefused) {
  Client& other = Connect();
  Claim();
  EXPECT_EQ(Large(other), static_cast<int>(Code::kResourceExhausted));
  Drip(kTimeout - kStep);
  EXPECT_EQ(Large(other), static_cast<int>(Code::kResourceExhausted));
  Drip(kStep + kTimeout / 4);
  EXPECT_EQ(Large(other), 0);
  for (const auto& [client, call] : slow_) {
    EXPECT_EQ((*client)->response(call).grpc_status(), static_cast<int>(Code::kResourceExhausted));
    EXPECT_EQ((*client)->response(call).grpc_message(),
              "the message did not come whole within body_idle_timeout 30000 ms, while others lacked "
              "max_enqueued_bytes");
    EXPECT_TRUE((*client)->response(call).trailers.contains("grpc-retry-pushback-ms"));
  }
  EXPECT_EQ(admission_.bytes(), 0u);
}

TEST_F(SlowMessagesTest, WhoClaimsAgainLeavesRoomForWhatComesWhole) {
  Client& other = Connect();
  const std::string small = Framed(std::string(1000, 's'));
  const auto refused = [&] {
    const int32_t call = other->Start(kUnary, small, true);
    Sync();
    if (other->response(call).closed) return true;
    handlers_.back()->Finish();
    Sync();
    return false;
  };
  const auto claim_again = [&] {
    const auto open = [](const auto& each) { return !(*each.first)->response(each.second).closed; };
    if (!slow_.empty() && open(slow_.front())) return;
    slow_.clear();
    Claim();
    // What is left takes small ones, which claim as well.
    for (const auto& [client, call] : std::vector(slow_)) (*client)->Start(kUp, small.substr(0, 10), false);
    Sync();
  };
  int count = 0;
  for (int i = 0; i < 60; ++i) {
    // Nothing of it comes, so that it is over after the same time, be others refused or not.
    claim_again();
    if (refused()) ++count;
    Pass(kTimeout / 10);
  }
  EXPECT_GE(count, 5);
  EXPECT_LE(count, 11) << "not after the first time";
}

TEST_F(SlowMessagesTest, MayGoOnWhereNobodyIsRefused) {
  Claim();
  Drip(3 * kTimeout);
  for (const auto& [client, call] : slow_) EXPECT_FALSE((*client)->response(call).closed);
  EXPECT_GT(admission_.bytes(), 0u);
}

TEST_F(SlowMessagesTest, AreTimedEachFromItsBegin) {
  Client& other = Connect();
  Claim();
  // One after the other, each begun in the same piece that ends the last.
  Client& steady = Connect();
  const std::string message = Framed(std::string(500, 'm'));
  const std::vector<int32_t> calls = {steady->Start(kUp, message.substr(0, 300), false),
                                      steady->Start(kAsk, message.substr(0, 300), false)};
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(Large(other) == 0, i > 3);
    for (const int32_t call : calls) {
      for (int j = 0; j < 3; ++j) steady->Send(call, message.substr(300) + message.substr(0, 300), false);
    }
    Drip(kTimeout / 4);
    for (Handler* handler : handlers_) {
      while (!handler->messages().empty()) handler->Take();
    }
  }
  for (const int32_t call : calls) EXPECT_FALSE(steady->response(call).closed);
}

TEST_F(SlowMessagesTest, AreNotEndedForThoseWhoNeverFitIn) {
  Client& other = Connect();
  Claim();
  context_.limits.max_msg_mb_size = 512;
  for (int i = 0; i < 10; ++i) {
    const int32_t call = other->Start(kUnary, Framed(std::string(kMostBytes + 1, 'y')), true);
    Sync();
    EXPECT_THAT(other->response(call).grpc_message(), HasSubstr("max_enqueued_bytes"));
    Drip(kTimeout / 4);
  }
  for (const auto& [client, call] : slow_) EXPECT_FALSE((*client)->response(call).closed);
}

// What its request holds is held by the reader of its answers, too.
TEST_F(SlowMessagesTest, ReadersThatRestMakeRoomForBytesToo) {
  Client& resting = Connect(0);
  Client& other = Connect();
  const int32_t call = resting->Start(kDown, Framed(std::string(kMostBytes * 3 / 4, 'x')), true);
  Sync();
  handlers_.back()->Send("answer");
  Pass(2 * kTimeout);
  EXPECT_FALSE(resting->response(call).closed);
  EXPECT_EQ(Large(other), static_cast<int>(Code::kResourceExhausted));
  Pass(kTimeout / 4);
  EXPECT_EQ(resting->response(call).error, static_cast<uint32_t>(NGHTTP2_CANCEL));
  EXPECT_EQ(Logged("its reply was not taken within body_idle_timeout 30000 ms, while others lacked max_enqueued_bytes"),
            1);
  EXPECT_EQ(Large(other), 0);
}

// Of a service whose answers count, as those of reflection do.
TEST_F(SlowMessagesTest, AnswersThatAreTakenSlowlyMakeRoomToo) {
  Client& slow = Connect(200);
  Client& other = Connect();
  const int32_t call = Begin(slow, kAsk, false);
  BytesTicket answers(admission_);
  ASSERT_TRUE(answers.GrowTo(kMostBytes * 3 / 4));
  handlers_.back()->Send(std::string(kMostBytes * 3 / 4, 'x'));
  Sync();
  const auto read = [&](Clock::duration time) {
    for (const TimePoint end = context_.now + time; context_.now < end;) {
      slow->Consume(call, 200);
      Pass(kStep);
    }
  };
  read(2 * kTimeout);
  EXPECT_FALSE(slow->response(call).closed);
  EXPECT_EQ(Large(other), static_cast<int>(Code::kResourceExhausted));
  read(kTimeout / 4);
  EXPECT_EQ(slow->response(call).error, static_cast<uint32_t>(NGHTTP2_CANCEL));
  EXPECT_EQ(Logged("its replies were not all taken within body_idle_timeout 30000 ms, while others lacked"), 1);
}

}  // namespace
}  // namespace mindserve::gateway
