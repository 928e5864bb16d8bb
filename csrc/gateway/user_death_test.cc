// What becomes of calls of users' services when workers die, and which worker gets them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "gateway/model_set.h"
#include "gateway/user_fixture.h"
#include "gateway/worker_calls.h"

namespace mindserve::gateway {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

class UserDeathTest : public UserTest {
 protected:
  UserDeathTest() : client_(Listen()) {}

  TestUserWorker& Add(uint64_t id) {
    workers_[id] = Start(id);
    return *workers_[id];
  }
  void Kill(uint64_t id) { UserTest::Kill(workers_[id], id); }
  static bool Complete(const TestUserWorker::Seen& call) { return call.half_closed; }

  std::map<uint64_t, std::unique_ptr<TestUserWorker>> workers_;
  TestClient client_;
};

TEST_F(UserDeathTest, WhatNoHandlerHadBegunGoesAgainWithAllItsMessages) {
  Add(1);
  const int32_t unary = Begin(client_, kUnary, "u", {{"request_id", "abc"}});
  const int32_t stream = Open(client_, kUp);
  Send(client_, stream, "one");
  Send(client_, stream, "two");
  workers_[1]->Await(1, [](const auto& c) { return c.messages.size() == 2; });
  Add(2);
  Kill(1);
  const auto again = workers_[2]->Await(0, Complete);
  EXPECT_EQ(again.request_id, "abc");
  EXPECT_THAT(again.messages, ElementsAre("u"));
  workers_[2]->Await(1, [](const auto& c) { return c.messages.size() == 2; });
  Send(client_, stream, "three", true);
  EXPECT_THAT(workers_[2]->Await(1, Complete).messages, ElementsAre("one", "two", "three"));
  for (const size_t n : {0, 1}) workers_[2]->Reply(n, "done", link::kEnds | link::kReleased);
  IsOk(client_.Wait(unary), {"done"});
  IsOk(client_.Wait(stream), {"done"});
  NothingHeld();
}

TEST_F(UserDeathTest, AStreamThatHasEndedGoesAgainWhole) {
  Add(1);
  const int32_t one = Open(client_, kUp);
  Send(client_, one, "one", true);
  const int32_t none = client_.Start(kUp, "", true);
  client_.Flush();
  workers_[1]->Await(1, Complete);
  Add(2);
  Kill(1);
  EXPECT_THAT(workers_[2]->Await(0, Complete).messages, ElementsAre("one"));
  EXPECT_TRUE(workers_[2]->Await(1, Complete).messages.empty());
  for (const size_t n : {0, 1}) workers_[2]->Reply(n, "done", link::kEnds | link::kReleased);
  IsOk(client_.Wait(one), {"done"});
  IsOk(client_.Wait(none), {"done"});
}

TEST_F(UserDeathTest, ButNotForEver) {
  Add(1);
  const int32_t call = Begin(client_, kUnary, "u");
  for (uint64_t id = 1; id <= kMostSends; ++id) {
    workers_[id]->Await(0, Complete);
    Add(id + 1);
    Kill(id);
  }
  Is(client_.Wait(call), Code::kUnavailable,
     HasSubstr("sent to 16 workers, and each died before its handler had begun"));
  EXPECT_EQ(Refused(Refusal::kMaxAttempts), 1u);
  NothingHeld();
}

TEST_F(UserDeathTest, WithoutAnotherWorkerItIsUnavailable) {
  Add(1);
  const int32_t call = Begin(client_, kUnary, "u", {{"request_id", "abc"}});
  workers_[1]->Await(0, Complete);
  Kill(1);
  Is(client_.Wait(call), Code::kUnavailable,
     AllOf(StartsWith("request abc of '/t.Users/Unary': the worker that had it died"), HasSubstr("there is no other")));
  NothingHeld();
}

TEST_F(UserDeathTest, WhatAHandlerHadBegunDoesNotGoAgain) {
  Add(1);
  const int32_t unary = Begin(client_, kUnary, "u");
  const int32_t stream = Open(client_, kUp);
  workers_[1]->Begin(0);
  workers_[1]->Begin(1);
  Add(2);
  Kill(1);
  Is(client_.Wait(unary), Code::kUnavailable,
     HasSubstr("Its handler may have begun, and its method is not idempotent"));
  Is(client_.Wait(stream), Code::kUnavailable, HasSubstr("Its handler may have begun, and its client sends a stream"));
  EXPECT_EQ(workers_[2]->calls(), 0u);
  NothingHeld();
}

TEST_F(UserDeathTest, UnlessItIsIdempotent) {
  Add(1);
  const int32_t unary = Begin(client_, kIdempotent, "u");
  const int32_t down = Begin(client_, kDown, "d");
  workers_[1]->Begin(0);
  workers_[1]->Begin(1);
  Add(2);
  Kill(1);
  EXPECT_THAT(workers_[2]->Await(0, Complete).messages, ElementsAre("u"));
  workers_[2]->Reply(0, "done", link::kEnds | link::kReleased);
  IsOk(client_.Wait(unary), {"done"});
  // Its second worker is the last one that may die with it.
  workers_[2]->Await(1, Complete);
  workers_[2]->Begin(1);
  Add(3);
  Kill(2);
  Is(client_.Wait(down), Code::kUnavailable, HasSubstr("2 workers died with it (max_attempts 2)"));
  EXPECT_EQ(client_.response(down).trailers.at("grpc-retry-pushback-ms"), "-1");
  EXPECT_EQ(workers_[3]->calls(), 0u);
  EXPECT_EQ(Refused(Refusal::kMaxAttempts), 1u);
  NothingHeld();
}

TEST_F(UserDeathTest, AndNothingWasSentToTheClient) {
  Add(1);
  const int32_t message = Begin(client_, kDown, "d");
  const int32_t metadata = Begin(client_, kDown, "d");
  workers_[1]->Begin(0);
  workers_[1]->Begin(1);
  workers_[1]->Reply(0, "one");
  workers_[1]->Initial(1, {{"k", "v"}});
  Add(2);
  client_.RunUntil(
      [&] { return !client_.response(message).body.empty() && client_.response(metadata).headers.contains("k"); });
  Kill(1);
  for (const int32_t call : {message, metadata}) {
    Is(client_.Wait(call), Code::kUnavailable, HasSubstr("A part of the answer had been sent"));
  }
  EXPECT_THAT(client_.response(message).messages(), ElementsAre("one"));
  EXPECT_EQ(workers_[2]->calls(), 0u);
}

// --- Multiplexed models. ---

class ModelTest : public UserDeathTest {
 protected:
  // Which worker got the next call for the model.
  uint64_t Goes(const std::string& model, size_t calls = 1) {
    std::map<uint64_t, size_t> before;
    for (const auto& [id, worker] : workers_) before[id] = worker->calls();
    for (size_t i = 0; i < calls; ++i) Begin(client_, kUnary, "m", {{"multiplexed_model_id", model}});
    uint64_t chosen = 0;
    Eventually([&] {
      size_t got = 0;
      for (const auto& [id, worker] : workers_) {
        const size_t more = worker->calls() - before[id];
        got += more;
        if (more > 0) chosen = id;
      }
      return got == calls;
    });
    return chosen;
  }
};

TEST_F(ModelTest, CallsGoToTheWorkerThatHoldsTheModel) {
  for (uint64_t id : {1, 2, 3}) Add(id);
  workers_[2]->Model("m7", true);
  Eventually([&] { return Goes("m7") == 2 && Goes("m7") == 2 && Goes("m7") == 2; });
  // Those without a model spread.
  EXPECT_NE(Goes(""), Goes(""));
  workers_[3]->Model("m7", true);
  // The less loaded of them.
  Eventually([&] { return Goes("m7") == 3; });
}

TEST_F(ModelTest, OrToOneThatIsLoadingIt) {
  for (uint64_t id : {1, 2, 3}) Add(id);
  const uint64_t first = Goes("m8");
  for (int i = 0; i < 5; ++i) EXPECT_EQ(Goes("m8"), first);
  EXPECT_NE(Goes("m9"), first);
  // It lets go of it: nothing speaks for that worker any more.
  for (size_t n = 0; n < 6; ++n) workers_[first]->Reply(n, "", link::kEnds | link::kReleased);
  Eventually([&] { return gateway_->GetStats().replies == 6; });
  workers_[first]->Model("m8", true);
  Eventually([&] { return Goes("m8") == first && Goes("m8") == first; });
}

TEST_F(ModelTest, UnlessItIsMuchMoreLoaded) {
  for (uint64_t id : {1, 2}) Add(id);
  Sync(client_);  // it knows how many calls it may have
  workers_[1]->Model("m7", true);
  Eventually([&] { return Goes("m7") == 1 && Goes("m7") == 1; });
  const auto load = [&](uint64_t id) {
    const auto workers = gateway_->GetStats().workers;
    return std::ranges::find(workers, id, &Gateway::WorkerStats::id)->load;
  };
  while (load(1) <= load(2) + 64) ASSERT_EQ(Goes("m7"), 1u);
  EXPECT_EQ(Goes("m7"), 2u);
}

TEST_F(ModelTest, AModelThatWentIsForgotten) {
  for (uint64_t id : {1, 2}) Add(id);
  workers_[1]->Echo();
  workers_[2]->Echo();
  workers_[1]->Model("m7", true);
  Eventually([&] { return Goes("m7") == 1 && Goes("m7") == 1; });
  workers_[1]->Model("m7", false);
  Eventually([&] {
    // Between two idle ones they go by turns.
    const uint64_t goes = Goes("m7");
    return goes == 2;
  });
}

TEST(ModelSetTest, IsBounded) {
  ModelSet models;
  models.Set(std::string(ModelSet::kLongestId + 1, 'x'), true);
  EXPECT_FALSE(models.Holds(std::string(ModelSet::kLongestId + 1, 'x')));
  for (size_t i = 0; i <= ModelSet::kMostModels; ++i) models.Set(std::to_string(i), true);
  EXPECT_TRUE(models.Holds(std::to_string(ModelSet::kMostModels - 1)));
  EXPECT_FALSE(models.Holds(std::to_string(ModelSet::kMostModels)));
  models.Set("0", false);
  EXPECT_FALSE(models.Holds("0"));
  models.Set("other", true);
  EXPECT_TRUE(models.Holds("other"));
}

TEST(ModelSetTest, CallsCountUntilTheyEnd) {
  ModelSet models;
  models.Begin("m");
  models.Begin("m");
  EXPECT_TRUE(models.HasCalls("m"));
  EXPECT_FALSE(models.Holds("m"));
  models.End("m");
  models.Set("m", true);
  models.Set("m", false);
  EXPECT_TRUE(models.HasCalls("m"));
  models.End("m");
  EXPECT_FALSE(models.HasCalls("m"));
  models.End("m");  // no more of them than there were
  EXPECT_FALSE(models.HasCalls("m"));
}

}  // namespace
}  // namespace mindserve::gateway
