// What becomes of requests when workers die, hang, or are killed by a request.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <map>

#include "gateway/predict_call.h"
#include "gateway/test_client.h"
#include "gateway/test_gateway.h"
#include "gateway/test_worker.h"

namespace mindserve::gateway {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class WorkerDeathTest : public GatewayTest {
 protected:
  explicit WorkerDeathTest(milliseconds most_suspense = milliseconds(20'000))
      : GatewayTest(GatewayOptions{.io_threads = 1, .most_suspense = most_suspense}), address_(Listen()) {}

  static std::string One(const std::string& method, float x1 = 1) { return PredictRequest("s", method, 0, {{x1, 2}}); }
  TestWorker& Start(uint64_t id, milliseconds heartbeat_timeout = milliseconds(20'000)) {
    workers_[id] = std::make_unique<TestWorker>(*gateway_, id, "s", 1, 256 << 20, heartbeat_timeout);
    return *workers_[id];
  }
  // The worker dies, and the gateway knows it.
  void Kill(uint64_t id) {
    workers_.erase(id);
    Gone(id);
  }
  void Gone(uint64_t id) {
    Eventually([&] {
      const auto workers = gateway_->GetStats().workers;
      return std::ranges::find(workers, id, &Gateway::WorkerStats::id) == workers.end();
    });
  }
  static int32_t Begin(TestClient& client, const std::string& request) {
    const int32_t call = client.Start(kPredictPath, Framed(request));
    client.Flush();
    return call;
  }
  static std::vector<float> Sums(const TestClient::Response& response) {
    EXPECT_EQ(response.grpc_status(), 0) << response.grpc_message();
    return response.messages().size() == 1 ? ParseReply(response.messages()[0]).sums : std::vector<float>{};
  }
  static void Unavailable(const TestClient::Response& response, const testing::Matcher<std::string>& text) {
    EXPECT_EQ(response.grpc_status(), static_cast<int>(Code::kUnavailable));
    EXPECT_THAT(response.grpc_message(), text);
  }
  uint64_t Refused(Refusal by) { return gateway_->GetStats().refused[static_cast<size_t>(by)]; }
  void NothingHeld() {
    Eventually([this] { return gateway_->GetStats().in_flight == 0; });
  }
  // A request that kills workers 1 and 2, sent by that client.
  void Attack(TestClient& client) {
    Unavailable(client.Call(kPredictPath, One("die")), HasSubstr("is set aside"));
    Gone(1);
    Gone(2);
    workers_.erase(1);
    workers_.erase(2);
  }

  std::map<uint64_t, std::unique_ptr<TestWorker>> workers_;
  const net::Address address_;
};

TEST_F(WorkerDeathTest, WhatWasOnlyQueuedGoesAgainHoweverOftenWorkersDie) {
  TestClient client(address_);
  Start(1);
  const int32_t call = Begin(client, One("hold"));
  for (uint64_t id = 1; id < 8; ++id) {
    Eventually([&] { return workers_[id]->held() == 1; });
    Start(id + 1);
    Kill(id);
  }
  Eventually([&] { return workers_[8]->held() == 1; });
  EXPECT_EQ(workers_[8]->alone(), 0u);
  workers_[8]->Resume();
  EXPECT_THAT(Sums(client.Wait(call)), ElementsAre(3));
  EXPECT_EQ(Refused(Refusal::kMaxAttempts), 0u);
  NothingHeld();
}

TEST_F(WorkerDeathTest, ButNotForEver) {
  TestClient client(address_);
  Start(1);
  const int32_t call = Begin(client, One("hold"));
  for (uint64_t id = 1; id <= kMostSends; ++id) {
    Eventually([&] { return workers_[id]->held() == 1; });
    Start(id + 1);
    Kill(id);
  }
  Unavailable(client.Wait(call), HasSubstr("sent to 16 workers, and each died before it had executed it"));
  EXPECT_EQ(Refused(Refusal::kMaxAttempts), 1u);
  NothingHeld();
}

TEST_F(WorkerDeathTest, WhatIsBetweenStagesIsNoSuspect) {
  TestClient client(address_);
  Start(1);
  const int32_t call = Begin(client, One("pause"));
  for (uint64_t id = 1; id < 4; ++id) {
    Eventually([&] { return workers_[id]->held() == 1; });
    Start(id + 1);
    Kill(id);
  }
  Eventually([&] { return workers_[4]->held() == 1; });
  EXPECT_EQ(workers_[4]->alone(), 0u);
  workers_[4]->Resume();
  EXPECT_THAT(Sums(client.Wait(call)), ElementsAre(3));
}

TEST_F(WorkerDeathTest, WhatWasExecutedGoesAgainAlone) {
  TestClient client(address_);
  Start(1);
  std::vector<int32_t> calls;
  for (int i = 0; i < 5; ++i) calls.push_back(Begin(client, One("run", static_cast<float>(i))));
  const int32_t queued = Begin(client, One("hold", 9));
  Eventually([&] { return workers_[1]->held() == 6; });
  Start(2);
  Kill(1);
  Eventually([&] { return workers_[2]->held() == 6; });
  EXPECT_EQ(workers_[2]->alone(), 5u);
  workers_[2]->Resume();
  for (int i = 0; i < 5; ++i) {
    EXPECT_THAT(Sums(client.Wait(calls[static_cast<size_t>(i)])), ElementsAre(static_cast<float>(i + 2)));
  }
  EXPECT_THAT(Sums(client.Wait(queued)), ElementsAre(11));
  NothingHeld();
}

TEST_F(WorkerDeathTest, ThePartsOfARequestAreTreatedEachForItself) {
  TestClient client(address_);
  Start(1);
  Start(2);
  const int32_t call = Begin(client, PredictRequest("s", "run", 0, {{1, 1}, {2, 2}, {3, 3}, {4, 4}}));
  Eventually([&] { return workers_[1]->held() == 1 && workers_[2]->held() == 1; });
  workers_[2]->Resume();
  Kill(1);
  EXPECT_THAT(Sums(client.Wait(call)), ElementsAre(2, 4, 6, 8));
  EXPECT_EQ(workers_[2]->alone(), 1u);
  EXPECT_EQ(workers_[2]->calls(), 2u);
}

TEST_F(WorkerDeathTest, ARequestThatKillsTwoWorkersIsSetAside) {
  TestClient bystander(address_);
  Start(3);
  Sums(bystander.Call(kPredictPath, One("add")));
  workers_.clear();
  Gone(3);
  Start(1);
  Start(2).SayHung();
  workers_[1]->SayHung();
  TestClient client(address_);
  const auto& response = client.Call(kPredictPath, One("die"), {{"x-request-id", "abc"}});
  Unavailable(response,
              AllOf(StartsWith("Request Servable(s) method(die) of client ipv4:127.0.0.1:"),
                    HasSubstr(" (request_id " + response.trailers.at("request_id") +
                              ", x-request-id abc) is set aside: 2 workers died while executing it (max_attempts 2), "
                              "the last one while executing nothing else; "),
                    HasSubstr("stage 'f' did not finish within its timeout")));
  EXPECT_EQ(response.trailers.at("grpc-retry-pushback-ms"), "-1");
  EXPECT_EQ(workers_[1]->calls() + workers_[2]->calls(), 2u);
  EXPECT_EQ(Refused(Refusal::kMaxAttempts), 1u);
  NothingHeld();

  // The same again is not tried, whoever sends it; the sender's address is nobody else's business.
  Start(4);
  Start(5);
  Unavailable(bystander.Call(kPredictPath, One("die")),
              AllOf(HasSubstr("method(die) is the same as one that killed workers. That one is set aside: 2 workers"),
                    Not(HasSubstr("127.0.0.1"))));
  EXPECT_EQ(Refused(Refusal::kQuarantine), 1u);
  EXPECT_EQ(workers_[4]->calls() + workers_[5]->calls(), 0u);
  EXPECT_THAT(Sums(bystander.Call(kPredictPath, One("add"))), ElementsAre(3));
}

TEST_F(WorkerDeathTest, MaxAttemptsOneExecutesNothingTwiceAndAccusesNobody) {
  gateway_->StopListening(milliseconds(0));
  Limits limits;
  limits.max_attempts = 1;
  TestClient client(Listen(limits));
  Start(1);
  const int32_t executed = Begin(client, One("run"));
  const int32_t queued = Begin(client, One("hold"));
  Eventually([&] { return workers_[1]->held() == 2; });
  Start(2).Resume();
  Kill(1);
  Unavailable(client.Wait(executed), HasSubstr("1 worker died while executing it (max_attempts 1); "));
  EXPECT_THAT(Sums(client.Wait(queued)), ElementsAre(3));
  EXPECT_THAT(Sums(client.Call(kPredictPath, One("run"))), ElementsAre(3));
  EXPECT_EQ(workers_[2]->alone(), 0u);
}

TEST_F(WorkerDeathTest, WhatIsNotIdempotentIsExecutedOnce) {
  TestClient client(address_);
  Start(1);
  const int32_t queued = Begin(client, One("later"));
  const int32_t executed = Begin(client, One("once"));
  Eventually([&] { return workers_[1]->held() == 2; });
  Start(2).Resume();
  Kill(1);
  EXPECT_THAT(Sums(client.Wait(queued)), ElementsAre(3));
  Unavailable(client.Wait(executed),
              "Request Servable(s) method(once), the worker that held it died: its process ended. It may have been "
              "executed, and its method is not idempotent, so it is not sent again");
  EXPECT_EQ(workers_[2]->calls(), 1u);
  NothingHeld();
}

TEST_F(WorkerDeathTest, AWorkerThatIsSilentIsLostAndToBeKilled) {
  TestClient client(address_);
  pollfd lost{gateway_->lost_workers_fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&lost, 1, 0), 0);
  Start(1, milliseconds(1500));
  const int32_t queued = Begin(client, One("hold"));
  const int32_t executed = Begin(client, One("run"));
  const int32_t not_idempotent = Begin(client, One("later"));
  Eventually([&] { return workers_[1]->held() == 3; });
  Start(2).Resume();
  workers_[1]->Freeze();
  EXPECT_THAT(Sums(client.Wait(queued)), ElementsAre(3));
  EXPECT_THAT(Sums(client.Wait(executed)), ElementsAre(3));
  // Its process may wake up and go on.
  Unavailable(client.Wait(not_idempotent), HasSubstr("it did not come round for its heartbeat_timeout of 1.5 s"));
  EXPECT_EQ(::poll(&lost, 1, 20'000), 1);
  const auto taken = gateway_->TakeLostWorkers();
  ASSERT_EQ(taken.size(), 1u);
  EXPECT_EQ(taken[0].id, 1u);
  EXPECT_EQ(taken[0].why, "it did not come round for its heartbeat_timeout of 1.5 s");
  EXPECT_EQ(::poll(&lost, 1, 0), 0);
  EXPECT_TRUE(gateway_->TakeLostWorkers().empty());
  Gone(1);
  EXPECT_THAT(Sums(client.Call(kPredictPath, One("add"))), ElementsAre(3));
}

TEST_F(WorkerDeathTest, OneThatBreaksTheLinksRulesIsToBeKilledToo) {
  TestClient client(address_);
  Start(1);
  Unavailable(client.Call(kPredictPath, One("rogue")), HasSubstr("which it does not hold, and there is no other"));
  const auto taken = gateway_->TakeLostWorkers();
  ASSERT_EQ(taken.size(), 1u);
  EXPECT_EQ(taken[0].id, 1u);
}

TEST_F(WorkerDeathTest, AWorkerThatIsDetachedInOrderMakesNoSuspects) {
  TestClient client(address_);
  Start(1);
  const int32_t executed = Begin(client, One("run"));
  const int32_t once = Begin(client, One("later"));
  Eventually([&] { return workers_[1]->held() == 2; });
  Start(2).Resume();
  gateway_->DetachWorker(1);
  EXPECT_THAT(Sums(client.Wait(executed)), ElementsAre(3));
  EXPECT_EQ(workers_[2]->alone(), 0u);
  Unavailable(client.Wait(once), HasSubstr("not idempotent"));  // it has not ended yet
  EXPECT_TRUE(gateway_->TakeLostWorkers().empty());
}

// --- Under attack ----------------------------------------------------------------------------------------------------

TEST_F(WorkerDeathTest, KnownClientsGoOnWhereSuspectsDoNotCome) {
  TestClient known(address_);
  TestClient killer(address_);
  Start(1);
  Start(2);
  Sums(known.Call(kPredictPath, One("add")));
  Attack(killer);
  TestWorker& ordinary = Start(3);
  TestWorker& kept = Start(4);
  for (int i = 0; i < 4; ++i) EXPECT_THAT(Sums(known.Call(kPredictPath, One("add"))), ElementsAre(3));
  EXPECT_EQ(ordinary.calls(), 4u);
  // Whoever is not known is tried, and then known.
  TestClient stranger(address_);
  EXPECT_THAT(Sums(stranger.Call(kPredictPath, One("add"))), ElementsAre(3));
  EXPECT_EQ(kept.alone(), 1u);
  EXPECT_THAT(Sums(stranger.Call(kPredictPath, One("add"))), ElementsAre(3));
  EXPECT_EQ(ordinary.calls(), 5u);
  // Whoever has killed stays suspect.
  for (int i = 0; i < 3; ++i) EXPECT_THAT(Sums(killer.Call(kPredictPath, One("add"))), ElementsAre(3));
  EXPECT_EQ(kept.alone(), 4u);
  // Its requests are not spread over workers, others' are, but not over the one that is kept.
  const std::string many = PredictRequest("s", "add", 0, {{1, 1}, {2, 2}, {3, 3}, {4, 4}});
  EXPECT_THAT(Sums(killer.Call(kPredictPath, many)), ElementsAre(2, 4, 6, 8));
  EXPECT_EQ(kept.alone(), 5u);
  EXPECT_THAT(Sums(known.Call(kPredictPath, many)), ElementsAre(2, 4, 6, 8));
  EXPECT_EQ(ordinary.calls(), 6u);
  EXPECT_EQ(kept.calls(), 5u);
}

TEST_F(WorkerDeathTest, AFloodTakesNeverTheLastWorker) {
  TestClient known(address_);
  TestClient killer(address_);
  Start(1);
  Start(2);
  Sums(known.Call(kPredictPath, One("add")));
  Attack(killer);
  TestWorker& last = Start(3);
  for (uint64_t id = 4; id < 8; ++id) {
    // From another connection each time, and never the same.
    TestClient stranger(address_);
    const int32_t call = Begin(stranger, One("die", static_cast<float>(id)));
    Start(id);
    Unavailable(stranger.Wait(call), HasSubstr("1 worker died while executing it"));
    Gone(id);
    EXPECT_THAT(Sums(known.Call(kPredictPath, One("add"))), ElementsAre(3));
  }
  EXPECT_EQ(last.alone(), 0u);
  EXPECT_EQ(Refused(Refusal::kMaxAttempts), 5u);
}

TEST_F(WorkerDeathTest, SuspectsWaitForAnotherWorker) {
  TestClient killer(address_);
  Start(1);
  Start(2);
  Attack(killer);
  TestWorker& last = Start(3);
  const int32_t one = Begin(killer, One("add"));
  const int32_t cancelled = Begin(killer, One("add"));
  const int32_t late = killer.Start(kPredictPath, Framed(One("add")), true, {{"grpc-timeout", "20m"}});
  EXPECT_EQ(killer.Wait(late).grpc_status(), static_cast<int>(Code::kDeadlineExceeded));
  EXPECT_EQ(gateway_->GetStats().in_flight, 2u);
  killer.Reset(cancelled);
  killer.Flush();
  Eventually([&] { return gateway_->GetStats().in_flight == 1; });
  {
    TestClient gone(address_);
    Begin(gone, One("add"));
    Eventually([&] { return gateway_->GetStats().in_flight == 2; });
  }
  Eventually([&] { return gateway_->GetStats().in_flight == 1; });
  TestWorker& kept = Start(4);
  EXPECT_THAT(Sums(killer.Wait(one)), ElementsAre(3));
  EXPECT_EQ(kept.calls(), 1u);
  EXPECT_EQ(last.calls(), 0u);
  NothingHeld();
}

TEST_F(WorkerDeathTest, NotTooManyWait) {
  TestClient killer(address_);
  Start(1);
  Start(2);
  Attack(killer);
  Start(3);
  TestClient other(address_);
  other.Ping();
  other.RunUntil([&] { return other.pings_acked() > 0; });  // it knows how many streams it may have
  std::vector<int32_t> calls;
  for (size_t i = 0; i < kMostWaiting; ++i) calls.push_back(other.Start(kPredictPath, Framed(One("add"))));
  other.Flush();
  Eventually([&] { return gateway_->GetStats().in_flight == kMostWaiting; });
  TestClient stranger(address_);
  const auto& refused = stranger.Call(kPredictPath, One("add"));
  EXPECT_EQ(refused.grpc_status(), static_cast<int>(Code::kResourceExhausted));
  EXPECT_EQ(refused.trailers.at("grpc-retry-pushback-ms"), "100");
  EXPECT_EQ(Refused(Refusal::kQuarantine), 1u);
  const int32_t distrusted = Begin(killer, One("add"));  // has a line of its own
  Start(4);
  for (const int32_t call : calls) EXPECT_THAT(Sums(other.Wait(call)), ElementsAre(3));
  EXPECT_THAT(Sums(killer.Wait(distrusted)), ElementsAre(3));
}

TEST_F(WorkerDeathTest, KnownClientsWaitBeforeStrangersAndThoseBeforeKillers) {
  TestClient known(address_);
  TestClient killer(address_);
  TestClient stranger(address_);
  Start(1);
  Start(2);
  Sums(known.Call(kPredictPath, One("add")));
  Attack(killer);
  Start(4);
  const int32_t first = Begin(known, One("run", 10));
  Eventually([&] { return workers_[4]->held() == 1; });
  const int32_t last = Begin(killer, One("run", 30));
  Eventually([&] { return gateway_->GetStats().in_flight == 2; });
  const int32_t second = Begin(stranger, One("run", 20));
  Eventually([&] { return gateway_->GetStats().in_flight == 3; });
  Start(3);
  // They wait there until the known client's is over, which is executed among others.
  Eventually([&] { return workers_[4]->held() == 3; });
  Kill(4);
  TestWorker& next = Start(5);
  next.Resume();
  EXPECT_THAT(Sums(known.Wait(first)), ElementsAre(12));
  EXPECT_THAT(Sums(stranger.Wait(second)), ElementsAre(22));
  EXPECT_THAT(Sums(killer.Wait(last)), ElementsAre(32));
  EXPECT_THAT(next.order(), ElementsAre(10, 20, 30));
  EXPECT_EQ(workers_[3]->calls(), 0u);
}

TEST_F(WorkerDeathTest, AllWorkersLostAtOnceMakeSuspectsOfThoseWhoWereThere) {
  TestClient idle(address_);
  TestClient there(address_);
  Start(1);
  Start(2);
  Sums(idle.Call(kPredictPath, One("add")));
  Sums(there.Call(kPredictPath, One("add")));
  const int32_t call = Begin(there, One("run"));
  Eventually([&] { return workers_[1]->held() + workers_[2]->held() == 1; });
  const uint64_t holder = workers_[1]->held() == 1 ? 1 : 2;
  Kill(3 - holder);
  Kill(holder);
  Unavailable(there.Wait(call), HasSubstr("and there is no other"));
  TestWorker& ordinary = Start(3);
  TestWorker& kept = Start(4);
  EXPECT_THAT(Sums(there.Call(kPredictPath, One("add"))), ElementsAre(3));
  EXPECT_EQ(kept.alone(), 1u);
  EXPECT_THAT(Sums(there.Call(kPredictPath, One("add"))), ElementsAre(3));
  EXPECT_THAT(Sums(idle.Call(kPredictPath, One("add"))), ElementsAre(3));
  EXPECT_EQ(ordinary.calls(), 2u);
}

TEST_F(WorkerDeathTest, TheOnlyOneThatComesBackServesAllUntilItIsKilledAgain) {
  TestClient there(address_);
  Start(1);
  Start(2);
  Sums(there.Call(kPredictPath, One("add")));
  const int32_t call = Begin(there, One("run"));
  Eventually([&] { return workers_[1]->held() + workers_[2]->held() == 1; });
  const uint64_t holder = workers_[1]->held() == 1 ? 1 : 2;
  Kill(3 - holder);
  Kill(holder);
  Unavailable(there.Wait(call), HasSubstr("and there is no other"));
  TestWorker& only = Start(3);
  TestClient stranger(address_);
  EXPECT_THAT(Sums(stranger.Call(kPredictPath, One("add"))), ElementsAre(3)) << "nothing was convicted";
  EXPECT_THAT(Sums(there.Call(kPredictPath, One("add"))), ElementsAre(3));
  EXPECT_EQ(only.alone(), 2u);
}

TEST_F(WorkerDeathTest, AVersionWithOneWorkerIsServedAgainAtOnce) {
  TestClient client(address_);
  for (uint64_t id = 1; id < 5; ++id) {
    Start(id);
    const int32_t call = Begin(client, One("run"));
    Eventually([&] { return workers_[id]->held() == 1; });
    Kill(id);
    Unavailable(client.Wait(call), HasSubstr("and there is no other"));
  }
  TestWorker& next = Start(5);
  EXPECT_THAT(Sums(client.Call(kPredictPath, One("add"))), ElementsAre(3));
  EXPECT_EQ(next.alone(), 0u);
}

TEST_F(WorkerDeathTest, SoIsOneWhoseWorkerWasReplacedInOrderBefore) {
  TestClient client(address_);
  Start(1);
  Start(2);
  gateway_->DrainWorker(1);
  Gone(1);
  const int32_t call = Begin(client, One("run"));
  Eventually([&] { return workers_[2]->held() == 1; });
  Kill(2);
  Unavailable(client.Wait(call), HasSubstr("and there is no other"));
  TestWorker& next = Start(3);
  TestClient stranger(address_);
  EXPECT_THAT(Sums(stranger.Call(kPredictPath, One("add"))), ElementsAre(3));
  EXPECT_EQ(next.alone(), 0u);
}

class ShortSuspenseTest : public WorkerDeathTest {
 protected:
  ShortSuspenseTest() : WorkerDeathTest(milliseconds(50)) {}
};

TEST_F(ShortSuspenseTest, NobodyWaitsForEver) {
  TestClient killer(address_);
  Start(1);
  Start(2);
  Attack(killer);
  Start(3);
  const auto& response = killer.Call(kPredictPath, One("add"));
  Unavailable(response, AllOf(StartsWith("Request Servable(s) method(add), requests have killed workers"),
                              HasSubstr("within 50 ms")));
  EXPECT_EQ(response.trailers.at("grpc-retry-pushback-ms"), "100");
  EXPECT_EQ(Refused(Refusal::kQuarantine), 1u);
  NothingHeld();
}

// --- Limits of a servable --------------------------------------------------------------------------------------------

TEST_F(WorkerDeathTest, AServableHasLimitsOfItsOwn) {
  const std::string held = One("hold");
  gateway_->DeclareServable("s", {.max_enqueued_requests = 2, .max_enqueued_bytes = 2 * held.size()});
  Start(1);
  TestWorker other(*gateway_, 2, "other");
  TestClient client(address_);
  const int32_t first = Begin(client, held);
  Eventually([&] { return workers_[1]->held() == 1; });
  const auto& large = client.Call(kPredictPath, held + wire::test::Field(102, std::string(held.size(), 'p')));
  EXPECT_EQ(large.grpc_status(), static_cast<int>(Code::kResourceExhausted));
  EXPECT_THAT(large.grpc_message(),
              AllOf(HasSubstr("exceeds the limit " + std::to_string(2 * held.size()) + " (max_enqueued_bytes)"),
                    HasSubstr("of servable 's'")));
  EXPECT_EQ(large.trailers.at("grpc-retry-pushback-ms"), "-1");
  const auto& now = client.Call(kPredictPath, held + wire::test::Field(102, "p"));
  EXPECT_EQ(now.grpc_status(), static_cast<int>(Code::kResourceExhausted));
  EXPECT_EQ(now.trailers.at("grpc-retry-pushback-ms"), "100");
  EXPECT_EQ(Refused(Refusal::kMaxEnqueuedBytes), 2u);

  const int32_t second = Begin(client, held);
  Eventually([&] { return workers_[1]->held() == 2; });
  const auto& third = client.Call(kPredictPath, held);
  EXPECT_EQ(third.grpc_status(), static_cast<int>(Code::kResourceExhausted));
  EXPECT_EQ(third.grpc_message(),
            "enqueued requests count exceeds the limit 2 (max_enqueued_requests) of servable 's'");
  EXPECT_EQ(third.trailers.at("grpc-retry-pushback-ms"), "100");
  EXPECT_EQ(Refused(Refusal::kMaxEnqueuedRequests), 1u);
  EXPECT_THAT(Sums(client.Call(kPredictPath, PredictRequest("other", "add", 0, {{1, 2}}))), ElementsAre(3));

  workers_[1]->Resume();
  EXPECT_THAT(Sums(client.Wait(first)), ElementsAre(3));
  EXPECT_THAT(Sums(client.Wait(second)), ElementsAre(3));
  for (int i = 0; i < 5; ++i) EXPECT_THAT(Sums(client.Call(kPredictPath, held)), ElementsAre(3));
  gateway_->DeclareServable("s");
  EXPECT_THAT(Sums(client.Call(kPredictPath, held + wire::test::Field(102, std::string(1000, 'p')))), ElementsAre(3));
}

}  // namespace
}  // namespace mindserve::gateway
