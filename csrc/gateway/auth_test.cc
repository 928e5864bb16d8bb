#include "gateway/auth.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <thread>

#include "gateway/direct_calls.h"
#include "gateway/guarded_call.h"
#include "gateway/health_service.h"
#include "gateway/predict_service.h"
#include "gateway/ray_service.h"
#include "gateway/stream_service.h"
#include "gateway/test_client.h"
#include "gateway/test_gateway.h"
#include "gateway/test_user_worker.h"
#include "gateway/test_worker.h"

namespace mindserve::gateway {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

constexpr int kUnauthenticated = static_cast<int>(Code::kUnauthenticated);
constexpr int kDenied = static_cast<int>(Code::kPermissionDenied);
constexpr int kExhausted = static_cast<int>(Code::kResourceExhausted);

std::shared_ptr<const ClientIdentity> Identity(ClientIdentity::Spec spec) {
  return std::make_shared<const ClientIdentity>(std::move(spec));
}

// --- What a call shows ---

TEST(TokenOfTest, TakesBearerInAnyCaseAndOauthToken) {
  EXPECT_EQ(*TokenOf("Bearer a.b.c", ""), "a.b.c");
  EXPECT_EQ(*TokenOf("bearer   a.b-_Z9.c", ""), "a.b-_Z9.c");
  EXPECT_EQ(*TokenOf("", "a.b.c"), "a.b.c");
  EXPECT_EQ(*TokenOf("Basic eA==", "a.b.c"), "a.b.c");
  EXPECT_TRUE(CheckToken("a.b-_Z9.c").ok());
  EXPECT_TRUE(CheckToken("a.b.").ok());  // "alg: none", for whoever verifies it to say so
}

TEST(TokenOfTest, RefusesWhatCanBeNoToken) {
  const auto refusal = [](std::string_view authorization, std::string_view oauth_token) {
    const auto token = TokenOf(authorization, oauth_token);
    const Status status = token.ok() ? CheckToken(*token) : token.status();
    EXPECT_EQ(status.code(), Code::kUnauthenticated) << authorization;
    return status.message();
  };
  EXPECT_THAT(refusal("Basic eA==", ""), HasSubstr("the scheme 'Basic', expected 'Bearer'"));
  EXPECT_THAT(refusal("Bearer", ""), HasSubstr("no JWT"));
  EXPECT_THAT(refusal("Bearer  ", ""), HasSubstr("no JWT"));
  EXPECT_THAT(refusal("Bearer a.b", ""), HasSubstr("no JWT"));
  EXPECT_THAT(refusal("", "a.b.c.d"), HasSubstr("no JWT"));
  EXPECT_THAT(refusal("", "a.b.c,d"), HasSubstr("no JWT"));
  EXPECT_THAT(refusal("", "\napp.example"), HasSubstr("line break"));
  EXPECT_THAT(refusal("", "a.b.\xff"), HasSubstr("no JWT"));
  EXPECT_THAT(refusal("", std::string(kMaxTokenBytes + 1, 'a')), HasSubstr("has 8193 bytes, expected at most 8192"));
  // What may be the token itself is not shown.
  const std::string said = refusal("s3cret.s3cret.s3cret", "");
  EXPECT_THAT(said, HasSubstr("has no scheme"));
  EXPECT_EQ(said.find("s3cret"), std::string::npos);
}

TEST(TokenOfTest, NamesOfCertificatesAreNoTokens) {
  EXPECT_EQ(CertificateNames({{"transport_security_type", "ssl"}}), "");
  EXPECT_EQ(CertificateNames({{"x509_common_name", "app"},
                              {"x509_subject_alternative_name", "app.example"},
                              {"x509_subject_alternative_name", "two\nlines"},
                              {"x509_pem_cert", "-----BEGIN"}}),
            "\napp\napp.example");
}

// --- What a client may ---

TEST(ClientPassTest, LetsInByRateAndBurst) {
  const auto client = Identity({.name = "app", .rate = 10, .burst = 3});
  TimePoint now{seconds(100)};
  ClientPass pass;
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(pass.Enter(client, now)) << i;
  const auto refused = pass.Enter(client, now);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->status.code(), Code::kResourceExhausted);
  EXPECT_THAT(refused->status.message(), HasSubstr("its rate of 10 a second (burst 3)"));
  EXPECT_EQ(refused->retry, milliseconds(100));
  EXPECT_EQ(pass.identity(), nullptr);
  // What was refused costs nothing.
  EXPECT_TRUE(pass.Enter(client, now + milliseconds(99)));
  EXPECT_FALSE(pass.Enter(client, now + milliseconds(100)));
  EXPECT_TRUE(pass.Enter(client, now + milliseconds(150)));
  // A pause is not saved up beyond the burst.
  now += seconds(1000);
  int entered = 0;
  for (int i = 0; i < 10; ++i) entered += !pass.Enter(client, now);
  EXPECT_EQ(entered, 3);
}

TEST(ClientPassTest, CountsWhatIsUnderWay) {
  const auto client = Identity({.name = "app", .max_in_flight = 2});
  const TimePoint now{seconds(1)};
  ClientPass one, two, three;
  EXPECT_FALSE(one.Enter(client, now));
  EXPECT_FALSE(two.Enter(client, now));
  const auto refused = three.Enter(client, now);
  ASSERT_TRUE(refused);
  EXPECT_THAT(refused->status.message(), HasSubstr("max_in_flight"));
  one.Leave();
  one.Leave();
  EXPECT_FALSE(three.Enter(client, now));
  EXPECT_TRUE(one.Enter(client, now));
  {
    const ClientPass moved = std::move(two);
  }
  EXPECT_FALSE(one.Enter(client, now));
}

TEST(ClientPassTest, OneRefusedByItsRateIsNotUnderWay) {
  const auto client = Identity({.name = "app", .rate = 1, .burst = 1, .max_in_flight = 1});
  TimePoint now{seconds(1)};
  ClientPass pass;
  EXPECT_FALSE(pass.Enter(client, now));
  pass.Leave();
  ASSERT_TRUE(pass.Enter(client, now)->by_rate);
  EXPECT_FALSE(pass.Enter(client, now + seconds(1)));
}

TEST(ClientPassTest, OtherTermsGoOnWithWhatWasCounted) {
  const ClientIdentity before({.name = "app", .rate = 1, .burst = 1});
  ClientPass pass;
  const TimePoint now{seconds(1)};
  const auto after =
      std::make_shared<const ClientIdentity>(ClientIdentity::Spec{.name = "app", .max_in_flight = 1}, &before);
  EXPECT_FALSE(pass.Enter(after, now));
  const auto third =
      std::make_shared<const ClientIdentity>(ClientIdentity::Spec{.name = "app", .max_in_flight = 1}, after.get());
  ClientPass other;
  EXPECT_TRUE(other.Enter(third, now));
}

TEST(ClientPassTest, ThreadsShareALimitExactly) {
  const auto client = Identity({.name = "app", .rate = 1, .burst = 1000});
  std::atomic<int> entered{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      ClientPass pass;
      for (int k = 0; k < 1000; ++k) entered += !pass.Enter(client, TimePoint{seconds(5)});
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(entered, 1000);
}

// --- What is known ---

struct Noted final : TokenCache::Waiter {
  void OnVerdict(const TokenCache::Verdict& verdict) override {
    ++told;
    name = verdict.identity == nullptr ? verdict.refusal.message() : verdict.identity->name();
  }
  int told = 0;
  std::string name;
};

TokenCache::Verdict Good(const std::string& name, TimePoint expires = kNever) {
  return {.identity = Identity({.name = name}), .refusal = {}, .expires = expires};
}
TokenCache::Verdict Bad(TimePoint expires = kNever) {
  return {.identity = nullptr, .refusal = {Code::kUnauthenticated, "bad"}, .expires = expires};
}

TEST(TokenCacheTest, ManyCallsWaitForOneVerification) {
  TokenQueue queue;
  TokenCache cache(queue, 3);
  Noted first, second, gone;
  EXPECT_EQ(cache.Find("t", {}), nullptr);
  for (Noted* each : {&first, &second, &gone}) EXPECT_TRUE(cache.Await("t", *each));
  cache.Leave(gone);
  const auto questions = queue.Take(10);
  ASSERT_EQ(questions.size(), 1);
  EXPECT_EQ(questions[0].thread, 3);
  EXPECT_EQ(questions[0].text, "t");
  cache.OnVerdict("t", questions[0].generation, Good("app", TimePoint{seconds(9)}));
  EXPECT_EQ(first.name + second.name, "appapp");
  EXPECT_EQ(first.told + second.told + gone.told, 2);
  ASSERT_NE(cache.Find("t", TimePoint{seconds(8)}), nullptr);
  EXPECT_EQ(cache.Find("t", TimePoint{seconds(9)}), nullptr);
}

TEST(TokenCacheTest, BadOnesAreRememberedAndDriveNoGoodOneOut) {
  TokenQueue queue;
  TokenCache cache(queue, 0);
  cache.OnVerdict("good", 0, Good("app"));
  for (size_t i = 0; i < TokenCache::kMostKept + 5; ++i) cache.OnVerdict("bad" + std::to_string(i), 0, Bad());
  EXPECT_EQ(cache.Find("bad0", {}), nullptr);
  ASSERT_NE(cache.Find("bad5", {}), nullptr);
  EXPECT_EQ(cache.Find("bad5", {})->identity, nullptr);
  ASSERT_NE(cache.Find("good", {}), nullptr);
  EXPECT_NE(cache.Find("good", {})->identity, nullptr);
}

TEST(TokenCacheTest, TheLastUsedStay) {
  TokenQueue queue;
  TokenCache cache(queue, 0);
  for (size_t i = 0; i < TokenCache::kMostKept; ++i) cache.OnVerdict(std::to_string(i), 0, Good("app"));
  EXPECT_NE(cache.Find("0", {}), nullptr);
  cache.OnVerdict("more", 0, Good("app"));
  EXPECT_NE(cache.Find("0", {}), nullptr);
  EXPECT_EQ(cache.Find("1", {}), nullptr);
}

TEST(TokenCacheTest, NewKeysAskAnew) {
  TokenQueue queue;
  TokenCache cache(queue, 0);
  cache.OnVerdict("known", 0, Good("app"));
  Noted waiter;
  EXPECT_TRUE(cache.Await("t", waiter));
  const auto before = queue.Take(10);
  cache.Forget();
  EXPECT_EQ(cache.Find("known", {}), nullptr);
  cache.OnVerdict("t", before[0].generation, Good("of the old keys"));
  EXPECT_EQ(waiter.told, 0);
  const auto after = queue.Take(10);
  ASSERT_EQ(after.size(), 1);
  cache.OnVerdict("t", after[0].generation, Bad());
  EXPECT_EQ(waiter.name, "bad");
}

TEST(TokenCacheTest, OnlySoManyWait) {
  TokenQueue queue;
  TokenCache cache(queue, 0);
  std::vector<Noted> waiters(TokenQueue::kMostWaiting + 2);
  for (size_t i = 0; i < TokenQueue::kMostWaiting; ++i) EXPECT_TRUE(cache.Await(std::to_string(i), waiters[i]));
  EXPECT_FALSE(cache.Await("more", waiters[TokenQueue::kMostWaiting]));
  EXPECT_TRUE(cache.Await("0", waiters[TokenQueue::kMostWaiting + 1]));  // which is asked already
  // None of them is lost when the keys change: there is room for some of the questions, the others are answered.
  cache.Forget();
  size_t answered = 0;
  for (const Noted& each : waiters) answered += each.told;
  EXPECT_EQ(answered, TokenQueue::kMostWaiting + 1);
  queue.Close();
  EXPECT_TRUE(queue.Take(1).empty());
  EXPECT_FALSE(cache.Await("late", waiters[0]));
}

TEST(TokenCacheTest, OneThatIsToldMayMakeOthersLeave) {
  TokenQueue queue;
  TokenCache cache(queue, 0);
  struct Leaving final : TokenCache::Waiter {
    void OnVerdict(const TokenCache::Verdict&) override { cache->Leave(*other); }
    TokenCache* cache = nullptr;
    Noted* other = nullptr;
  } leaving;
  Noted other;
  leaving.cache = &cache;
  leaving.other = &other;
  EXPECT_TRUE(cache.Await("t", leaving));
  EXPECT_TRUE(cache.Await("t", other));
  cache.OnVerdict("t", 0, Good("app"));
  EXPECT_EQ(other.told, 0);
}

// --- Calls ---

// A gateway that asks for tokens, and somebody who verifies them.
class AuthTest : public GatewayTest {
 protected:
  AuthTest() { gateway_->RequireTokens(); }
  ~AuthTest() override {
    gateway_->CloseTokens();
    if (verifier_.joinable()) verifier_.join();
  }

  // Without it nobody verifies anything.
  void Verify() {
    verifier_ = std::thread([this] {
      for (auto taken = gateway_->TakeTokens(10); !taken.empty(); taken = gateway_->TakeTokens(10)) {
        for (const TokenQueue::Question& each : taken) {
          const std::lock_guard lock(mutex_);
          ++asked_[each.text];
          const auto found = clients_.find(each.text);
          gateway_->AnswerToken(
              each, found == clients_.end() ? Bad() : TokenCache::Verdict{.identity = found->second, .refusal = {}});
        }
      }
    });
  }
  void Know(const std::string& token, ClientIdentity::Spec spec) {
    const std::lock_guard lock(mutex_);
    clients_[token] = Identity(std::move(spec));
  }
  void Revoke(const std::string& token) {
    {
      const std::lock_guard lock(mutex_);
      clients_.erase(token);
    }
    gateway_->ForgetTokens();
  }
  int asked(const std::string& token) {
    const std::lock_guard lock(mutex_);
    return asked_[token];
  }
  static TestClient::Fields Bearing(const std::string& token) { return {{"authorization", "Bearer " + token}}; }
  static std::string Request(const std::string& servable, const std::string& method = "add") {
    return PredictRequest(servable, method, 0, {{1, 2}});
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<const ClientIdentity>> clients_;
  std::map<std::string, int> asked_;
  std::thread verifier_;
};

TEST_F(AuthTest, AKnownTokenIsLetInAndOthersAreNot) {
  Verify();
  Know("a.b.c", {.name = "app"});
  TestWorker worker(*gateway_, 1, "sum");
  TestClient client(Listen());
  for (int i = 0; i < 3; ++i) {
    const auto& response = client.Call(kPredictPath, Request("sum"), Bearing("a.b.c"));
    EXPECT_EQ(response.grpc_status(), 0) << response.grpc_message();
    EXPECT_EQ(ParseReply(response.messages().at(0)).sums, std::vector<float>{3});
  }
  EXPECT_EQ(client.Call(kPredictPath, Request("sum"), {{"oauth_token", "a.b.c"}}).grpc_status(), 0);
  EXPECT_EQ(asked("a.b.c"), 1);
  for (int i = 0; i < 3; ++i) {
    const auto& refused = client.Call(kPredictPath, Request("sum"), Bearing("x.y.z"));
    EXPECT_EQ(refused.grpc_status(), kUnauthenticated);
    EXPECT_EQ(refused.grpc_message(), "bad");
  }
  EXPECT_EQ(asked("x.y.z"), 1);
  EXPECT_THAT(client.Call(kPredictPath, Request("sum")).grpc_message(), HasSubstr("the call carries no token"));
  EXPECT_EQ(client.Call(kPredictPath, Request("sum"), {{"authorization", "Basic eA=="}}).grpc_status(),
            kUnauthenticated);
  EXPECT_EQ(worker.calls(), 4);
}

TEST_F(AuthTest, HealthChecksNeedNoToken) {
  TestClient client(Listen());
  EXPECT_EQ(client.Call(kHealthCheckPath, "").grpc_status(), 0);
}

TEST_F(AuthTest, AClientCallsOnlyItsServables) {
  Verify();
  Know("a.b.c", {.name = "app", .servables = {{"sum"}}});
  TestWorker sum(*gateway_, 1, "sum"), other(*gateway_, 2, "other");
  TestClient client(Listen());
  EXPECT_EQ(client.Call(kPredictPath, Request("sum"), Bearing("a.b.c")).grpc_status(), 0);
  for (const char* name : {"other", "unknown"}) {
    const auto& denied = client.Call(kPredictPath, Request(name), Bearing("a.b.c"));
    EXPECT_EQ(denied.grpc_status(), kDenied);
    EXPECT_THAT(denied.grpc_message(), HasSubstr("client 'app' may not call servable '" + std::string(name) + "'"));
  }
  EXPECT_EQ(other.calls(), 0);
}

TEST_F(AuthTest, AClientIsAllowedTheNameThatItCallsNotWhatStandsBehindIt) {
  constexpr const char* kUnary = "/t.Users/Unary";
  ASSERT_TRUE(gateway_->SetServices({{.name = "t.Users", .methods = {{"Unary", false, false}}}}, "").ok());
  Verify();
  Know("n.a.me", {.name = "outside", .servables = {{"both"}}});
  Know("o.n.e", {.name = "inside", .servables = {{"one"}}});
  const std::vector<WorkerSpec::Method> methods = {{kUnary, true}, {StreamPath("many"), true}};
  TestUserWorker one(*gateway_, 1, "one", methods), two(*gateway_, 2, "two", methods);
  one.Echo();
  two.Echo();
  TestWorker plain_one(*gateway_, 3, "plain one"), plain_two(*gateway_, 4, "plain two");
  ASSERT_TRUE(gateway_
                  ->SetTraffic({{.name = "both", .variations = {{"a", "one"}, {"b", "two"}}},
                                {.name = "plain", .variations = {{"a", "plain one"}, {"b", "plain two"}}}})
                  .ok());
  Know("p.lai.n", {.name = "plain", .servables = {{"plain"}}});
  TestClient client(Listen());
  struct Kind {
    const char* path;
    std::string token, name, variation, message, variations_message;
    std::string application = {}, variations_application = {};
  };
  for (const Kind& kind : std::vector<Kind>{
           {kPredictPath, "p.lai.n", "plain", "plain one", Request("plain"), Request("plain one")},
           {kPredictStreamPath, "p.lai.n", "plain", "plain one", Request("plain"), Request("plain one")},
           {kPredictStreamPath, "n.a.me", "both", "one", Request("both", "many"), Request("one", "many")},
           {kUnary, "n.a.me", "both", "one", "x", "x", "both", "one"},
       }) {
    SCOPED_TRACE(std::string(kind.path) + " " + kind.name);
    const auto call = [&](const std::string& token, const std::string& message, const std::string& application) {
      auto fields = Bearing(token);
      if (!application.empty()) fields.emplace_back("application", application);
      return client.Call(kind.path, message, fields);
    };
    std::map<std::string, int> told;
    for (int i = 0; i < 4; ++i) {
      // One that may not call it takes nobody's turn, and learns nothing of variations.
      auto denied = call("o.n.e", kind.message, kind.application);
      EXPECT_EQ(denied.grpc_status(), kDenied);
      EXPECT_THAT(denied.grpc_message(), HasSubstr("may not call servable '" + kind.name + "'"));
      EXPECT_FALSE(denied.trailers.contains("mindserve-variation"));
      EXPECT_TRUE(denied.trailers.contains("request_id"));
      auto answered = call(kind.token, kind.message, kind.application);
      EXPECT_EQ(answered.grpc_status(), 0) << answered.grpc_message();
      ++told[answered.trailers["mindserve-variation"]];
    }
    EXPECT_EQ(told, (std::map<std::string, int>{{"a", 2}, {"b", 2}}));
    const auto denied = call(kind.token, kind.variations_message, kind.variations_application);
    EXPECT_EQ(denied.grpc_status(), kDenied);
    EXPECT_THAT(denied.grpc_message(), HasSubstr("may not call servable '" + kind.variation + "'"));
  }
  EXPECT_EQ(client.Call(kUnary, "x", Bearing("n.a.me")).grpc_status(), 0) << "the name is the only one that is meant";
  EXPECT_EQ(client.Call(kUnary, "x", Bearing("o.n.e")).grpc_status(), kDenied);
  EXPECT_EQ(client.Call(kListApplicationsPath, "", Bearing("n.a.me")).messages().at(0), wire::test::Field(1, "both"));
}

TEST_F(AuthTest, AClientKeepsToItsLimits) {
  Verify();
  Know("r.a.te", {.name = "rated", .rate = 0.001, .burst = 2});
  Know("o.n.e", {.name = "single", .max_in_flight = 1});
  TestWorker worker(*gateway_, 1, "sum");
  TestClient client(Listen());
  for (int i = 0; i < 2; ++i) EXPECT_EQ(client.Call(kPredictPath, Request("sum"), Bearing("r.a.te")).grpc_status(), 0);
  auto refused = client.Call(kPredictPath, Request("sum"), Bearing("r.a.te"));
  EXPECT_EQ(refused.grpc_status(), kExhausted);
  EXPECT_THAT(refused.grpc_message(), HasSubstr("client 'rated' makes more calls than its rate of 0.001"));
  EXPECT_GT(std::stoi(refused.trailers["grpc-retry-pushback-ms"]), 900'000);

  const int32_t held = client.Start(kPredictPath, Framed(Request("sum", "hold")), true, Bearing("o.n.e"));
  client.Flush();
  EXPECT_TRUE(Eventually([&] { return worker.calls() == 3; }));
  refused = client.Call(kPredictPath, Request("sum"), Bearing("o.n.e"));
  EXPECT_EQ(refused.grpc_status(), kExhausted);
  EXPECT_THAT(refused.grpc_message(), HasSubstr("client 'single' has 1 calls under way"));
  worker.Resume();
  EXPECT_EQ(client.Wait(held).grpc_status(), 0);
  EXPECT_EQ(client.Call(kPredictPath, Request("sum"), Bearing("o.n.e")).grpc_status(), 0);
  const auto stats = gateway_->GetStats();
  EXPECT_EQ(stats.refused[static_cast<size_t>(Refusal::kRate)], 1);
  EXPECT_EQ(stats.refused[static_cast<size_t>(Refusal::kMaxInFlight)], 1);
}

TEST_F(AuthTest, ARevokedTokenIsRefusedFromThenOn) {
  Verify();
  Know("a.b.c", {.name = "app"});
  TestWorker worker(*gateway_, 1, "sum");
  TestClient client(Listen());
  EXPECT_EQ(client.Call(kPredictPath, Request("sum"), Bearing("a.b.c")).grpc_status(), 0);
  Revoke("a.b.c");
  EXPECT_EQ(client.Call(kPredictPath, Request("sum"), Bearing("a.b.c")).grpc_status(), kUnauthenticated);
}

TEST_F(AuthTest, WhileATokenIsVerifiedCallsMayEnd) {
  TestWorker worker(*gateway_, 1, "sum");
  TestClient client(Listen());
  TestClient::Fields late = Bearing("a.b.c");
  late.emplace_back("grpc-timeout", "50m");
  EXPECT_EQ(client.Call(kPredictPath, Request("sum"), late).grpc_status(), static_cast<int>(Code::kDeadlineExceeded));
  const int32_t cancelled = client.Start(kPredictPath, Framed(Request("sum")), true, Bearing("a.b.c"));
  const int32_t slow = client.Start(kPredictPath, Framed(Request("sum")).substr(0, 7), false, Bearing("a.b.c"));
  client.Flush();
  client.Reset(cancelled);
  client.Send(slow, Framed(Request("sum")).substr(7), true);
  client.Flush();
  EXPECT_TRUE(Eventually([&] { return gateway_->GetStats().methods.size() > 0 && gateway_->GetStats().errors == 2; }));
  Know("a.b.c", {.name = "app"});
  Verify();
  EXPECT_EQ(client.Wait(slow).grpc_status(), 0) << client.Wait(slow).grpc_message();
  EXPECT_EQ(worker.calls(), 1);
  EXPECT_EQ(asked("a.b.c"), 1);
}

TEST_F(AuthTest, AFloodOfUnknownTokensStopsNobodyWhoIsKnown) {
  Know("a.b.c", {.name = "app"});
  TestWorker worker(*gateway_, 1, "sum");
  TestClient client(Listen({.max_concurrent_streams = 5'000}));
  const int32_t first = client.Start(kPredictPath, Framed(Request("sum")), true, Bearing("a.b.c"));
  client.Flush();
  // Somebody verifies the first one, then nobody does.
  const auto question = gateway_->TakeTokens(1).at(0);
  gateway_->AnswerToken(question, {.identity = Identity({.name = "app"}), .refusal = {}});
  EXPECT_EQ(client.Wait(first).grpc_status(), 0);
  std::vector<int32_t> flood;
  for (size_t i = 0; i < TokenQueue::kMostWaiting + 10; ++i) {
    flood.push_back(
        client.Start(kPredictPath, Framed(Request("sum")), true, Bearing("bad." + std::to_string(i) + ".x")));
  }
  const auto& refused = client.Wait(flood.back());
  EXPECT_EQ(refused.grpc_status(), kExhausted);
  EXPECT_THAT(refused.grpc_message(), HasSubstr("too many tokens wait to be verified"));
  EXPECT_EQ(refused.trailers.count("grpc-retry-pushback-ms"), 1);
  EXPECT_EQ(client.Call(kPredictPath, Request("sum"), Bearing("a.b.c")).grpc_status(), 0);
  Verify();
  EXPECT_EQ(client.Wait(flood.front()).grpc_status(), kUnauthenticated);
}

TEST_F(AuthTest, CallsThatWaitEndWithTheServer) {
  TestClient client(Listen());
  const int32_t waiting = client.Start(kPredictPath, Framed(Request("sum")), true, Bearing("a.b.c"));
  client.Flush();
  EXPECT_EQ(gateway_->TakeTokens(1).at(0).text, "a.b.c");
  gateway_->StopListening(milliseconds(0));
  client.RunUntil([&] { return client.response(waiting).closed || client.ended(); });
  EXPECT_NE(client.response(waiting).grpc_status(), 0);
}

TEST_F(AuthTest, AServiceLivesAsLongAsACallWaitsForIt) {
  TestClient client(Listen());
  ASSERT_TRUE(gateway_->SetServices({{.name = "pkg.Old", .methods = {{.name = "Do"}}}}, "").ok());
  const int32_t waiting = client.Start("/pkg.Old/Do", Framed(""), true, Bearing("a.b.c"));
  client.Flush();
  const auto question = gateway_->TakeTokens(1).at(0);
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(gateway_->SetServices({}, "").ok());
  gateway_->AnswerToken(question, {.identity = Identity({.name = "app"}), .refusal = {}});
  const auto& response = client.Wait(waiting);
  EXPECT_EQ(response.grpc_status(), static_cast<int>(Code::kUnavailable)) << response.grpc_message();
}

TEST_F(AuthTest, CallsFromInsideShowTheirTokensToo) {
  Verify();
  Know("a.b.c", {.name = "app", .servables = {{"sum"}}});
  TestWorker worker(*gateway_, 1, "sum");
  Listen();
  const auto calls = *gateway_->NewDirectCalls();
  const auto call = [&](const std::string& servable, Metadata metadata, net::AuthProperties auth = {}) {
    const auto message = std::make_shared<const std::string>(Request(servable));
    DirectRequest request{.path = kPredictPath, .metadata = std::move(metadata), .auth = std::move(auth)};
    request.messages.push_back({.bytes = std::as_bytes(std::span(*message)), .holder = message});
    calls->Start(std::move(request));
    std::optional<Status> end;
    EXPECT_TRUE(Eventually([&] {
      std::vector<DirectEvent> events;
      calls->Take(&events);
      for (DirectEvent& event : events) {
        if (event.kind == DirectEvent::Kind::kEnd) end = std::move(event.status);
      }
      return end.has_value();
    }));
    return end.value_or(Status(Code::kUnknown, "no end"));
  };
  EXPECT_EQ(call("sum", {}).code(), Code::kUnauthenticated);
  EXPECT_EQ(call("sum", {{"oauth_token", "x.y.z"}}).code(), Code::kUnauthenticated);
  EXPECT_EQ(call("sum", {{"oauth_token", "a.b.c"}}), Status::Ok());
  EXPECT_EQ(call("sum", {{"authorization", "Bearer a.b.c"}}), Status::Ok());
  EXPECT_EQ(call("other", {{"oauth_token", "a.b.c"}}).code(), Code::kPermissionDenied);
  Know("\napp.example", {.name = "certified"});
  EXPECT_EQ(call("sum", {}, {{"x509_common_name", "app.example"}}), Status::Ok());
}

}  // namespace
}  // namespace mindserve::gateway
