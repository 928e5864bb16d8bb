// Calls from inside the process.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <map>
#include <thread>

#include "gateway/direct_calls.h"
#include "gateway/direct_thread.h"
#include "gateway/test_worker.h"
#include "gateway/user_fixture.h"

namespace mindserve::gateway {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;
using testing::StartsWith;

HeldBytes Held(std::string bytes) {
  auto text = std::make_shared<const std::string>(std::move(bytes));
  return {.bytes = std::as_bytes(std::span(*text)), .holder = text};
}

// A DirectCalls, and what its calls were told.
class Caller {
 public:
  struct Call {
    Metadata initial;
    std::vector<std::string> messages;
    int ends = 0;
    Status status;
    Metadata trailing;
  };

  explicit Caller(Gateway& gateway) {
    auto calls = gateway.NewDirectCalls();
    EXPECT_TRUE(calls.ok()) << calls.status().ToString();
    calls_ = *std::move(calls);
  }

  uint64_t Start(const char* path, std::vector<std::string> messages, DirectRequest more = {}) {
    more.path = path;
    for (std::string& message : messages) more.messages.push_back(Held(std::move(message)));
    return calls_->Start(std::move(more));
  }
  // Waits until something is true of the call, or it has ended.
  Call& Until(uint64_t call, const std::function<bool(const Call&)>& holds) {
    Eventually([&] {
      TakeAll();
      const Call& seen = seen_[call];
      return seen.ends > 0 || holds(seen);
    });
    return seen_[call];
  }
  Call& Wait(uint64_t call) {
    return Until(call, [](const Call&) { return false; });
  }
  bool readable() const {
    pollfd descriptor{calls_->fd(), POLLIN, 0};
    return ::poll(&descriptor, 1, 0) == 1;
  }
  void TakeAll() {
    if (!readable()) return;
    std::vector<DirectEvent> events;
    calls_->Take(&events);
    EXPECT_FALSE(events.empty()) << "it was readable for nothing";
    for (DirectEvent& event : events) {
      Call& call = seen_[event.call];
      EXPECT_EQ(call.ends, 0) << "something came behind the end";
      switch (event.kind) {
        case DirectEvent::Kind::kInitial:
          call.initial = event.metadata;
          break;
        case DirectEvent::Kind::kMessage: {
          std::string& message = call.messages.emplace_back();
          for (const ReplyPart& part : event.message) {
            message.append(reinterpret_cast<const char*>(part.bytes().data()), part.bytes().size());
          }
          break;
        }
        case DirectEvent::Kind::kEnd:
          ++call.ends;
          call.status = event.status;
          call.trailing = event.metadata;
          break;
      }
    }
    calls_->GiveBack(std::move(events));
  }
  DirectCalls& calls() { return *calls_; }
  void Drop() { calls_.reset(); }

 private:
  std::unique_ptr<DirectCalls> calls_;
  std::map<uint64_t, Call> seen_;
};

void Ended(const Caller::Call& call, Code code, const testing::Matcher<std::string>& text) {
  EXPECT_EQ(call.status.code(), code) << call.status.ToString();
  EXPECT_THAT(call.status.message(), text);
}

// How a Predict call was answered.
std::vector<float> Sums(const Caller::Call& call) {
  EXPECT_TRUE(call.status.ok()) << call.status.ToString();
  EXPECT_EQ(call.messages.size(), 1u);
  return call.messages.size() == 1 ? ParseReply(call.messages[0]).sums : std::vector<float>{};
}

std::string One(const std::string& method, float x1 = 1) {
  return PredictRequest("s", method, 0, {{x1, 2}});
}

class DirectTest : public UserTest {
 protected:
  DirectTest() : UserTest(/*io_threads=*/2), caller_(*gateway_) {}
  // Until when a call has to be over.
  static DirectRequest Within(milliseconds time) { return {.deadline = Clock::now() + time}; }

  Caller caller_;
};

TEST_F(DirectTest, PredictIsAnsweredAndCountedAsOverGrpc) {
  Listen();
  TestWorker worker(*gateway_, 1, "s");
  for (uint64_t client = 0; client < 4; ++client) {
    const uint64_t call = caller_.Start(kPredictPath, {One("add")}, {.client = client});
    EXPECT_THAT(Sums(caller_.Wait(call)), ElementsAre(3));
  }
  EXPECT_FALSE(caller_.readable());
  const auto stats = gateway_->GetStats();
  EXPECT_EQ(stats.requests, 4u);
  EXPECT_EQ(stats.replies, 4u);
  EXPECT_EQ(stats.connections, 0u);
  const auto method = std::ranges::find(stats.methods, "add", [](const auto& each) { return each.key.method; });
  ASSERT_NE(method, stats.methods.end());
  EXPECT_EQ(method->ended[0], 4u);
  EXPECT_EQ(method->instances, 4u);
  EXPECT_EQ(method->bytes_in, 4 * One("add").size());
  EXPECT_GT(method->bytes_out, 0u);
  EXPECT_EQ(method->latency_ns.count, 4u);
  NothingHeld();
}

TEST_F(DirectTest, RequestsAndRepliesOfAnySize) {
  Listen();
  TestWorker worker(*gateway_, 1, "s", 1, 16 << 20);
  const uint64_t call = caller_.Start(kPredictPath, {One("big", 3)});
  const auto& big = caller_.Wait(call);
  EXPECT_TRUE(big.status.ok()) << big.status.ToString();
  ASSERT_EQ(big.messages.size(), 1u);
  EXPECT_GT(big.messages[0].size(), 3u << 20);
  const std::vector<gateway::Pair> many(100'000, {1, 2});
  const auto sums = Sums(caller_.Wait(caller_.Start(kPredictPath, {PredictRequest("s", "add", 0, many)})));
  EXPECT_EQ(sums.size(), many.size());
  NothingHeld();
  // Reply memory comes back: it is 16 MiB.
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(caller_.Wait(caller_.Start(kPredictPath, {One("big", 3)})).status.ok());
  }
}

TEST_F(DirectTest, ErrorsAreTheirServices) {
  Listen();
  TestWorker worker(*gateway_, 1, "s");
  Ended(caller_.Wait(caller_.Start(kPredictPath, {One("end")})), Code::kFailedPrecondition, "this is the end");
  const auto& unknown = caller_.Wait(caller_.Start(kPredictPath, {PredictRequest("other", "add", 0, {{1, 2}})}));
  ASSERT_EQ(unknown.messages.size(), 1u);
  EXPECT_THAT(ParseReply(unknown.messages[0]).errors[0].second, HasSubstr("servable is not available"));
  Ended(caller_.Wait(caller_.Start("/no.Service/Method", {""})), Code::kUnimplemented,
        "no method '/no.Service/Method' is served");
  Ended(caller_.Wait(caller_.Start(kPredictPath, {"\xff"})), Code::kInvalidArgument, testing::_);
  Ended(caller_.Wait(caller_.Start(kPredictPath, {})), Code::kInternal, HasSubstr("without the message"));
  Ended(caller_.Wait(caller_.Start(kPredictPath, {"", ""})), Code::kUnimplemented, HasSubstr("second message"));
  NothingHeld();
}

TEST_F(DirectTest, UsersCallsCarryAllThatGrpcsDo) {
  const auto worker = Start(1);
  Listen();
  const uint64_t call =
      caller_.Start(kUnary, {"ask"},
                    {.metadata = {{"request_id", "mine"}, {"k", "v"}, {"b-bin", std::string("\0\xff", 2)}},
                     .peer = {.address = "ipv4:1.2.3.4:5", .tls = false, .subject = ""},
                     .auth = {{"x509_common_name", "me"}}});
  const auto seen = worker->Await(0, [](const auto& c) { return c.half_closed; });
  EXPECT_EQ(seen.request_id, "mine");
  EXPECT_EQ(seen.peer, "ipv4:1.2.3.4:5");
  EXPECT_THAT(seen.metadata, testing::Contains(Pair("k", "v")));
  EXPECT_THAT(seen.metadata, testing::Contains(Pair("b-bin", std::string("\0\xff", 2))));
  EXPECT_THAT(seen.auth, ElementsAre(Pair("x509_common_name", "me")));
  EXPECT_THAT(seen.messages, ElementsAre("ask"));
  worker->Initial(0, {{"i", "1"}});
  worker->Reply(0, "answer");
  worker->End(0, Code::kOk, "well", {{"t-bin", "\1"}});
  const auto& answer = caller_.Wait(call);
  Ended(answer, Code::kOk, "");
  EXPECT_THAT(answer.initial, testing::Contains(Pair("i", "1")));
  EXPECT_THAT(answer.messages, ElementsAre("answer"));
  EXPECT_THAT(answer.trailing, testing::UnorderedElementsAre(Pair("request_id", "mine"), Pair("t-bin", "\1")));
}

TEST_F(DirectTest, ADeadlineEndsTheCall) {
  Limits limits;
  limits.default_deadline = milliseconds(50);
  Listen(limits);
  TestWorker worker(*gateway_, 1, "s");
  const uint64_t given = caller_.Start(kPredictPath, {One("hold")}, Within(milliseconds(20)));
  const uint64_t defaulted = caller_.Start(kPredictPath, {One("hold")});
  const uint64_t longer = caller_.Start(kPredictPath, {One("hold")}, Within(seconds(60)));
  for (const uint64_t call : {given, defaulted}) {
    Ended(caller_.Wait(call), Code::kDeadlineExceeded, "the call's deadline has passed");
  }
  // On a slow machine a deadline may have passed before the worker was asked. The last call is asked of it in any case.
  Eventually([&] { return worker.calls() >= 1 && worker.cancels() == worker.calls() - 1; });
  worker.Resume();
  EXPECT_THAT(Sums(caller_.Wait(longer)), ElementsAre(3));
  NothingHeld();
}

TEST_F(DirectTest, ACancelledCallIsTakenFromTheWorker) {
  Listen();
  TestWorker worker(*gateway_, 1, "s");
  const uint64_t call = caller_.Start(kPredictPath, {One("hold")});
  Eventually([&] { return worker.held() == 1; });
  std::thread([&] { caller_.calls().Cancel(call); }).join();
  Ended(caller_.Wait(call), Code::kCancelled, "the call was given up");
  Eventually([&] { return worker.cancels() == 1; });
  NothingHeld();
  // Of none, or one that is over, it does nothing.
  caller_.calls().Cancel(call);
  caller_.calls().Cancel(12345);
  EXPECT_THAT(Sums(caller_.Wait(caller_.Start(kPredictPath, {One("add")}))), ElementsAre(3));
  EXPECT_EQ(caller_.Wait(call).ends, 1);
}

TEST_F(DirectTest, LimitsHold) {
  Limits limits;
  limits.max_msg_mb_size = 1;
  limits.max_enqueued_bytes = 3 << 20;
  limits.max_metadata_bytes = 1000;
  limits.max_enqueued_requests = 1;
  limits.max_connections = 1;
  Listen(limits);
  TestWorker worker(*gateway_, 1, "s");
  Ended(caller_.Wait(caller_.Start(kPredictPath, {std::string((1 << 20) + 1, 'x')})), Code::kResourceExhausted,
        HasSubstr("max_msg_mb_size"));
  const auto with = [&](std::string key, std::string value) -> Caller::Call& {
    return caller_.Wait(caller_.Start(kPredictPath, {One("add")}, {.metadata = {{std::move(key), std::move(value)}}}));
  };
  Ended(with("k", std::string(1000, 'x')), Code::kResourceExhausted, HasSubstr("max_metadata_bytes 1000"));
  for (const char* key : {"Upper", "with space", "", ":path", "grpc-timeout", "te", "content-type"}) {
    Ended(with(key, "x"), Code::kInvalidArgument, StartsWith("metadata '" + std::string(key) + "' is "));
  }
  Ended(with("k", "two\nlines"), Code::kInvalidArgument, HasSubstr("printable ASCII"));
  EXPECT_TRUE(with("k", "x").status.ok());
  const uint64_t held = caller_.Start(kPredictPath, {One("hold")});
  Eventually([&] { return worker.held() == 1; });
  const auto& refused = caller_.Wait(caller_.Start(kPredictPath, {One("hold")}));
  Ended(refused, Code::kResourceExhausted, HasSubstr("max_enqueued_requests"));
  EXPECT_THAT(refused.trailing, testing::Contains(testing::Key("grpc-retry-pushback-ms")));
  worker.Resume();
  EXPECT_THAT(Sums(caller_.Wait(held)), ElementsAre(3));
  EXPECT_EQ(Refused(Refusal::kMaxMsgMbSize), 1u);
  EXPECT_EQ(Refused(Refusal::kMaxMetadataBytes), 1u);
  NothingHeld();
}

TEST_F(DirectTest, NoMoreBytesAreHeldThanTheLimitAllows) {
  Limits limits;
  limits.max_enqueued_bytes = 1000;
  Listen(limits);
  TestWorker worker(*gateway_, 1, "s");
  const auto& refused = caller_.Wait(caller_.Start(kPredictPath, {std::string(1001, 'x')}));
  Ended(refused, Code::kResourceExhausted, HasSubstr("max_enqueued_bytes 1000"));
  EXPECT_THAT(refused.trailing, testing::Contains(testing::Key("grpc-retry-pushback-ms")));
  EXPECT_EQ(Refused(Refusal::kMaxEnqueuedBytes), 1u);
}

// --- Streams. ---

TEST_F(DirectTest, ASlowReaderHoldsItsWorkerBack) {
  const auto worker = Start(1);
  Listen();
  const uint64_t call = caller_.Start(kDown, {"go"});
  constexpr size_t kMessages = 100;
  std::vector<std::string> sent;
  for (size_t i = 0; i < kMessages; ++i) {
    sent.push_back("message " + std::to_string(i));
    ASSERT_TRUE(worker->Reply(0, sent.back()));
  }
  const auto got = [](size_t count) { return [count](const Caller::Call& c) { return c.messages.size() >= count; }; };
  EXPECT_EQ(caller_.Until(call, got(DirectEvents::kMostMessages)).messages.size(), DirectEvents::kMostMessages);
  EXPECT_FALSE(caller_.readable());
  EXPECT_EQ(worker->Await(0, [](const auto& c) { return c.credits >= DirectEvents::kMostMessages; }).credits,
            DirectEvents::kMostMessages);
  worker->End(0, Code::kOk);
  gateway_->GetStats();
  EXPECT_FALSE(caller_.readable());
  for (size_t consumed = 0; consumed + DirectEvents::kMostMessages < kMessages; consumed += 7) {
    caller_.calls().Consumed(call, 7);
    const size_t count = std::min(kMessages, consumed + 7 + DirectEvents::kMostMessages);
    EXPECT_EQ(caller_.Until(call, got(count)).messages.size(), count);
  }
  const auto& whole = caller_.Wait(call);
  EXPECT_TRUE(whole.status.ok());
  EXPECT_EQ(whole.messages, sent);
  NothingHeld();
}

TEST_F(DirectTest, LargeMessagesOfAStreamAreFewer) {
  const auto worker = Start(1, "s", 1, 64 << 20);
  Listen();
  const uint64_t call = caller_.Start(kDown, {"go"});
  const std::string large(600'000, 'x');
  constexpr size_t kMessages = 300;  // more than the reply memory
  size_t sent = 0;
  const auto fill = [&] {
    while (sent < kMessages && worker->Reply(0, large)) ++sent;
  };
  fill();
  EXPECT_LT(sent, kMessages);
  EXPECT_EQ(caller_.Until(call, [](const auto& c) { return c.messages.size() >= 2; }).messages.size(), 2u);
  EXPECT_FALSE(caller_.readable());
  for (size_t consumed = 1; consumed + 1 < kMessages; ++consumed) {
    caller_.calls().Consumed(call, 1);
    caller_.Until(call, [&](const auto& c) { return c.messages.size() == consumed + 2; });
    worker->Await(0, [&](const auto& c) { return c.credits >= consumed; });
    fill();
  }
  worker->End(0, Code::kOk);
  EXPECT_EQ(caller_.Wait(call).messages.size(), kMessages);
}

TEST_F(DirectTest, AStreamThatIsGivenUpGivesBackWhatItHolds) {
  const auto worker = Start(1);
  Listen();
  const uint64_t going_on = caller_.Start(kDown, {"go"});
  const uint64_t ended = caller_.Start(kDown, {"go"});
  worker->Await(1, [](const auto& c) { return c.half_closed; });
  for (int i = 0; i < 50; ++i) {
    for (const size_t n : {0, 1}) ASSERT_TRUE(worker->Reply(n, std::string(50'000, 'x')));
  }
  worker->End(1, Code::kOk);
  const auto some = [](const Caller::Call& c) { return c.messages.size() >= DirectEvents::kMostMessages; };
  for (const uint64_t call : {going_on, ended}) {
    caller_.Until(call, some);
    caller_.calls().Cancel(call);
    const auto& end = caller_.Wait(call);
    Ended(end, Code::kCancelled, "the call was given up");
    EXPECT_EQ(end.messages.size(), DirectEvents::kMostMessages);
  }
  worker->Await(0, [](const auto& c) { return c.cancelled; });
  // All of the reply memory, 64 MiB, is there again.
  const uint64_t unary = caller_.Start(kUnary, {"go"});
  worker->Await(2, [](const auto& c) { return c.half_closed; });
  EXPECT_TRUE(Eventually([&] { return worker->Reply(2, std::string(50 << 20, 'x'), link::kEnds | link::kReleased); }));
  EXPECT_TRUE(caller_.Wait(unary).status.ok());
  NothingHeld();
}

TEST_F(DirectTest, AClientsStreamIsGivenAsItIsTaken) {
  const auto worker = Start(1);
  Listen();
  const std::vector<std::string> messages(300, "m");
  const uint64_t call = caller_.Start(kUp, messages);
  EXPECT_EQ(worker->Await(0, [](const auto& c) { return c.messages.size() >= 128; }).messages.size(), 128u);
  for (size_t taken = 0; taken < messages.size(); ++taken) {
    worker->Await(0, [&](const auto& c) { return c.messages.size() > taken; });
    worker->Take(0);
  }
  const auto seen = worker->Await(0, [](const auto& c) { return c.half_closed; });
  EXPECT_EQ(seen.messages, messages);
  worker->Reply(0, "done", link::kEnds | link::kReleased);
  EXPECT_THAT(caller_.Wait(call).messages, ElementsAre("done"));
  NothingHeld();
  const uint64_t empty = caller_.Start(kUp, {});
  EXPECT_TRUE(worker->Await(1, [](const auto& c) { return c.half_closed; }).messages.empty());
  worker->Reply(1, "none", link::kEnds | link::kReleased);
  EXPECT_THAT(caller_.Wait(empty).messages, ElementsAre("none"));
}

// --- Ends. ---

TEST_F(DirectTest, ARequestIsSentAgainWhenItsWorkerDies) {
  Listen();
  auto first = std::make_unique<TestWorker>(*gateway_, 1, "s");
  const uint64_t call = caller_.Start(kPredictPath, {One("run")});
  Eventually([&] { return first->held() == 1; });
  TestWorker second(*gateway_, 2, "s");
  first.reset();
  Eventually([&] { return second.held() == 1; });
  second.Resume();
  EXPECT_THAT(Sums(caller_.Wait(call)), ElementsAre(3));
}

TEST_F(DirectTest, ClientsAreToldApart) {
  Listen();
  std::vector<std::unique_ptr<TestWorker>> workers;
  for (uint64_t id = 1; id <= 4; ++id) workers.push_back(std::make_unique<TestWorker>(*gateway_, id, "s"));
  const auto call = [&](const char* method, float x1, uint64_t client) -> Caller::Call& {
    return caller_.Wait(caller_.Start(kPredictPath, {One(method, x1)}, {.client = client}));
  };
  for (const uint64_t client : {1, 2}) EXPECT_THAT(Sums(call("add", 1, client)), ElementsAre(3));
  Ended(call("die", 1, 1), Code::kUnavailable, HasSubstr("is set aside"));
  const auto alone = [&] {
    size_t count = 0;
    for (const auto& worker : workers) count += worker->alone();
    return count;
  };
  const size_t before = alone();
  EXPECT_THAT(Sums(call("add", 5, 2)), ElementsAre(7));
  EXPECT_EQ(alone(), before);
  EXPECT_THAT(Sums(call("add", 6, 1)), ElementsAre(8));
  EXPECT_EQ(alone(), before + 1);
}

TEST_F(DirectTest, NobodyIsServedBeforeItListens) {
  TestWorker worker(*gateway_, 1, "s");
  Ended(caller_.Wait(caller_.Start(kPredictPath, {One("add")})), Code::kUnavailable, HasSubstr("shutting down"));
  Listen();
  EXPECT_THAT(Sums(caller_.Wait(caller_.Start(kPredictPath, {One("add")}))), ElementsAre(3));
}

TEST_F(DirectTest, WhatIsInFlightEndsBeforeTheServerDoes) {
  Listen();
  TestWorker worker(*gateway_, 1, "s");
  const uint64_t held = caller_.Start(kPredictPath, {One("hold")});
  Eventually([&] { return worker.held() == 1; });
  std::atomic<bool> stopped = false;
  std::thread stopping([&] {
    gateway_->StopListening(seconds(60));
    stopped = true;
  });
  Eventually(
      [&] { return caller_.Wait(caller_.Start(kPredictPath, {One("add")})).status.code() == Code::kUnavailable; });
  EXPECT_FALSE(stopped);
  worker.Resume();
  EXPECT_THAT(Sums(caller_.Wait(held)), ElementsAre(3));
  stopping.join();
}

TEST_F(DirectTest, WhenTheGraceIsOverCallsAreUnavailable) {
  Listen();
  TestWorker worker(*gateway_, 1, "s");
  const uint64_t held = caller_.Start(kPredictPath, {One("hold")});
  Eventually([&] { return worker.held() == 1; });
  gateway_->StopListening(milliseconds(10));
  Ended(caller_.Wait(held), Code::kUnavailable, "the server is shutting down");
  Eventually([&] { return worker.cancels() == 1; });
  // It may listen again.
  Listen();
  EXPECT_THAT(Sums(caller_.Wait(caller_.Start(kPredictPath, {One("add")}))), ElementsAre(3));
}

TEST_F(DirectTest, TheGatewayMayGoFirst) {
  Listen();
  {
    TestWorker worker(*gateway_, 1, "s");
    const auto users = Start(2, "users");
    std::vector<uint64_t> open;
    for (uint64_t client = 0; client < 6; ++client) {
      open.push_back(caller_.Start(kPredictPath, {One("hold")}, {.client = client}));
    }
    Eventually([&] { return worker.held() == 6; });
    const uint64_t stream = caller_.Start(kDown, {"go"});
    for (int i = 0; i < 30; ++i) ASSERT_TRUE(users->Reply(0, std::string(20'000, 'x')));
    users->Await(0, [](const auto& c) { return c.half_closed; });
    std::vector<DirectEvent> taken;  // looked at while the gateway goes
    Eventually([&] { return caller_.readable(); });
    caller_.calls().Take(&taken);
    gateway_.reset();
    for (const DirectEvent& event : taken) {
      ASSERT_EQ(event.message.size(), 1u);
      EXPECT_EQ(event.message[0].bytes().back(), std::byte('x'));
    }
    caller_.calls().GiveBack(std::move(taken));
    for (const uint64_t call : open) {
      const auto& end = caller_.Wait(call);
      Ended(end, Code::kUnavailable, "the server is shutting down");
      EXPECT_EQ(end.ends, 1);
    }
    caller_.calls().Consumed(stream, 30);
    Ended(caller_.Wait(stream), Code::kUnavailable, "the server is shutting down");
  }
  Ended(caller_.Wait(caller_.Start(kPredictPath, {One("add")})), Code::kUnavailable, "the server is shutting down");
}

TEST_F(DirectTest, TheCallerMayGoFirst) {
  Listen();
  TestWorker worker(*gateway_, 1, "s");
  const auto users = Start(2, "users");
  caller_.Start(kPredictPath, {One("hold")});
  caller_.Start(kDown, {"go"});
  for (int i = 0; i < 30; ++i) ASSERT_TRUE(users->Reply(0, std::string(20'000, 'x')));
  Eventually([&] { return worker.held() == 1; });
  caller_.Drop();
  Eventually([&] { return worker.cancels() == 1; });
  users->Await(0, [](const auto& c) { return c.cancelled; });
  NothingHeld();
}

TEST_F(DirectTest, ManyThreadsCallWhileWorkersAndTheGatewayGo) {
  Listen();
  auto first = std::make_unique<TestWorker>(*gateway_, 1, "s");
  TestWorker second(*gateway_, 2, "s");
  constexpr int kThreads = 4;
  constexpr uint64_t kCalls = 300;
  std::atomic<size_t> ended = 0;
  std::vector<std::thread> threads;
  std::vector<std::unique_ptr<Caller>> callers;
  for (int i = 0; i < kThreads; ++i) callers.push_back(std::make_unique<Caller>(*gateway_));
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, &caller = *callers[static_cast<size_t>(i)]] {
      std::vector<uint64_t> calls;
      for (uint64_t n = 0; n < kCalls; ++n) {
        calls.push_back(caller.Start(kPredictPath, {One("add")}, {.client = n}));
        if (n % 7 == 0) caller.calls().Cancel(calls[n / 2]);
        if (n % 16 == 0) caller.Wait(calls[n / 3]);
      }
      for (const uint64_t call : calls) {
        const auto& end = caller.Wait(call);
        EXPECT_EQ(end.ends, 1);
        if (end.status.ok()) {
          EXPECT_THAT(Sums(end), ElementsAre(3));
        }
        ++ended;
      }
    });
  }
  Eventually([&] { return first->calls() > 20; });
  first.reset();
  Eventually([&] { return second.calls() > 100; });
  gateway_.reset();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ended, kThreads * kCalls);
}

TEST(DirectClientsTest, OfSoManyItIsRemembered) {
  net::EventLoop loop;
  auto port = link::GatewayPort::Create(1 << 20);
  ASSERT_TRUE(port.ok());
  Admission admission;
  RequestMemory memory((*port)->arena(), admission);
  ChildCalls children;
  ThreadContext context(0, loop, memory, children);
  const Router router(context.stats);
  const Traffic traffic(context.stats);
  const std::shared_ptr<const Served> served;
  const Health health(router, traffic, served);
  DirectThread thread(context, health);
  const auto first = thread.ClientOf(0);
  EXPECT_EQ(thread.ClientOf(0), first);
  const auto second = thread.ClientOf(1);
  EXPECT_NE(second->number, first->number);
  for (uint64_t client = 2; client < DirectThread::kMostClients; ++client) thread.ClientOf(client);
  EXPECT_EQ(thread.ClientOf(0), first);
  thread.ClientOf(DirectThread::kMostClients);
  EXPECT_EQ(thread.ClientOf(0), first);  // called lately
  EXPECT_NE(thread.ClientOf(1), second);
}

}  // namespace
}  // namespace mindserve::gateway
