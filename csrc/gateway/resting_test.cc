// Places that clients hold while they rest, and others lack them.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <string>
#include <vector>

#include "gateway/resting_fixture.h"

namespace mindserve::gateway {
namespace {

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

TEST_F(ReadersTest, WhoRestsMakesRoomForAnswersOfOthers) {
  Client& resting = Connect(0);
  const auto calls = Fill(resting);
  admission_.SetMaxRequests(8);
  const int32_t unread = Begin(Connect(0), kUp, false);
  Pass(kTimeout + kStep);
  context_.answers_lacked = context_.now;
  Pass(kTimeout / 4);
  for (const int32_t call : calls) EXPECT_EQ(resting->response(call).error, static_cast<uint32_t>(NGHTTP2_CANCEL));
  EXPECT_EQ(Logged("reset: its reply was not taken within body_idle_timeout 30000 ms, while others lacked memory for "
                   "answers"),
            3);
  EXPECT_EQ(Refused(Refusal::kBodyIdleTimeout), 3u);
  EXPECT_FALSE((*clients_.back())->response(unread).closed) << "it holds none";
}

TEST_F(ReadersTest, WhoseSocketIsFullMakesRoomForAnswersOfOthers) {
  Client& slow = Connect(4 << 20);
  slow.transport->SetSendBuffer(4096);
  Begin(slow, kDown);
  handlers_.back()->Send(std::string(3'000'000, 'x'));
  Round();
  context_.limits.min_bytes_per_second = 0;
  // It takes a little of what is on its way now and then, but never all of the message.
  const auto pass = [&](int steps) {
    for (int i = 0; i < steps && !slow.connection->closed(); ++i) {
      context_.now += kStep;
      std::string taken(1000, '\0');
      EXPECT_GT(::recv(slow->socket(), taken.data(), taken.size(), MSG_DONTWAIT), 0);
      context_.timers.RunDue(context_.now);  // before the socket is found to take more
      Round();
    }
  };
  pass(20);
  EXPECT_FALSE(slow.connection->closed()) << "nobody lacks anything";
  context_.answers_lacked = context_.now;
  pass(5);
  EXPECT_TRUE(slow.connection->closed());
  EXPECT_EQ(Logged("it did not take a message of a reply whole within body_idle_timeout 30000 ms, while others lacked "
                   "memory for answers"),
            1);
  EXPECT_EQ(Refused(Refusal::kBodyIdleTimeout), 1u);
}

TEST_F(ReadersTest, MetadataCountsUntilTheCallIsOver) {
  admission_.SetMaxRequests(1000);
  Client& client = Connect();
  const auto begin = [&](size_t bytes) {
    const int32_t call = client->Start(kUnary, "", false, {{"x-note", std::string(bytes, 'n')}});
    Sync();
    return call;
  };
  begin(100);
  EXPECT_EQ(admission_.bytes(), 0u) << "a little is free";
  const int32_t first = begin(15'000);
  EXPECT_GT(admission_.bytes(), 15'000u);
  for (int i = 0; i < 7; ++i) EXPECT_FALSE(client->response(begin(15'000)).closed);
  const int32_t refused = begin(15'000);
  EXPECT_EQ(client->response(refused).grpc_status(), static_cast<int>(Code::kResourceExhausted));
  EXPECT_EQ(client->response(refused).grpc_message(), "enqueued bytes exceed the limit max_enqueued_bytes 131072");
  client->Reset(first);
  Sync();
  EXPECT_FALSE(client->response(begin(15'000)).closed);
}

TEST_F(ReadersTest, WhoRestsMakesRoomForAnswersOfTheSameClient) {
  admission_.SetMaxRequests(16);
  constexpr uint32_t kWindow = 50;  // of each stream: half of an answer
  Client& proxy = Connect(kWindow);
  Client& other = Connect(kWindow);
  std::vector<int32_t> rests;
  for (Client* client : {&proxy, &proxy, &other}) {
    rests.push_back(Begin(*client, kDown));
    handlers_.back()->Send(std::string(100, 'x'));
  }
  Pass(kTimeout + kStep);
  const int32_t late = Begin(proxy, kDown);
  handlers_.back()->Send(std::string(100, 'x'));
  const int32_t waits = Begin(proxy, kDown);
  handlers_.back()->WaitForShare();
  Pass(kTimeout / 4 + kStep);
  for (const size_t i : {0, 1}) {
    EXPECT_EQ(proxy->response(rests[i]).error, static_cast<uint32_t>(NGHTTP2_CANCEL));
  }
  EXPECT_FALSE(proxy->response(late).closed) << "it has not rested for long";
  EXPECT_FALSE(proxy->response(waits).closed);
  EXPECT_FALSE(other->response(rests[2]).closed) << "it has a share of its own";
  EXPECT_EQ(Logged("reset: its reply was not taken within body_idle_timeout 30000 ms, while other calls of its client "
                   "waited for memory for answers"),
            2);
  EXPECT_EQ(Refused(Refusal::kBodyIdleTimeout), 2u);
}

TEST_F(ReadersTest, AClientThatTakesNothingAtAllMayRest) {
  Client& resting = Connect(50);
  auto calls = Fill(resting);
  Client& closed = Connect(0);
  admission_.SetMaxRequests(8);
  calls.push_back(Begin(closed, kDown));
  handlers_.back()->Send("answer");
  calls.push_back(Begin(closed, kDown));
  for (int i = 0; i < 20; ++i) {
    Pass(kTimeout / 4);
    for (Handler* handler : handlers_) handler->WaitForShare();
  }
  for (const int32_t call : calls) {
    EXPECT_FALSE((call == calls[0] || call == calls[1] || call == calls[2] ? resting : closed)->response(call).closed);
  }
  EXPECT_EQ(Logged("reset"), 0);
}

TEST_F(ReadersTest, WhoTakesAMessageSlowlyMakesRoomForAnswersOfOthers) {
  Client& slow = Connect(10);
  const int32_t unary = Begin(slow, kUnary);
  handlers_.back()->Send(std::string(1'000'000, 'x'));
  const int32_t large = Begin(slow, kDown);
  handlers_.back()->Send(std::string(1'000'000, 'x'));
  const int32_t small = Begin(slow, kDown);
  Handler& steady = *handlers_.back();
  context_.limits.min_bytes_per_second = 0;
  for (int i = 0; i < 40; ++i) {
    steady.Send("message");
    for (const int32_t call : {unary, large, small}) slow->Consume(call, 12);
    Pass(kStep);
    if (i == 19) {
      for (const int32_t call : {unary, large, small}) EXPECT_FALSE(slow->response(call).closed);
      context_.answers_lacked = context_.now;
    }
  }
  for (const int32_t call : {unary, large}) {
    EXPECT_EQ(slow->response(call).error, static_cast<uint32_t>(NGHTTP2_CANCEL));
  }
  EXPECT_FALSE(slow->response(small).closed) << "it takes one message after the other";
  EXPECT_EQ(Logged("a message of its reply was not taken whole within body_idle_timeout 30000 ms, while others lacked "
                   "memory for answers"),
            2);
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

TEST_F(ReadersTest, StreamsLeaveAQuarterToCallsThatEnd) {
  admission_.SetMaxRequests(4);
  Client& resting = Connect();
  Client& other = Connect();
  for (int i = 0; i < 3; ++i) Begin(resting, kUp, false);
  const int32_t fourth = Begin(other, kUp, false);
  EXPECT_EQ(other->response(fourth).grpc_status(), static_cast<int>(Code::kResourceExhausted));
  EXPECT_EQ(other->response(fourth).grpc_message(),
            "streams count exceeds 3, three quarters of the limit 4 (max_enqueued_requests)");
  EXPECT_TRUE(other->response(fourth).trailers.contains("grpc-retry-pushback-ms"));
  EXPECT_TRUE(LetsIn(other)) << "a call that ends by itself";
  // Somebody lacks a place now.
  Pass(kTimeout);
  EXPECT_FALSE(other->response(Begin(other, kUp, false)).closed);
}

TEST_F(ReadersTest, AClientLeavesStreamsToOthers) {
  admission_.SetMaxRequests(40);
  Client& greedy = Connect();
  Client& other = Connect();
  std::vector<int32_t> calls;
  for (int i = 0; i < 30; ++i) calls.push_back(Begin(greedy, kUp, false));
  const auto refused = std::ranges::find_if(calls, [&](int32_t call) { return greedy->response(call).closed; });
  ASSERT_EQ(refused - calls.begin(), 23);
  EXPECT_EQ(greedy->response(*refused).grpc_status(), static_cast<int>(Code::kResourceExhausted));
  EXPECT_EQ(
      greedy->response(*refused).grpc_message(),
      "this connection has its share of streams, of which few are left under the limit 40 (max_enqueued_requests)");
  EXPECT_FALSE(other->response(Begin(other, kUp, false)).closed);
  // Nobody lacked anything but the greedy one itself.
  Pass(2 * kTimeout);
  EXPECT_FALSE(greedy->response(calls.front()).closed);
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

}  // namespace
}  // namespace mindserve::gateway
