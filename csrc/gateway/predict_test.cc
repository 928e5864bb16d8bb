// Predict through a real gateway: sockets, HTTP/2, the link, and workers in threads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "gateway/predict_service.h"
#include "gateway/test_client.h"
#include "gateway/test_gateway.h"
#include "gateway/test_worker.h"

namespace mindserve::gateway {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

int Number(Code code) {
  return static_cast<int>(code);
}

class PredictTest : public GatewayTest {
 protected:
  explicit PredictTest(int io_threads = 1) : GatewayTest(io_threads) {}

  static std::string One(const std::string& method, float x1 = 1, float x2 = 2) {
    return PredictRequest("add", method, 0, {{x1, x2}});
  }
  // The reply of a call that ended OK.
  static PredictReply Reply(const TestClient::Response& response) {
    EXPECT_EQ(response.grpc_status(), 0) << response.grpc_message();
    EXPECT_EQ(response.messages().size(), 1u);
    return response.messages().empty() ? PredictReply{} : ParseReply(response.messages()[0]);
  }
  bool NothingHeld() {
    return Eventually([this] { return gateway_->GetStats().in_flight == 0; });
  }
};

TEST_F(PredictTest, AWorkersAnswerComesBackWithTheSpec) {
  TestWorker worker(*gateway_, 1, "add");
  TestClient client(Listen());
  const auto& response = client.Call(kPredictPath, One("add"));
  EXPECT_EQ(response.headers.at(":status"), "200");
  EXPECT_EQ(response.headers.at("content-type"), "application/grpc");
  EXPECT_FALSE(response.headers.contains("grpc-encoding"));
  const PredictReply reply = Reply(response);
  EXPECT_EQ(reply.spec, wire::test::Spec("add", "add", 0));
  EXPECT_THAT(reply.sums, ElementsAre(3));
  EXPECT_TRUE(reply.errors.empty());
  EXPECT_EQ(worker.last_deadline_ns(), INT64_MAX);
  const Gateway::Stats stats = gateway_->GetStats();
  EXPECT_EQ(stats.requests, 1u);
  EXPECT_EQ(stats.replies, 1u);
  EXPECT_EQ(stats.errors, 0u);
  EXPECT_EQ(stats.connections, 1u);
  EXPECT_EQ(stats.in_flight, 0u);
  const auto method =
      std::ranges::find(stats.methods, MethodKey{kPredictPath, "add", 1, "add"}, &Gateway::MethodStats::key);
  ASSERT_NE(method, stats.methods.end());
  EXPECT_EQ(method->ended[static_cast<size_t>(Code::kOk)], 1u);
  EXPECT_EQ(method->instances, 1u);
  EXPECT_EQ(method->bytes_in, One("add").size());
  EXPECT_EQ(method->latency_ns.count, 1u);
  ASSERT_EQ(stats.workers.size(), 1u);
  EXPECT_EQ(stats.workers.front().id, 1u);
  EXPECT_EQ(stats.workers.front().requests, 1u);
  EXPECT_EQ(stats.workers.front().load, 0u);
}

TEST_F(PredictTest, WhatCannotBeRoutedIsSaidInTheReply) {
  TestWorker worker(*gateway_, 1, "add", 3);
  TestClient client(Listen());
  const auto error = [&](const std::string& request) { return Reply(client.Call(kPredictPath, request)).errors; };
  EXPECT_THAT(error(PredictRequest("sub", "add", 0, {{1, 2}})),
              ElementsAre(Pair(5, "Request Servable(sub) method(add), servable is not available")));
  EXPECT_THAT(error(PredictRequest("sub", "add", 7, {{1, 2}})),
              ElementsAre(Pair(5, "Request Servable(sub) method(add) version(7), servable is not available")));
  EXPECT_THAT(error(PredictRequest("add", "add", 7, {{1, 2}})),
              ElementsAre(Pair(5, "Request Servable(add) method(add) version(7), servable is not available")));
  EXPECT_THAT(error(PredictRequest("add", "mul", 0, {{1, 2}})),
              ElementsAre(Pair(2, "Request Servable(add) method(mul), method is not available")));
  EXPECT_THAT(error(PredictRequest("add", "add", 3, {})),
              ElementsAre(Pair(2, HasSubstr("version(3), instances count is 0"))));
  EXPECT_THAT(error(""), ElementsAre(Pair(5, HasSubstr("Servable() method()"))));
  EXPECT_EQ(worker.calls(), 0u);
}

TEST_F(PredictTest, AReplyRepeatsWhatSeveralSpecsMeanTogether) {
  TestWorker worker(*gateway_, 1, "add", 4);
  TestClient client(Listen());
  using wire::test::Field;
  const std::string request = Field(1, wire::test::Spec("add", "run", 3)) + InstanceOf({1, 2}) +
                              Field(1, Field(2, "add") + wire::test::Varint(3, 4));
  const PredictReply reply = Reply(client.Call(kPredictPath, request));
  EXPECT_EQ(reply.spec, wire::test::Spec("add", "add", 4));
  EXPECT_THAT(reply.sums, ElementsAre(3));
  const PredictReply wrong = Reply(client.Call(kPredictPath, request + Field(1, Field(1, "sub"))));
  EXPECT_EQ(wrong.spec, wire::test::Spec("sub", "add", 4));
  EXPECT_THAT(wrong.errors, ElementsAre(Pair(5, HasSubstr("Servable(sub) method(add) version(4)"))));
}

TEST_F(PredictTest, NamesAreUtf8AndStaySoWhenTheyAreCut) {
  TestClient client(Listen());
  EXPECT_EQ(client.Call(kPredictPath, PredictRequest("caf\xe9", "add", 0, {{1, 2}})).grpc_status(),
            Number(Code::kInvalidArgument));
  EXPECT_EQ(client.Call(kPredictPath, PredictRequest("add", "\xff", 0, {{1, 2}})).grpc_status(),
            Number(Code::kInvalidArgument));
  std::string name = "a";
  for (int i = 0; i < 200; ++i) name += "\xc3\xa9";
  const PredictReply reply = Reply(client.Call(kPredictPath, PredictRequest(name, name, 0, {{1, 2}})));
  const std::string cut = name.substr(0, 255);
  EXPECT_THAT(reply.errors, ElementsAre(Pair(5, HasSubstr("Servable(" + cut + ") method(" + cut + "), "))));
}

TEST_F(PredictTest, ABodyThatDoesNotParseIsInvalid) {
  TestWorker worker(*gateway_, 1, "add");
  Limits limits;
  limits.max_instances_per_request = 2;
  TestClient client(Listen(limits));
  EXPECT_EQ(client.Call(kPredictPath, "\x12\x7f").grpc_status(), Number(Code::kInvalidArgument));
  const auto& many = client.Call(kPredictPath, PredictRequest("add", "add", 0, {{1, 1}, {2, 2}, {3, 3}}));
  EXPECT_EQ(many.grpc_status(), Number(Code::kResourceExhausted));
  EXPECT_THAT(many.grpc_message(), HasSubstr("max_instances_per_request"));
  EXPECT_EQ(worker.calls(), 0u);
}

TEST_F(PredictTest, ADeclaredServableWithoutAWorkerIsUnavailable) {
  gateway_->DeclareServable("add");
  TestClient client(Listen());
  const auto& starting = client.Call(kPredictPath, One("add"));
  EXPECT_EQ(starting.grpc_status(), Number(Code::kUnavailable));
  EXPECT_THAT(starting.grpc_message(), HasSubstr("Servable(add)"));
  {
    TestWorker worker(*gateway_, 1, "add");
    EXPECT_THAT(Reply(client.Call(kPredictPath, One("add"))).sums, ElementsAre(3));
    gateway_->DrainWorker(1);
    EXPECT_EQ(client.Call(kPredictPath, One("add")).grpc_status(), Number(Code::kUnavailable));
    gateway_->DetachWorker(1);
  }
  EXPECT_EQ(client.Call(kPredictPath, One("add")).grpc_status(), Number(Code::kUnavailable));
  EXPECT_THAT(Reply(client.Call(kPredictPath, One("mul"))).errors, ElementsAre(Pair(2, HasSubstr("method is not"))));
  gateway_->RemoveServable("add");
  EXPECT_THAT(Reply(client.Call(kPredictPath, One("add"))).errors, ElementsAre(Pair(5, HasSubstr("servable is not"))));
}

TEST_F(PredictTest, AWorkerThatDrainsEndsWhatItHoldsAndIsThenDetached) {
  TestWorker worker(*gateway_, 1, "add");
  TestClient client(Listen());
  const int32_t held = client.Start(kPredictPath, Framed(One("hold")));
  const int32_t cancelled = client.Start(kPredictPath, Framed(One("hold")));
  client.Flush();
  Eventually([&] { return worker.held() == 2; });
  TestWorker other(*gateway_, 2, "add");
  gateway_->DrainWorker(1);
  gateway_->DrainWorker(1);
  EXPECT_THAT(Reply(client.Call(kPredictPath, One("add"))).sums, ElementsAre(3));
  EXPECT_EQ(other.calls(), 1u);
  client.Reset(cancelled);
  client.Flush();
  EXPECT_TRUE(Eventually([&] { return worker.held() == 1; }));
  EXPECT_EQ(gateway_->GetStats().workers.size(), 2u) << "it holds a call yet";
  worker.Resume();
  EXPECT_THAT(Reply(client.Wait(held)).sums, ElementsAre(3));
  EXPECT_TRUE(Eventually([&] { return worker.ended(); })) << "its link is closed";
  EXPECT_EQ(gateway_->GetStats().workers.size(), 1u);
  gateway_->DrainWorker(2);
  EXPECT_TRUE(Eventually([&] { return other.ended(); })) << "it held nothing";
  gateway_->DrainWorker(2);
}

TEST_F(PredictTest, AWorkerThatDrainsAndKeepsInputsIsDetached) {
  TestWorker worker(*gateway_, 1, "add");
  worker.Keep();
  TestClient client(Listen());
  Reply(client.Call(kPredictPath, One("add")));
  gateway_->DrainWorker(1);
  EXPECT_TRUE(Eventually([&] { return worker.ended(); }));
}

TEST_F(PredictTest, ARemovedVersionIsNotAvailable) {
  TestWorker one(*gateway_, 1, "add", 1);
  TestWorker two(*gateway_, 2, "add", 2);
  TestClient client(Listen());
  const std::string of_one = PredictRequest("add", "hold", 1, {{1, 2}});
  const int32_t held = client.Start(kPredictPath, Framed(of_one));
  client.Flush();
  Eventually([&] { return one.held() == 1; });
  gateway_->DrainWorker(1);
  EXPECT_EQ(client.Call(kPredictPath, of_one).grpc_status(), Number(Code::kUnavailable));
  gateway_->RemoveVersion("add", 1);
  EXPECT_THAT(Reply(client.Call(kPredictPath, of_one)).errors, ElementsAre(Pair(5, HasSubstr("servable is not"))));
  one.Resume();
  EXPECT_THAT(Reply(client.Wait(held)).sums, ElementsAre(3));
  EXPECT_TRUE(Eventually([&] { return one.ended(); }));
  EXPECT_THAT(Reply(client.Call(kPredictPath, One("add"))).sums, ElementsAre(3));
  EXPECT_EQ(two.calls(), 1u);
}

TEST_F(PredictTest, VersionZeroIsTheNewestThatLives) {
  TestWorker one(*gateway_, 1, "add", 1);
  auto two = std::make_unique<TestWorker>(*gateway_, 2, "add", 2);
  TestClient client(Listen());
  Reply(client.Call(kPredictPath, One("add")));
  EXPECT_EQ(two->calls(), 1u);
  Reply(client.Call(kPredictPath, PredictRequest("add", "add", 1, {{1, 2}})));
  EXPECT_EQ(one.calls(), 1u);
  gateway_->DetachWorker(2);
  two.reset();
  Reply(client.Call(kPredictPath, One("add")));
  EXPECT_EQ(one.calls(), 2u);
  EXPECT_EQ(client.Call(kPredictPath, PredictRequest("add", "add", 2, {{1, 2}})).grpc_status(),
            Number(Code::kUnavailable));
}

TEST_F(PredictTest, AnInstanceFailsAlone) {
  TestWorker worker(*gateway_, 1, "add");
  TestClient client(Listen());
  const std::string request = One("add") + wire::test::Instance("") + InstanceOf({4, 5});
  const PredictReply reply = Reply(client.Call(kPredictPath, request));
  ASSERT_EQ(reply.sums.size(), 3u);
  EXPECT_EQ(reply.sums[0], 3);
  EXPECT_TRUE(std::isnan(reply.sums[1]));
  EXPECT_EQ(reply.sums[2], 9);
  EXPECT_THAT(reply.errors,
              ElementsAre(Pair(0, ""), Pair(2, HasSubstr("Cannot find input x1 in instance input")), Pair(0, "")));
}

TEST_F(PredictTest, AWorkersStatusEndsTheCall) {
  TestWorker worker(*gateway_, 1, "add");
  TestClient client(Listen());
  const auto& response = client.Call(kPredictPath, One("end"));
  EXPECT_EQ(response.grpc_status(), Number(Code::kFailedPrecondition));
  EXPECT_EQ(response.grpc_message(), "this is the end");
}

TEST_F(PredictTest, ManyInstancesAreSplitAndJoinedInOrder) {
  TestWorker one(*gateway_, 1, "add");
  TestWorker two(*gateway_, 2, "add");
  TestWorker three(*gateway_, 3, "add");
  TestClient client(Listen());
  std::vector<gateway::Pair> pairs;
  std::vector<float> sums;
  for (int i = 0; i < 100; ++i) {
    pairs.emplace_back(i, 1000);
    sums.push_back(static_cast<float>(i + 1000));
  }
  const PredictReply reply = Reply(client.Call(kPredictPath, PredictRequest("add", "add", 0, pairs)));
  EXPECT_EQ(reply.sums, sums);
  EXPECT_TRUE(reply.errors.empty());
  EXPECT_EQ(one.calls() + two.calls() + three.calls(), 3u);
  EXPECT_THAT((std::vector<size_t>{one.instances(), two.instances(), three.instances()}),
              testing::UnorderedElementsAre(33, 33, 34));
  // Too few to split.
  Reply(client.Call(kPredictPath, PredictRequest("add", "add", 0, {{1, 2}, {3, 4}, {5, 6}})));
  EXPECT_EQ(one.calls() + two.calls() + three.calls(), 4u);
}

TEST_F(PredictTest, ASplitReplyHasAnErrorForEachInstanceOrNone) {
  TestWorker one(*gateway_, 1, "add");
  TestWorker two(*gateway_, 2, "add");
  TestClient client(Listen());
  // The spec stands among the instances, as protobuf allows.
  const std::string request = InstanceOf({1, 1}) + InstanceOf({2, 2}) + InstanceOf({3, 3}) +
                              wire::test::Field(1, wire::test::Spec("add", "add", 0)) + wire::test::UnknownFields() +
                              wire::test::Instance("");
  const PredictReply reply = Reply(client.Call(kPredictPath, request));
  EXPECT_THAT(reply.errors, ElementsAre(Pair(0, ""), Pair(0, ""), Pair(0, ""), Pair(2, HasSubstr("x1"))));
  ASSERT_EQ(reply.sums.size(), 4u);
  EXPECT_THAT((std::vector<float>(reply.sums.begin(), reply.sums.begin() + 3)), ElementsAre(2, 4, 6));
  EXPECT_EQ(one.instances(), 2u);
  EXPECT_EQ(two.instances(), 2u);
}

TEST_F(PredictTest, TheLeastLoadedWorkerIsAskedFirst) {
  TestWorker one(*gateway_, 1, "add");
  TestWorker two(*gateway_, 2, "add");
  TestClient client(Listen());
  const int32_t held = client.Start(kPredictPath, Framed(One("hold")));
  client.Flush();
  Eventually([&] { return one.held() + two.held() == 1; });
  TestWorker& busy = one.held() == 1 ? one : two;
  TestWorker& idle = one.held() == 1 ? two : one;
  for (int i = 0; i < 10; ++i) Reply(client.Call(kPredictPath, One("add")));
  EXPECT_EQ(idle.calls(), 10u);
  busy.Resume();
  EXPECT_THAT(Reply(client.Wait(held)).sums, ElementsAre(3));
}

TEST_F(PredictTest, ARequestIsSentAgainWhenItsWorkerDies) {
  auto one = std::make_unique<TestWorker>(*gateway_, 1, "add");
  auto two = std::make_unique<TestWorker>(*gateway_, 2, "add");
  TestClient client(Listen());
  const int32_t call = client.Start(kPredictPath, Framed(One("hold")));
  client.Flush();
  Eventually([&] { return one->held() + two->held() == 1; });
  (one->held() == 1 ? one : two).reset();
  TestWorker& other = one ? *one : *two;
  Eventually([&] { return other.held() == 1; });
  other.Resume();
  EXPECT_THAT(Reply(client.Wait(call)).sums, ElementsAre(3));
  NothingHeld();
}

TEST_F(PredictTest, APartOfASplitRequestIsSentAgain) {
  auto one = std::make_unique<TestWorker>(*gateway_, 1, "add");
  TestWorker two(*gateway_, 2, "add");
  TestClient client(Listen());
  const int32_t call =
      client.Start(kPredictPath, Framed(PredictRequest("add", "hold", 0, {{1, 1}, {2, 2}, {3, 3}, {4, 4}})));
  client.Flush();
  Eventually([&] { return one->held() == 1 && two.held() == 1; });
  two.Resume();
  one.reset();
  EXPECT_THAT(Reply(client.Wait(call)).sums, ElementsAre(2, 4, 6, 8));
  EXPECT_EQ(two.calls(), 2u);
}

TEST_F(PredictTest, AWorkerThatDiesWithoutAnotherMakesTheCallUnavailable) {
  auto worker = std::make_unique<TestWorker>(*gateway_, 1, "add");
  TestClient client(Listen());
  const auto& response = client.Call(kPredictPath, One("die"));
  EXPECT_EQ(response.grpc_status(), Number(Code::kUnavailable));
  EXPECT_EQ(
      response.grpc_message(),
      "Request Servable(add) method(die), the worker that held it died: its process ended, and there is no other");
  EXPECT_EQ(client.Call(kPredictPath, One("add")).grpc_status(), Number(Code::kUnavailable));
  NothingHeld();
}

TEST_F(PredictTest, AWorkerThatBreaksTheLinksRulesIsDropped) {
  auto rogue = std::make_unique<TestWorker>(*gateway_, 1, "add");
  TestClient client(Listen());
  EXPECT_EQ(client.Call(kPredictPath, One("rogue")).grpc_status(), Number(Code::kUnavailable));
  EXPECT_EQ(client.Call(kPredictPath, One("add")).grpc_status(), Number(Code::kUnavailable));
  TestWorker good(*gateway_, 2, "add");
  EXPECT_THAT(Reply(client.Call(kPredictPath, One("add"))).sums, ElementsAre(3));
}

TEST_F(PredictTest, AWorkersNumberIsTakenOnce) {
  TestWorker worker(*gateway_, 1, "add");
  const Status again = gateway_->AttachWorker(UniqueFd(), {1, "add", 1, {}}, milliseconds(1));
  EXPECT_EQ(again.code(), Code::kAlreadyExists);
}

TEST_F(PredictTest, NoMoreRequestsAreHeldThanTheLimitAllows) {
  TestWorker worker(*gateway_, 1, "add");
  Limits limits;
  limits.max_enqueued_requests = 1;
  TestClient client(Listen(limits));
  const int32_t first = client.Start(kPredictPath, Framed(One("hold")));
  client.Flush();
  Eventually([&] { return worker.held() == 1; });
  const auto& refused = client.Call(kPredictPath, One("add"));
  EXPECT_EQ(refused.grpc_status(), Number(Code::kResourceExhausted));
  EXPECT_THAT(refused.grpc_message(), HasSubstr("enqueued requests count exceeds the limit 1"));
  EXPECT_EQ(refused.trailers.at("grpc-retry-pushback-ms"), "100");
  gateway_->SetMaxEnqueuedRequests(2);
  EXPECT_THAT(Reply(client.Call(kPredictPath, One("add"))).sums, ElementsAre(3));
  gateway_->SetMaxEnqueuedRequests(1);
  worker.Resume();
  Reply(client.Wait(first));
  for (int i = 0; i < 10; ++i) Reply(client.Call(kPredictPath, One("add")));
}

TEST_F(PredictTest, NoMoreBytesAreHeldThanTheLimitAllows) {
  TestWorker worker(*gateway_, 1, "add");
  Limits limits;
  const std::string request = One("hold");
  limits.max_enqueued_bytes = request.size() + 10;
  TestClient client(Listen(limits));
  const int32_t first = client.Start(kPredictPath, Framed(request));
  client.Flush();
  Eventually([&] { return worker.held() == 1; });
  const auto& refused = client.Call(kPredictPath, One("add"));
  EXPECT_EQ(refused.grpc_status(), Number(Code::kResourceExhausted));
  EXPECT_THAT(refused.grpc_message(), HasSubstr("max_enqueued_bytes"));
  EXPECT_EQ(refused.trailers.at("grpc-retry-pushback-ms"), "100");
  worker.Resume();
  Reply(client.Wait(first));
  Reply(client.Call(kPredictPath, One("add")));
}

TEST_F(PredictTest, WhatAWorkerKeepsOfRequestsThatAreOverDoesNotCount) {
  auto worker = std::make_unique<TestWorker>(*gateway_, 1, "add");
  Limits limits;
  const std::string held = One("hold");
  limits.max_enqueued_requests = 1;
  limits.max_enqueued_bytes = held.size() + 10;
  TestClient client(Listen(limits));
  worker->Keep();
  for (int i = 0; i < 5; ++i) EXPECT_THAT(Reply(client.Call(kPredictPath, One("add"))).sums, ElementsAre(3));

  for (int i = 0; i < 5; ++i) {
    const int32_t cancelled = client.Start(kPredictPath, Framed(held));
    client.Flush();
    Eventually([&] { return worker->held() == 1; });
    client.Reset(cancelled);
    // Until the worker has ended it, it counts.
    Eventually([&] { return client.Call(kPredictPath, One("add")).grpc_status() == 0; });
    EXPECT_EQ(worker->held(), 0u);
  }
  EXPECT_EQ(
      client.Call(kPredictPath, One("add", 1, 2) + wire::test::Field(102, std::string(held.size(), 'p'))).grpc_status(),
      Number(Code::kResourceExhausted));
  // What is given back in the end is not taken off twice.
  worker.reset();
  TestWorker other(*gateway_, 2, "add");
  Eventually([&] { return client.Call(kPredictPath, One("add")).grpc_status() == 0; });
  const int32_t first = client.Start(kPredictPath, Framed(held));
  client.Flush();
  Eventually([&] { return other.held() == 1; });
  EXPECT_EQ(client.Call(kPredictPath, One("add")).grpc_status(), Number(Code::kResourceExhausted));
  other.Resume();
  Reply(client.Wait(first));
}

TEST_F(PredictTest, APartThatAWorkerKeepsDoesNotHoldUpTheOthers) {
  auto one = std::make_unique<TestWorker>(*gateway_, 1, "add");
  TestWorker two(*gateway_, 2, "add");
  Limits limits;
  limits.max_enqueued_requests = 1;
  TestClient client(Listen(limits));
  one->Keep();
  const int32_t call =
      client.Start(kPredictPath, Framed(PredictRequest("add", "hold", 0, {{1, 1}, {2, 2}, {3, 3}, {4, 4}})));
  client.Flush();
  Eventually([&] { return one->held() == 1 && two.held() == 1; });
  // One ends it and keeps its bytes, the other releases it; only then is it over.
  client.Reset(call);
  client.Flush();
  Eventually([&] { return client.Call(kPredictPath, One("add")).grpc_status() == 0; });
  EXPECT_EQ(one->held() + two.held(), 0u);
  one.reset();
  Eventually([&] { return client.Call(kPredictPath, One("add")).grpc_status() == 0; });
}

TEST_F(PredictTest, ADeadlineGoesToTheWorkerAndEndsTheCall) {
  TestWorker worker(*gateway_, 1, "add");
  TestClient client(Listen());
  const auto before = Clock::now();
  Reply(client.Call(kPredictPath, One("add"), {{"grpc-timeout", "100S"}}));
  const TimePoint told{std::chrono::nanoseconds(worker.last_deadline_ns())};
  EXPECT_GE(told, before + std::chrono::seconds(99));
  EXPECT_LE(told, Clock::now() + std::chrono::seconds(100));

  const auto& late = client.Call(kPredictPath, One("hold"), {{"grpc-timeout", "20m"}});
  EXPECT_EQ(late.grpc_status(), Number(Code::kDeadlineExceeded));
  // On a slow machine the deadline may have passed before the worker was asked.
  Eventually([&] { return worker.cancels() == worker.calls() - 1; });
  NothingHeld();
  EXPECT_EQ(client.Call(kPredictPath, One("add"), {{"grpc-timeout", "x"}}).grpc_status(), Number(Code::kInternal));
}

TEST_F(PredictTest, EveryAnswerHasARequestId) {
  TestWorker worker(*gateway_, 1, "add");
  TestClient client(Listen());

  std::set<std::string> ids;
  const auto take = [&](const TestClient::Response& response, Code code) {
    EXPECT_EQ(response.grpc_status(), Number(code)) << response.grpc_message();
    EXPECT_THAT(response.trailers, testing::Contains(testing::Key("request_id")));
    ids.insert(response.trailers.at("request_id"));
  };
  take(client.Call(kPredictPath, One("add")), Code::kOk);
  take(client.Call(kPredictPath, PredictRequest("none", "add", 0, {{1, 2}})), Code::kOk);
  take(client.Call(kPredictPath, One("add") + wire::test::Instance("")), Code::kOk);
  take(client.Call(kPredictPath, One("end")), Code::kFailedPrecondition);
  take(client.Call(kPredictPath, "no request"), Code::kInvalidArgument);
  // What the transport itself finds, before the call is a service's and afterwards.
  take(client.Call(kPredictPath, One("add"), {{"grpc-timeout", "x"}}), Code::kInternal);
  take(client.Call(kPredictPath, One("hold"), {{"grpc-timeout", "20m"}}), Code::kDeadlineExceeded);
  take(client.Wait(client.Start(kPredictPath, Framed("a").substr(0, 3))), Code::kInternal);
  EXPECT_EQ(ids.size(), 8u);
  for (const std::string& id : ids) EXPECT_EQ(id.size(), 36u);
  take(client.Call(kPredictPath, One("hold"), {{"grpc-timeout", "20m"}, {"request_id", "mine"}}),
       Code::kDeadlineExceeded);
  EXPECT_TRUE(ids.contains("mine"));
}

TEST_F(PredictTest, CallsWithoutADeadlineGetTheDefault) {
  TestWorker worker(*gateway_, 1, "add");
  Limits limits;
  limits.default_deadline = milliseconds(20);
  TestClient client(Listen(limits));
  EXPECT_EQ(client.Call(kPredictPath, One("hold")).grpc_status(), Number(Code::kDeadlineExceeded));
}

TEST_F(PredictTest, ACancelledCallIsTakenFromTheWorker) {
  TestWorker worker(*gateway_, 1, "add");
  TestClient client(Listen());
  const int32_t call = client.Start(kPredictPath, Framed(One("hold")));
  client.Flush();
  Eventually([&] { return worker.held() == 1; });
  EXPECT_EQ(gateway_->GetStats().in_flight, 1u);
  client.Reset(call);
  client.Flush();
  Eventually([&] { return worker.cancels() == 1; });
  NothingHeld();
  EXPECT_THAT(Reply(client.Call(kPredictPath, One("add"))).sums, ElementsAre(3));
}

TEST_F(PredictTest, ALostConnectionCancelsItsCalls) {
  TestWorker worker(*gateway_, 1, "add");
  const net::Address address = Listen();
  {
    TestClient client(address);
    for (int i = 0; i < 5; ++i) client.Start(kPredictPath, Framed(One("hold")));
    client.Flush();
    Eventually([&] { return worker.held() == 5; });
  }
  Eventually([&] { return worker.cancels() == 5; });
  NothingHeld();
  Eventually([&] { return gateway_->GetStats().connections == 0; });
}

TEST_F(PredictTest, LargeRequestsAndRepliesGoThroughSmallWindows) {
  TestWorker worker(*gateway_, 1, "add");
  TestClient client(Listen(), 70'000);
  const std::string padding = wire::test::Field(102, std::string(20 << 20, 'p'));
  const auto& response = client.Call(kPredictPath, One("big", 5) + padding);
  ASSERT_EQ(response.grpc_status(), 0) << response.grpc_message();
  EXPECT_GT(response.body.size(), size_t{5} << 20);
  EXPECT_EQ(std::ranges::count(response.body, 'x'), 5 << 20);
}

TEST_F(PredictTest, AReplyIsSentToItsEndThoughItsWorkerDied) {
  auto worker = std::make_unique<TestWorker>(*gateway_, 1, "add");
  const net::Address address = Listen();
  TestClient client(address, 70'000);
  const int32_t call = client.Start(kPredictPath, Framed(One("big", 8)));
  client.RunUntil([&] { return client.response(call).body.size() > 100'000; });
  worker.reset();
  TestClient other(address);
  Eventually([&] { return other.Call(kPredictPath, One("add")).grpc_status() == Number(Code::kUnavailable); });
  const auto& response = client.Wait(call);
  ASSERT_EQ(response.grpc_status(), 0) << response.grpc_message();
  EXPECT_EQ(std::ranges::count(response.body, 'x'), 8 << 20);
}

TEST_F(PredictTest, ReplyMemoryComesBackHoweverTheCallEnds) {
  // Room for three replies of 8 MiB.
  TestWorker worker(*gateway_, 1, "add", 1, 32 << 20);
  TestClient client(Listen(), 70'000);
  for (int i = 0; i < 20; ++i) {
    const int32_t call = client.Start(kPredictPath, Framed(One("big", 8)));
    client.RunUntil([&] { return client.response(call).body.size() > 100'000; });
    client.Reset(call);
    client.Ping();
    const int pings = client.pings_acked();
    client.RunUntil([&] { return client.pings_acked() > pings; });
  }
  for (int i = 0; i < 20; ++i) EXPECT_EQ(client.Call(kPredictPath, One("big", 8)).grpc_status(), 0);
}

class PredictOnTwoThreadsTest : public PredictTest {
 protected:
  PredictOnTwoThreadsTest() : PredictTest(2) {}
};

TEST_F(PredictOnTwoThreadsTest, ManyCallsOfManyConnections) {
  TestWorker one(*gateway_, 1, "add");
  TestWorker two(*gateway_, 2, "add");
  const net::Address address = Listen();
  constexpr int kClients = 8;
  constexpr int kRounds = 20;
  constexpr int kCalls = 50;
  std::vector<std::thread> threads;
  for (int t = 0; t < kClients; ++t) {
    threads.emplace_back([&, t] {
      TestClient client(address);
      for (int round = 0; round < kRounds; ++round) {
        std::vector<int32_t> calls;
        for (int i = 0; i < kCalls; ++i) {
          const auto x1 = static_cast<float>(i);
          calls.push_back(client.Start(kPredictPath, Framed(One("add", x1, static_cast<float>(t)))));
        }
        for (int i = 0; i < kCalls; ++i) {
          EXPECT_THAT(Reply(client.Wait(calls[static_cast<size_t>(i)])).sums, ElementsAre(static_cast<float>(i + t)));
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(gateway_->GetStats().replies, static_cast<uint64_t>(kClients * kRounds * kCalls));
  EXPECT_EQ(one.instances() + two.instances(), static_cast<size_t>(kClients * kRounds * kCalls));
}

TEST_F(PredictOnTwoThreadsTest, WorkersDieUnderLoadAndEveryCallIsAnswered) {
  TestWorker steady(*gateway_, 1, "add");
  const net::Address address = Listen();
  std::atomic<bool> done{false};
  std::thread killer([&] {
    for (uint64_t id = 2; id < 200 && !done; ++id) TestWorker mortal(*gateway_, id, "add");
  });
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&] {
      TestClient client(address);
      for (int i = 0; i < 200; ++i) {
        const auto& response =
            client.Call(kPredictPath, PredictRequest("add", "add", 0, {{1, 2}, {3, 4}, {5, 6}, {7, 8}}));
        // Twice in a row on a dying worker is possible, and answered as such.
        if (response.grpc_status() == 0) {
          EXPECT_THAT(Reply(response).sums, ElementsAre(3, 7, 11, 15));
        } else {
          EXPECT_EQ(response.grpc_status(), Number(Code::kUnavailable));
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  done = true;
  killer.join();
  NothingHeld();
}

TEST_F(PredictOnTwoThreadsTest, WorkersAreReplacedUnderLoadAndNoCallFails) {
  const net::Address address = Listen();
  std::atomic<int> clients{4};
  std::vector<std::thread> threads;
  auto serving = std::make_unique<TestWorker>(*gateway_, 1, "add", 1);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      TestClient client(address);
      for (int i = 0; i < 200; ++i) {
        EXPECT_THAT(
            Reply(client.Call(kPredictPath, PredictRequest("add", "add", 0, {{1, 2}, {3, 4}, {5, 6}, {7, 8}}))).sums,
            ElementsAre(3, 7, 11, 15));
      }
      --clients;
    });
  }
  uint64_t id = 1;
  while (clients > 0 && id < 1000) {
    auto successor = std::make_unique<TestWorker>(*gateway_, id + 1, "add", id + 1);
    gateway_->DrainWorker(id);
    gateway_->RemoveVersion("add", id);
    EXPECT_TRUE(Eventually([&] { return serving->ended(); }));
    serving = std::move(successor);
    ++id;
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(id, 2u) << "some were replaced";
  EXPECT_EQ(gateway_->GetStats().workers.size(), 1u);
}

}  // namespace
}  // namespace mindserve::gateway
