// Bytes that clients hold while they are slow, or rest, and others lack them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "gateway/resting_fixture.h"

namespace mindserve::gateway {
namespace {

using testing::HasSubstr;

class SlowMessagesTest : public RestingTest {
 protected:
  static constexpr size_t kClaimed = kMostBytes / 8 - 1024;

  SlowMessagesTest() {
    admission_.SetMaxRequests(100);
    context_.limits.max_msg_mb_size = 1;
    context_.limits.min_bytes_per_second = 64;
  }
  // Connections whose messages, each of which has come so far, take nearly all that such may have.
  void Claim(size_t came = 6'500) {
    for (int i = 0; i < 4; ++i) {
      Client& client = Connect();
      for (int j = 0; j < 2; ++j) {
        slow_.emplace_back(&client, client->Start(kUp, Framed(std::string(kClaimed, 'x')).substr(0, came), false));
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
  // The code of the answer to a message that takes several frames.
  int Large(Client& client, size_t size = kMostBytes / 2) {
    const size_t before = handlers_.size();
    const int32_t call = client->Start(kUnary, Framed(std::string(size, 'y')), true);
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

TEST_F(SlowMessagesTest, WhatIsOnlyAnnouncedIsInNobodysWay) {
  Client& other = Connect();
  for (int i = 0; i < 5; ++i) {
    Claim(/*came=*/10);
    for (int j = 0; j < 3; ++j) {
      EXPECT_EQ(Large(other, kMostBytes / 4), 0);
      EXPECT_EQ(Large(other, 1'000), 0);
    }
  }
  Pass(kTimeout / 2);
  for (const auto& [client, call] : slow_) EXPECT_FALSE((*client)->response(call).closed);
}

TEST_F(SlowMessagesTest, LeaveAQuarterToWhatComesWhole) {
  Client& other = Connect();
  Claim();
  EXPECT_EQ(Large(other), static_cast<int>(Code::kResourceExhausted));
  const std::string whole = Framed(std::string(kMostBytes / 8 - 100, 'w'));  // in one frame
  std::vector<int32_t> calls;
  for (int i = 0; i < 2; ++i) calls.push_back(other->Start(kUnary, whole, true));
  Sync();
  for (const int32_t call : calls) EXPECT_FALSE(other->response(call).closed);
}

TEST_F(SlowMessagesTest, MayGoOnWhereNobodyIsRefused) {
  Claim();
  Drip(2 * kTimeout);
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
  for (int i = 0; i < 6; ++i) {
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
