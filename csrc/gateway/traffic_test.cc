// Names that are split: which variation answers a call, as its client and the statistics see it.
#include "gateway/traffic.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <memory>

#include "gateway/health_service.h"
#include "gateway/predict_service.h"
#include "gateway/ray_service.h"
#include "gateway/test_client.h"
#include "gateway/test_gateway.h"
#include "gateway/test_user_worker.h"
#include "gateway/test_worker.h"

namespace mindserve::gateway {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

SplitSpec Weights(const std::vector<double>& weights) {
  SplitSpec spec{.name = "s", .variations = {}};
  for (const double weight : weights) {
    spec.variations.push_back(
        {.name = std::string(1, static_cast<char>('a' + spec.variations.size())), .servable = "x", .weight = weight});
  }
  return spec;
}

std::map<std::string, int> Turns(Split& split, int calls) {
  std::map<std::string, int> turns;
  for (int i = 0; i < calls; ++i) ++turns[split.Next().name];
  return turns;
}

TEST(SplitTest, TurnsAreExactlyAsWeightsSay) {
  Split canary(Weights({0.9, 0.1}));
  EXPECT_THAT(Turns(canary, 10'000), ElementsAre(Pair("a", 9'000), Pair("b", 1'000)));
  Split even(Weights({1, 1}));
  EXPECT_THAT(Turns(even, 10'000), ElementsAre(Pair("a", 5'000), Pair("b", 5'000)));
  Split alone(Weights({0.25}));
  EXPECT_THAT(Turns(alone, 10), ElementsAre(Pair("a", 10)));
  EXPECT_EQ(NameOf(&alone.Next()), "a");
  EXPECT_EQ(NameOf(nullptr), "default");
  Split paused(Weights({3, 0, 1}));
  EXPECT_THAT(Turns(paused, 10'000), ElementsAre(Pair("a", 7'500), Pair("c", 2'500)));
  Split odd(Weights({50, 33.3, 16.7}));
  const auto turns = Turns(odd, 10'000);
  EXPECT_NEAR(turns.at("a"), 5'000, 1);
  EXPECT_NEAR(turns.at("b"), 3'330, 1);
  EXPECT_NEAR(turns.at("c"), 1'670, 1);
}

TEST(SplitTest, AfterAnyNumberOfCallsEachHasHadItsShare) {
  Split split(Weights({5, 3, 2}));
  std::map<std::string, double> had;
  for (int calls = 1; calls <= 1'000; ++calls) {
    ++had[split.Next().name];
    EXPECT_NEAR(had["a"], calls * 0.5, 1);
    EXPECT_NEAR(had["b"], calls * 0.3, 1);
    EXPECT_NEAR(had["c"], calls * 0.2, 1);
  }
}

TEST(SplitTest, AWeightThatIsNextToNothingStillIsSome) {
  Split split(Weights({1e300, 1e-300}));
  EXPECT_EQ(split.variations()[1].share, 1);
  EXPECT_THAT(Turns(split, 100), ElementsAre(Pair("a", 100)));
}

std::map<std::string, std::string> Homes(Split& split, int values) {
  std::map<std::string, std::string> homes;
  for (int i = 0; i < values; ++i) homes["user-" + std::to_string(i)] = split.For("user-" + std::to_string(i)).name;
  return homes;
}

TEST(SplitTest, AValueAlwaysGoesToTheSameVariation) {
  Split one(Weights({1, 2, 1}));
  Split other(Weights({10, 20, 10}));
  const auto homes = Homes(one, 1'000);
  EXPECT_EQ(Homes(one, 1'000), homes);
  EXPECT_EQ(Homes(other, 1'000), homes);
  // Over processes and releases too.
  EXPECT_EQ(one.For("alice").name, "c");
  EXPECT_EQ(one.For("bob").name, "b");
}

TEST(SplitTest, ValuesAreSharedOutByWeight) {
  Split split(Weights({0.7, 0.3, 0}));
  std::map<std::string, int> values;
  for (const auto& [value, home] : Homes(split, 20'000)) ++values[home];
  // 20,000 values drawn at random: 0.7 give or take five standard deviations.
  EXPECT_NEAR(values.at("a"), 14'000, 5 * std::sqrt(20'000 * 0.7 * 0.3));
  EXPECT_FALSE(values.contains("c"));
}

TEST(SplitTest, WhenWeightsChangeOnlyThoseValuesMoveThatMust) {
  Split before(Weights({0.9, 0.1}));
  Split after(Weights({0.6, 0.4}));
  int moved = 0;
  const auto homes = Homes(before, 10'000);
  for (const auto& [value, home] : Homes(after, 10'000)) {
    if (home == homes.at(value)) continue;
    ++moved;
    EXPECT_EQ(home, "b") << "from where weight was lost to where it was gained";
  }
  EXPECT_NEAR(moved, 3'000, 5 * std::sqrt(10'000 * 0.3 * 0.7));
  // One that is added takes from all, and none goes between those that were there.
  Split three(Weights({0.9, 0.1, 0.5}));
  for (const auto& [value, home] : Homes(three, 10'000)) {
    EXPECT_TRUE(home == homes.at(value) || home == "c") << value;
  }
}

TEST(CheckSplitsTest, SaysWhatIsWrong) {
  const auto error = [](const SplitSpec& spec) {
    const Status status = CheckSplits({spec});
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    return status.message();
  };
  EXPECT_TRUE(CheckSplits({Weights({1, 0, 0.5})}).ok());
  EXPECT_TRUE(CheckSplits({}).ok());
  EXPECT_THAT(error(Weights({})), HasSubstr("traffic of 's': there are no variations"));
  EXPECT_THAT(error(Weights({1, -0.5})), HasSubstr("variation 'b' has weight -0.5"));
  EXPECT_THAT(error(Weights({std::nan(""), 1})), HasSubstr("variation 'a' has weight nan"));
  EXPECT_THAT(error(Weights({std::numeric_limits<double>::infinity()})), HasSubstr("has weight inf"));
  EXPECT_THAT(error(Weights({1e308, 1e308})), HasSubstr("the weights sum to inf"));
  EXPECT_THAT(error(Weights({0, 0})), HasSubstr("the weights sum to 0"));
  SplitSpec twice = Weights({1, 1});
  twice.variations[1].name = "a";
  EXPECT_THAT(error(twice), HasSubstr("variation 'a' is given twice"));
  for (const std::string& name : {std::string(), std::string("a b"), std::string("\xc3\xa9"), std::string(65, 'a')}) {
    SplitSpec named = Weights({1});
    named.variations[0].name = name;
    EXPECT_THAT(error(named), HasSubstr("should have a name of 1 to 64 letters"));
  }
  SplitSpec nowhere = Weights({1});
  nowhere.variations[0].servable = "";
  EXPECT_THAT(error(nowhere), HasSubstr("variation 'a' has no servable"));
  for (const double fraction : {-0.1, 1.1, std::nan("")}) {
    SplitSpec mirrored = Weights({1});
    mirrored.mirrors.push_back({.servable = "m", .fraction = fraction});
    EXPECT_THAT(error(mirrored), HasSubstr("the mirror 'm' has the fraction"));
  }
  SplitSpec mirrored = Weights({1});
  mirrored.mirrors.push_back({.servable = ""});
  EXPECT_THAT(error(mirrored), HasSubstr("a mirror has no servable"));
  SplitSpec nameless = Weights({1});
  nameless.name = "";
  EXPECT_THAT(error(nameless), HasSubstr("a name that is empty"));
  EXPECT_THAT(CheckSplits({Weights({1}), Weights({1})}).message(), HasSubstr("'s' is given twice"));
}

class TrafficTest : public GatewayTest {
 protected:
  TrafficTest() : GatewayTest(1) {}

  static SplitSpec Half(const std::string& a = "one", const std::string& b = "two") {
    return {.name = "both",
            .variations = {{.name = "a", .servable = a, .version = 0, .weight = 1},
                           {.name = "b", .servable = b, .version = 0, .weight = 1}}};
  }
  static std::string One(const std::string& servable, uint64_t version = 0, const std::string& method = "add") {
    return PredictRequest(servable, method, version, {{1, 2}});
  }
  Gateway::MethodStats Counted(const std::string& variation, const std::string& method = "add") const {
    for (auto& each : gateway_->GetStats().methods) {
      if (each.key.variation == variation && each.key.method == method) return each;
    }
    return {};
  }
  static uint64_t Ended(const Gateway::MethodStats& stats, Code code) { return stats.ended[static_cast<size_t>(code)]; }
};

TEST_F(TrafficTest, CallsGoToTheVariationsInTurnAndAreTold) {
  TestWorker one(*gateway_, 1, "one");
  TestWorker two(*gateway_, 2, "two", 7);
  ASSERT_TRUE(gateway_->SetTraffic({Half()}).ok());
  TestClient client(Listen());
  std::map<std::string, int> told;
  for (int i = 0; i < 10; ++i) {
    const auto& response = client.Call(kPredictPath, One("both"));
    ASSERT_EQ(response.grpc_status(), 0) << response.grpc_message();
    const PredictReply reply = ParseReply(response.messages().at(0));
    EXPECT_EQ(reply.spec, wire::test::Spec("both", "add", 0)) << "as the client asked";
    EXPECT_THAT(reply.sums, ElementsAre(3));
    ++told[response.trailers.at("mindserve-variation")];
  }
  EXPECT_THAT(told, ElementsAre(Pair("a", 5), Pair("b", 5)));
  EXPECT_EQ(one.calls(), 5u);
  EXPECT_EQ(two.calls(), 5u);
  const auto counted = Counted("b");
  EXPECT_EQ(counted.key, (MethodKey{kPredictPath, "two", 7, "add", "both", "b"}));
  EXPECT_EQ(Ended(counted, Code::kOk), 5u);
  EXPECT_EQ(counted.instances, 5u);
  EXPECT_EQ(counted.latency_ns.count, 5u);
}

TEST_F(TrafficTest, WhatIsNotSplitIsAsEver) {
  TestWorker one(*gateway_, 1, "one");
  TestWorker two(*gateway_, 2, "two");
  ASSERT_TRUE(gateway_->SetTraffic({Half()}).ok());
  TestClient client(Listen());
  const auto& response = client.Call(kPredictPath, One("one"));
  EXPECT_EQ(response.grpc_status(), 0);
  EXPECT_FALSE(response.trailers.contains("mindserve-variation"));
  EXPECT_EQ(Ended(Counted(""), Code::kOk), 1u);
}

TEST_F(TrafficTest, VersionsOfOneServableMayBeSplitUnderItsName) {
  TestWorker first(*gateway_, 1, "one", 1);
  TestWorker second(*gateway_, 2, "one", 2);
  SplitSpec spec = Half("one", "one");
  spec.name = "one";
  spec.variations[0].version = 1;
  spec.variations[1].version = 2;
  ASSERT_TRUE(gateway_->SetTraffic({spec}).ok());
  TestClient client(Listen());
  for (int i = 0; i < 6; ++i) ASSERT_EQ(client.Call(kPredictPath, One("one")).grpc_status(), 0);
  EXPECT_EQ(first.calls(), 3u);
  EXPECT_EQ(second.calls(), 3u);
  // Who asks for a version gets it.
  for (int i = 0; i < 4; ++i) ASSERT_EQ(client.Call(kPredictPath, One("one", 1)).grpc_status(), 0);
  EXPECT_EQ(first.calls(), 7u);
  // A version of a name that no servable has is none.
  ASSERT_TRUE(gateway_->SetTraffic({Half("one", "one")}).ok());
  const auto& response = client.Call(kPredictPath, One("both", 1));
  EXPECT_THAT(ParseReply(response.messages().at(0)).errors,
              ElementsAre(Pair(5, HasSubstr("Servable(both) method(add) version(1), servable is not available: only "
                                            "calls without a version are split"))));
}

TEST_F(TrafficTest, CallsWithTheSameMetadataGoTogether) {
  TestWorker one(*gateway_, 1, "one");
  TestWorker two(*gateway_, 2, "two");
  SplitSpec spec = Half();
  spec.sticky = "user";
  ASSERT_TRUE(gateway_->SetTraffic({spec}).ok());
  TestClient client(Listen());
  Split split(spec);
  for (const char* user : {"alice", "bob", "carol", "dave", "erin", "frank"}) {
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(client.Call(kPredictPath, One("both"), {{"user", user}}).trailers.at("mindserve-variation"),
                split.For(user).name);
    }
  }
  // Without it they take turns.
  std::map<std::string, int> told;
  for (int i = 0; i < 4; ++i) ++told[client.Call(kPredictPath, One("both")).trailers.at("mindserve-variation")];
  EXPECT_THAT(told, ElementsAre(Pair("a", 2), Pair("b", 2)));
}

TEST_F(TrafficTest, WeightsChangeWhileCallsAreUnderWay) {
  TestWorker one(*gateway_, 1, "one");
  TestWorker two(*gateway_, 2, "two");
  ASSERT_TRUE(gateway_->SetTraffic({Half("one", "one")}).ok());
  TestClient client(Listen());
  const int32_t held = client.Start(kPredictPath, Framed(One("both", 0, "hold")));
  client.Flush();
  ASSERT_TRUE(Eventually([&] { return one.held() == 1; }));
  SplitSpec other = Half();
  other.variations.erase(other.variations.begin());
  ASSERT_TRUE(gateway_->SetTraffic({other}).ok());
  EXPECT_EQ(client.Call(kPredictPath, One("both")).trailers.at("mindserve-variation"), "b");
  ASSERT_TRUE(gateway_->SetTraffic({}).ok());
  EXPECT_THAT(ParseReply(client.Call(kPredictPath, One("both")).messages().at(0)).errors,
              ElementsAre(Pair(5, HasSubstr("servable is not available"))));
  one.Resume();
  const auto& response = client.Wait(held);
  EXPECT_EQ(response.grpc_status(), 0);
  EXPECT_EQ(response.trailers.at("mindserve-variation"), "a");
  EXPECT_EQ(Ended(Counted("a", "hold"), Code::kOk), 1u);
}

TEST_F(TrafficTest, WrongTrafficChangesNothing) {
  TestWorker one(*gateway_, 1, "one");
  ASSERT_TRUE(gateway_->SetTraffic({Half("one", "one")}).ok());
  SplitSpec wrong = Half();
  wrong.variations[0].weight = -1;
  EXPECT_EQ(gateway_->SetTraffic({wrong}).code(), Code::kInvalidArgument);
  TestClient client(Listen());
  EXPECT_EQ(client.Call(kPredictPath, One("both")).grpc_status(), 0);
}

TEST_F(TrafficTest, AVariationWithoutAnAnswerIsNamed) {
  TestWorker one(*gateway_, 1, "one");
  gateway_->DeclareServable("two");
  ASSERT_TRUE(gateway_->SetTraffic({Half("two", "three")}).ok());
  TestClient client(Listen());
  const auto& first = client.Call(kPredictPath, One("both"), {{"request_id", "r1"}});
  EXPECT_EQ(first.grpc_status(), static_cast<int>(Code::kUnavailable));
  EXPECT_THAT(first.grpc_message(),
              HasSubstr("Request Servable(both) method(add) variation(a: Servable(two) method(add)), no worker of the "
                        "servable is running"));
  EXPECT_EQ(first.trailers.at("mindserve-variation"), "a");
  EXPECT_EQ(first.trailers.at("request_id"), "r1");
  const auto& second = client.Call(kPredictPath, One("both"));
  EXPECT_THAT(ParseReply(second.messages().at(0)).errors,
              ElementsAre(Pair(5, AllOf(HasSubstr("variation(b: Servable(three)"), HasSubstr("is not available")))));
  EXPECT_EQ(second.trailers.at("mindserve-variation"), "b");
  EXPECT_TRUE(second.trailers.contains("request_id"));
  EXPECT_EQ(Ended(Counted("a", ""), Code::kUnavailable), 1u);
  EXPECT_EQ(Counted("b", "").with_errors, 1u);
}

TEST_F(TrafficTest, AfterADeathARequestStaysWithItsVariation) {
  auto dying = std::make_unique<TestWorker>(*gateway_, 1, "one");
  TestWorker two(*gateway_, 3, "two");
  SplitSpec spec = Half();
  spec.variations[1].weight = 1e-9;
  ASSERT_TRUE(gateway_->SetTraffic({spec}).ok());
  TestClient client(Listen());
  const int32_t call = client.Start(kPredictPath, Framed(One("both", 0, "hold")));
  client.Flush();
  ASSERT_TRUE(Eventually([&] { return dying->held() == 1; }));
  TestWorker other(*gateway_, 2, "one");
  other.Resume();
  dying->Die();
  const auto& response = client.Wait(call);
  EXPECT_EQ(response.grpc_status(), 0) << response.grpc_message();
  EXPECT_EQ(response.trailers.at("mindserve-variation"), "a");
  EXPECT_EQ(other.calls(), 1u);
  EXPECT_EQ(two.calls(), 0u);
}

TEST_F(TrafficTest, CountsOfVersionsThatAreGoneAreMergedAndCountedOn) {
  ASSERT_TRUE(gateway_->SetTraffic({Half("one", "one")}).ok());
  TestClient client(Listen());
  constexpr size_t kVersions = CallStats::kMostRemoved + 3;
  for (uint64_t version = 1; version <= kVersions; ++version) {
    TestWorker worker(*gateway_, version, "one", version);
    ASSERT_EQ(client.Call(kPredictPath, One("both")).grpc_status(), 0);
    gateway_->DetachWorker(version);
    gateway_->RemoveVersion("one", version);
  }
  uint64_t ended = 0;
  for (const auto& each : gateway_->GetStats().methods) {
    if (each.key.method == "add" && !each.key.variation.empty()) ended += Ended(each, Code::kOk);
  }
  EXPECT_EQ(ended, kVersions);
  EXPECT_EQ(Ended(Counted("a"), Code::kOk) + Ended(Counted("b"), Code::kOk), 3u) << "of version 0, the first of each";
}

TEST_F(TrafficTest, HealthAndApplicationsKnowTheName) {
  TestWorker two(*gateway_, 2, "two");
  ASSERT_TRUE(gateway_->SetTraffic({Half()}).ok());
  TestClient client(Listen());
  const auto status = [&] {
    const auto& response = client.Call(kHealthCheckPath, wire::test::Field(1, "both"));
    return response.messages().empty() ? std::string(response.grpc_message()) : response.messages().at(0);
  };
  EXPECT_EQ(status(), wire::WriteHealthResponse(wire::ServingStatus::kServing)) << "one of them lives";
  SplitSpec spec = Half();
  spec.variations[1].weight = 0;
  ASSERT_TRUE(gateway_->SetTraffic({spec}).ok());
  EXPECT_EQ(status(), wire::WriteHealthResponse(wire::ServingStatus::kNotServing)) << "it gets no calls";
  EXPECT_EQ(client.Call(kListApplicationsPath, "").messages().at(0),
            wire::test::Field(1, "both") + wire::test::Field(1, "two"));
  ASSERT_TRUE(gateway_->SetTraffic({}).ok());
  EXPECT_THAT(status(), HasSubstr("no servable or service 'both' is known"));
}

class UserTrafficTest : public TrafficTest {
 protected:
  static constexpr const char* kPath = "/t.Users/Unary";
  std::unique_ptr<TestUserWorker> Start(uint64_t id, const std::string& servable) {
    auto worker =
        std::make_unique<TestUserWorker>(*gateway_, id, servable, std::vector<WorkerSpec::Method>{{kPath, false}});
    worker->Echo();
    return worker;
  }
  void SetUp() override {
    ASSERT_TRUE(gateway_->SetServices({{.name = "t.Users", .methods = {{"Unary", false, false}}}}, "").ok());
  }
};

TEST_F(UserTrafficTest, UsersCallsAreSplitToo) {
  const auto one = Start(1, "one");
  const auto two = Start(2, "two");
  TestClient client(Listen());
  EXPECT_EQ(client.Call(kPath, "x").grpc_status(), static_cast<int>(Code::kNotFound)) << "two that may be meant";
  ASSERT_TRUE(gateway_->SetTraffic({Half()}).ok());
  std::map<std::string, int> told;
  // Who names no servable means the name that stands for both.
  for (int i = 0; i < 4; ++i) ++told[client.Call(kPath, "x").trailers.at("mindserve-variation")];
  for (int i = 0; i < 4; ++i) {
    const auto& response = client.Call(kPath, "x", {{"application", "both"}});
    EXPECT_THAT(response.messages(), ElementsAre("x"));
    EXPECT_TRUE(response.trailers.contains("request_id"));
    ++told[response.trailers.at("mindserve-variation")];
  }
  EXPECT_THAT(told, ElementsAre(Pair("a", 4), Pair("b", 4)));
  EXPECT_EQ(one->calls(), 4u);
  EXPECT_EQ(Ended(Counted("b", "Unary"), Code::kOk), 4u);
  EXPECT_EQ(Counted("b", "Unary").key, (MethodKey{kPath, "two", 1, "Unary", "both", "b"}));
  // Or a servable by its name.
  EXPECT_FALSE(client.Call(kPath, "x", {{"application", "one"}}).trailers.contains("mindserve-variation"));
}

TEST_F(UserTrafficTest, StreamsOfPredictAreSplitAndWhatDoesNotStreamIsChosenForOnce) {
  const std::vector<WorkerSpec::Method> methods = {{StreamPath("m"), true}};
  TestUserWorker one(*gateway_, 1, "one", methods);
  TestUserWorker two(*gateway_, 2, "two", methods);
  one.Echo();
  two.Echo();
  TestWorker three(*gateway_, 3, "three");
  TestWorker four(*gateway_, 4, "four");
  SplitSpec plain = Half("three", "four");
  plain.name = "plain";
  ASSERT_TRUE(gateway_->SetTraffic({Half(), plain}).ok());
  TestClient client(Listen());
  std::map<std::string, int> told;
  for (int i = 0; i < 4; ++i) {
    const auto& response = client.Call(kPredictStreamPath, One("both", 0, "m"));
    ASSERT_EQ(response.grpc_status(), 0) << response.grpc_message();
    EXPECT_EQ(response.headers.at("mindserve-variation"), response.trailers.at("mindserve-variation"))
        << "a stream names it at its beginning, too";
    ++told[response.trailers.at("mindserve-variation")];
  }
  EXPECT_THAT(told, ElementsAre(Pair("a", 2), Pair("b", 2)));
  EXPECT_EQ(Counted("b", "m").key, (MethodKey{kPredictStreamPath, "two", 1, "m", "both", "b"}));
  told.clear();
  for (int i = 0; i < 4; ++i) {
    const auto& response = client.Call(kPredictStreamPath, One("plain"));
    EXPECT_THAT(ParseReply(response.messages().at(0)).sums, ElementsAre(3));
    ++told[response.trailers.at("mindserve-variation")];
  }
  EXPECT_THAT(told, ElementsAre(Pair("a", 2), Pair("b", 2)));
}

TEST_F(UserTrafficTest, HandlersDoNotSayWhichVariationTheyAre) {
  TestUserWorker one(*gateway_, 1, "one", {{kPath, false}});
  ASSERT_TRUE(gateway_->SetTraffic({Half("one", "one")}).ok());
  TestClient client(Listen());
  const int32_t call = client.Start(kPath, Framed("x"));
  client.Flush();
  one.Await(0, [](const auto& seen) { return seen.half_closed; });
  one.Initial(0, {{"mindserve-variation", "mine"}, {"k", "v"}});
  one.Reply(0, "y");
  one.End(0, Code::kOk, "", {{"mindserve-variation", "mine"}, {"t", "v"}});
  const auto& response = client.Wait(call);
  EXPECT_EQ(response.headers.at("k"), "v");
  EXPECT_FALSE(response.headers.contains("mindserve-variation"));
  EXPECT_EQ(response.trailers.at("t"), "v");
  EXPECT_EQ(response.trailers.at("mindserve-variation"), "a");
}

TEST_F(UserTrafficTest, AVariationWithoutAnAnswerIsNamed) {
  const auto one = Start(1, "one");
  gateway_->DeclareServable("two");
  ASSERT_TRUE(gateway_->SetTraffic({Half("two", "three")}).ok());
  TestClient client(Listen());
  const auto& first = client.Call(kPath, "x", {{"application", "both"}});
  EXPECT_EQ(first.grpc_status(), static_cast<int>(Code::kUnavailable));
  EXPECT_THAT(first.grpc_message(), HasSubstr("no worker of servable 'two' (variation 'a' of 'both') is running"));
  EXPECT_EQ(first.trailers.at("mindserve-variation"), "a");
  const auto& second = client.Call(kPath, "x", {{"application", "both"}});
  EXPECT_EQ(second.grpc_status(), static_cast<int>(Code::kUnavailable));
  EXPECT_THAT(second.grpc_message(), HasSubstr("servable 'three' (variation 'b' of 'both') is not available"));
  EXPECT_EQ(Ended(Counted("a", ""), Code::kUnavailable), 1u);
}

}  // namespace
}  // namespace mindserve::gateway
