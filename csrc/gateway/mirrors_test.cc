// Mirrored traffic: what its receivers see of it, and that nobody else does.
#include "gateway/mirrors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <memory>

#include "gateway/inner_call.h"
#include "gateway/predict_service.h"
#include "gateway/test_client.h"
#include "gateway/test_gateway.h"
#include "gateway/test_user_worker.h"
#include "gateway/test_worker.h"
#include "link/lane.h"

namespace mindserve::gateway {
namespace {

using testing::ElementsAre;

class MirrorsTest : public GatewayTest {
 protected:
  MirrorsTest() : GatewayTest(1) {}

  static SplitSpec Mirrored(double fraction = 1) {
    return {.name = "split",
            .variations = {{.name = "a", .servable = "one"}},
            .mirrors = {{.servable = "shadow", .fraction = fraction}}};
  }
  static std::string One(const std::string& method = "add", float x1 = 1) {
    return PredictRequest("split", method, 0, {{x1, 2}});
  }
  void IsAnswered(const TestClient::Response& response) {
    EXPECT_EQ(response.grpc_status(), 0) << response.grpc_message();
    ASSERT_EQ(response.messages().size(), 1u);
    EXPECT_THAT(ParseReply(response.messages()[0]).sums, ElementsAre(3));
  }
  Gateway::MethodStats Copies(const std::string& method = "add") const {
    for (auto& each : gateway_->GetStats().methods) {
      if (each.key.mirrored && each.key.method == method) return each;
    }
    return {};
  }
  bool CopiesEnded(Code code, uint64_t count, const std::string& method = "add") {
    return Eventually([&] { return Copies(method).ended[static_cast<size_t>(code)] == count; });
  }
  uint64_t Refused(Refusal by) const { return gateway_->GetStats().refused[static_cast<size_t>(by)]; }
};

TEST_F(MirrorsTest, AShareOfTheCallsIsCopied) {
  TestWorker one(*gateway_, 1, "one");
  TestWorker shadow(*gateway_, 2, "shadow", 4);
  ASSERT_TRUE(gateway_->SetTraffic({Mirrored(0.25)}).ok());
  TestClient client(Listen());
  for (int i = 0; i < 40; ++i) IsAnswered(client.Call(kPredictPath, One()));
  ASSERT_TRUE(CopiesEnded(Code::kOk, 10));
  EXPECT_EQ(one.calls(), 40u);
  EXPECT_EQ(shadow.calls(), 10u);
  const auto copies = Copies();
  EXPECT_EQ(copies.key, (MethodKey{kPredictPath, "shadow", 4, "add", "split", "", true}));
  EXPECT_EQ(copies.instances, 10u);
  EXPECT_EQ(copies.bytes_in, 10 * One().size());
  EXPECT_GT(copies.bytes_out, 0u);
  EXPECT_EQ(copies.latency_ns.count, 10u);
  const auto stats = gateway_->GetStats();
  EXPECT_EQ(stats.requests, 40u);
  EXPECT_EQ(stats.replies, 40u);
  EXPECT_EQ(stats.errors, 0u);
  EXPECT_EQ(gateway_->replies(), 40u);
}

TEST_F(MirrorsTest, NobodyWaitsForACopyNorCountsIt) {
  TestWorker one(*gateway_, 1, "one");
  TestWorker shadow(*gateway_, 2, "shadow");
  one.Resume();
  ASSERT_TRUE(gateway_->SetTraffic({Mirrored()}).ok());
  TestClient client(Listen());
  IsAnswered(client.Call(kPredictPath, One("hold", 1)));
  ASSERT_TRUE(Eventually([&] { return shadow.held() == 1; }));
  EXPECT_EQ(gateway_->GetStats().in_flight, 0u);
  EXPECT_EQ(gateway_->GetStats().enqueued_bytes, 0u);
  // What comes later lies elsewhere: the copy is as it was.
  for (int i = 0; i < 10; ++i) client.Call(kPredictPath, PredictRequest("one", "add", 0, {{9, 9}}));
  shadow.Resume();
  ASSERT_TRUE(CopiesEnded(Code::kOk, 1, "hold"));
  EXPECT_THAT(shadow.order(), ElementsAre(1));
  EXPECT_EQ(Copies("hold").with_errors, 0u);
}

TEST_F(MirrorsTest, ACopyOfACallThatIsGivenUpGoesOn) {
  TestWorker one(*gateway_, 1, "one");
  TestWorker shadow(*gateway_, 2, "shadow");
  ASSERT_TRUE(gateway_->SetTraffic({Mirrored()}).ok());
  TestClient client(Listen());
  const int32_t call = client.Start(kPredictPath, Framed(One("hold")));
  client.Flush();
  ASSERT_TRUE(Eventually([&] { return one.held() == 1 && shadow.held() == 1; }));
  client.Reset(call);
  client.Flush();
  ASSERT_TRUE(Eventually([&] { return one.cancels() == 1; }));
  one.Resume();
  EXPECT_TRUE(Eventually([&] { return gateway_->GetStats().in_flight == 0; }));
  EXPECT_EQ(gateway_->GetStats().enqueued_bytes, 0u);
  EXPECT_EQ(shadow.cancels(), 0u);
  shadow.Resume();
  EXPECT_TRUE(CopiesEnded(Code::kOk, 1, "hold"));
}

TEST_F(MirrorsTest, WhatIsWrongWithACopyIsCountedAndNoMore) {
  TestWorker one(*gateway_, 1, "one");
  gateway_->DeclareServable("shadow");
  ASSERT_TRUE(gateway_->SetTraffic({Mirrored()}).ok());
  TestClient client(Listen());
  IsAnswered(client.Call(kPredictPath, One()));
  EXPECT_TRUE(CopiesEnded(Code::kUnavailable, 1, ""));
  one.Resume();
  TestWorker shadow(*gateway_, 2, "shadow");
  IsAnswered(client.Call(kPredictPath, One("hold")));
  ASSERT_TRUE(Eventually([&] { return shadow.held() == 1; }));
  shadow.Die();
  EXPECT_TRUE(CopiesEnded(Code::kUnavailable, 1, "hold"));
  TestWorker other(*gateway_, 3, "shadow");
  const auto request = PredictRequest("split", "end", 0, {{1, 2}});
  EXPECT_EQ(client.Call(kPredictPath, request).grpc_status(), static_cast<int>(Code::kFailedPrecondition));
  EXPECT_TRUE(CopiesEnded(Code::kFailedPrecondition, 1, "end"));
  // An instance without x2 fails, for the client as for the copy.
  const std::string broken = wire::test::Field(1, wire::test::Spec("split", "add", 0)) + wire::test::Field(2, "");
  EXPECT_EQ(client.Call(kPredictPath, broken).grpc_status(), 0);
  EXPECT_TRUE(Eventually([&] { return Copies().with_errors == 1; }));
}

TEST_F(MirrorsTest, CopiesThatAreUnderWayEndWithTheGateway) {
  const std::vector<WorkerSpec::Method> methods = {{"/t.Users/Unary", true}};
  ASSERT_TRUE(gateway_->SetServices({{.name = "t.Users", .methods = {{"Unary", false, false}}}}, "").ok());
  TestWorker one(*gateway_, 1, "one");
  TestUserWorker user(*gateway_, 2, "two", methods);
  TestWorker shadow(*gateway_, 3, "shadow");
  TestUserWorker user_shadow(*gateway_, 4, "shade", methods);
  one.Resume();
  user.Echo();
  ASSERT_TRUE(
      gateway_
          ->SetTraffic(
              {Mirrored(),
               {.name = "users", .variations = {{.name = "a", .servable = "two"}}, .mirrors = {{.servable = "shade"}}}})
          .ok());
  TestClient client(Listen());
  for (int i = 0; i < 3; ++i) IsAnswered(client.Call(kPredictPath, One("hold")));
  EXPECT_THAT(client.Call("/t.Users/Unary", "hello", {{"application", "users"}}).messages(), ElementsAre("hello"));
  ASSERT_TRUE(Eventually([&] { return shadow.held() == 3 && user_shadow.calls() == 1; }));
  gateway_.reset();
  EXPECT_TRUE(Eventually([&] { return shadow.ended() && user_shadow.ended(); }));
}

TEST_F(MirrorsTest, ADeathEndsACallAndItsOwnCopies) {
  // The variation is its own mirror: one worker has both.
  TestWorker one(*gateway_, 1, "one");
  ASSERT_TRUE(gateway_
                  ->SetTraffic({{.name = "split",
                                 .variations = {{.name = "a", .servable = "one"}},
                                 .mirrors = {{.servable = "one"}, {.servable = "one"}}}})
                  .ok());
  TestClient client(Listen());
  const int32_t call = client.Start(kPredictPath, Framed(One("hold")));
  client.Flush();
  ASSERT_TRUE(Eventually([&] { return one.held() == 3; }));
  TestWorker other(*gateway_, 2, "one");
  other.Resume();
  one.Die();
  IsAnswered(client.Wait(call));
  EXPECT_TRUE(CopiesEnded(Code::kUnavailable, 2, "hold"));
  EXPECT_EQ(other.calls(), 1u) << "the call goes again, its copies do not";
}

TEST_F(MirrorsTest, ADeathEndsCopiesOfUsersCalls) {
  const std::vector<WorkerSpec::Method> methods = {{"/t.Users/Unary", true}};
  ASSERT_TRUE(gateway_->SetServices({{.name = "t.Users", .methods = {{"Unary", false, false}}}}, "").ok());
  TestUserWorker one(*gateway_, 1, "one", methods);
  TestUserWorker shadow(*gateway_, 2, "shadow", methods);
  one.Echo();
  ASSERT_TRUE(gateway_->SetTraffic({Mirrored()}).ok());
  TestClient client(Listen());
  for (int i = 0; i < 2; ++i) EXPECT_EQ(client.Call("/t.Users/Unary", "hello").grpc_status(), 0);
  shadow.Call(1);
  // One has begun to answer.
  shadow.Initial(0, {});
  ASSERT_TRUE(shadow.Reply(0, "some of it"));
  shadow.Die();
  EXPECT_TRUE(CopiesEnded(Code::kUnavailable, 2, "Unary"));
}

TEST_F(MirrorsTest, ACopyIsCountedWhereItBeganWhateverBecomesOfItsName) {
  TestWorker one(*gateway_, 1, "one");
  auto shadow = std::make_unique<TestWorker>(*gateway_, 2, "shadow");
  one.Resume();
  ASSERT_TRUE(gateway_->SetTraffic({Mirrored()}).ok());
  TestClient client(Listen());
  IsAnswered(client.Call(kPredictPath, One("hold")));
  ASSERT_TRUE(Eventually([&] { return shadow->held() == 1; }));
  ASSERT_TRUE(gateway_->SetTraffic({}).ok());
  IsAnswered(client.Call(kPredictPath, PredictRequest("one", "add", 0, {{1, 2}})));
  shadow->Resume();
  EXPECT_TRUE(CopiesEnded(Code::kOk, 1, "hold"));
}

TEST_F(MirrorsTest, AnAnswerInPartsToACopyOfPredictIsAFault) {
  TestWorker one(*gateway_, 1, "one");
  TestUserWorker shadow(*gateway_, 2, "shadow", {{"add", true}});
  ASSERT_TRUE(gateway_->SetTraffic({Mirrored()}).ok());
  TestClient client(Listen());
  IsAnswered(client.Call(kPredictPath, One()));
  shadow.Call(0);
  ASSERT_TRUE(shadow.Reply(0, "a part"));
  EXPECT_TRUE(CopiesEnded(Code::kInternal, 1));
  shadow.Await(0, [](const auto& call) { return call.cancelled; });
  // The end that its worker sends then is nobody's.
  IsAnswered(client.Call(kPredictPath, One()));
  shadow.Call(1);
  EXPECT_EQ(Copies().ended[static_cast<size_t>(Code::kCancelled)], 0u);
  EXPECT_FALSE(shadow.faulty());
}

TEST_F(MirrorsTest, CopiesAreBounded) {
  TestWorker one(*gateway_, 1, "one");
  TestWorker shadow(*gateway_, 2, "shadow");
  one.Resume();
  ASSERT_TRUE(gateway_->SetTraffic({Mirrored()}).ok());
  Limits limits;
  limits.max_mirrored_requests = 2;
  TestClient client(Listen(limits));
  for (int i = 0; i < 5; ++i) IsAnswered(client.Call(kPredictPath, One("hold")));
  EXPECT_TRUE(CopiesEnded(Code::kResourceExhausted, 3, "hold"));
  EXPECT_EQ(Refused(Refusal::kMaxMirroredRequests), 3u);
  shadow.Resume();
  ASSERT_TRUE(CopiesEnded(Code::kOk, 2, "hold"));
  IsAnswered(client.Call(kPredictPath, One("hold")));
  EXPECT_TRUE(CopiesEnded(Code::kOk, 3, "hold")) << "there is room again";
}

TEST_F(MirrorsTest, BytesOfCopiesAreBounded) {
  TestWorker one(*gateway_, 1, "one");
  TestWorker shadow(*gateway_, 2, "shadow");
  ASSERT_TRUE(gateway_->SetTraffic({Mirrored()}).ok());
  Limits limits;
  limits.max_mirrored_bytes = One().size() - 1;
  TestClient client(Listen(limits));
  IsAnswered(client.Call(kPredictPath, One()));
  EXPECT_TRUE(CopiesEnded(Code::kResourceExhausted, 1));
  EXPECT_EQ(Refused(Refusal::kMaxMirroredBytes), 1u);
  EXPECT_EQ(shadow.calls(), 0u);
}

TEST_F(MirrorsTest, UsersUnaryCallsAreCopiedAndStreamsAreNot) {
  constexpr const char* kUnary = "/t.Users/Unary";
  constexpr const char* kUp = "/t.Users/Up";
  constexpr const char* kDown = "/t.Users/Down";
  const std::vector<WorkerSpec::Method> methods = {{kUnary, true}, {kUp, true}, {kDown, true}};
  ASSERT_TRUE(gateway_
                  ->SetServices({{.name = "t.Users",
                                  .methods = {{"Unary", false, false}, {"Up", true, false}, {"Down", false, true}}}},
                                "")
                  .ok());
  TestUserWorker one(*gateway_, 1, "one", methods);
  TestUserWorker shadow(*gateway_, 2, "shadow", methods);
  one.Echo();
  ASSERT_TRUE(gateway_->SetTraffic({Mirrored()}).ok());
  TestClient client(Listen());
  const auto& response = client.Call(kUnary, "hello", {{"request_id", "r1"}, {"key", "value"}});
  EXPECT_THAT(response.messages(), ElementsAre("hello"));
  const auto seen = shadow.Await(0, [](const auto& call) { return call.half_closed; });
  EXPECT_THAT(seen.messages, ElementsAre("hello"));
  EXPECT_EQ(seen.request_id, "r1");
  EXPECT_THAT(seen.metadata, testing::Contains(testing::Pair("key", "value")));
  shadow.Initial(0, {{"k", "v"}});
  shadow.Take(0);
  ASSERT_TRUE(shadow.Reply(0, "ignored"));
  shadow.End(0, Code::kOk);
  EXPECT_TRUE(CopiesEnded(Code::kOk, 1, "Unary"));
  for (const char* path : {kUp, kDown}) EXPECT_EQ(client.Call(path, "x").grpc_status(), 0);
  EXPECT_EQ(client.Call(kUnary, "again").grpc_status(), 0);
  shadow.Call(1);
  EXPECT_EQ(shadow.calls(), 2u);
  EXPECT_FALSE(shadow.faulty());
}

TEST_F(MirrorsTest, CallsOfTheServersOwnHandlersAreNotCopied) {
  std::string directory = (std::filesystem::temp_directory_path() / "mindserve-mirrors-XXXXXX").string();
  ASSERT_NE(::mkdtemp(directory.data()), nullptr);
  TestWorker one(*gateway_, 1, "one");
  TestWorker shadow(*gateway_, 2, "shadow");
  ASSERT_TRUE(gateway_->SetTraffic({Mirrored()}).ok());
  std::vector<ListenerSpec> listeners(2);
  listeners[0].address.host = "127.0.0.1";
  listeners[1].address.unix_socket = true;
  listeners[1].address.path = directory + "/socket";
  listeners[1].internal = true;
  const auto addresses = gateway_->Listen(std::move(listeners), {});
  ASSERT_TRUE(addresses.ok()) << addresses.status().ToString();
  TestClient inside(addresses->at(1));
  IsAnswered(inside.Call(kPredictPath, One(), {{"mindserve-depth", "1"}}));
  TestClient client(addresses->at(0));
  IsAnswered(client.Call(kPredictPath, One()));
  EXPECT_TRUE(CopiesEnded(Code::kOk, 1));
  EXPECT_EQ(shadow.calls(), 1u);
  gateway_.reset();
  std::filesystem::remove_all(directory);
}

TEST(RequestTest, WhatCopiesReadTooStaysUntilTheRequestGoes) {
  auto port = link::GatewayPort::Create(1 << 20);
  ASSERT_TRUE(port.ok());
  Admission admission;
  RequestMemory memory((*port)->arena(), admission);
  for (const bool is_copied : {false, true}) {
    {
      Request request(*memory.Allocate(100));
      request.stream.Add(*memory.Allocate(1000), {});
      request.is_copied = is_copied;
      request.DropOldest();
      EXPECT_TRUE(request.stream.empty());
      EXPECT_EQ(admission.bytes(), 100u);
      EXPECT_EQ((*port)->arena().slabs(), is_copied ? 2u : 1u);
    }
    EXPECT_EQ((*port)->arena().slabs(), 0u);
  }
}

}  // namespace
}  // namespace mindserve::gateway
