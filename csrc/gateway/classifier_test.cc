// The gateway's part of the Classifier; the workers' is tested in csrc/worker.
#include <gtest/gtest.h>

#include <set>

#include "gateway/classifier_service.h"
#include "gateway/test_client.h"
#include "gateway/test_gateway.h"
#include "gateway/test_worker.h"

namespace mindserve::gateway {
namespace {

using wire::test::Field;

std::string Data(std::string_view value) {
  return Field(2, Field(1, "x/t.Type") + Field(2, value));
}
// The answer's meta.
std::string Meta(std::string_view puid, std::string_view variation = "default") {
  return Field(1, Field(1, puid) + Field(3, variation) + Field(2, "model"));
}

class ClassifierTest : public GatewayTest {
 protected:
  std::unique_ptr<TestWorker> Worker(uint64_t id, const std::string& servable, bool classifies = true) {
    return std::make_unique<TestWorker>(*gateway_, id, servable, 1, 256 << 20, std::chrono::seconds(20), classifies);
  }
  static void Fails(const TestClient::Response& response, Code code, std::string_view text) {
    EXPECT_EQ(response.grpc_status(), static_cast<int>(code));
    EXPECT_NE(response.grpc_message().find(text), std::string::npos) << response.grpc_message();
  }
};

TEST_F(ClassifierTest, TheWorkerGetsTheRequestAndTheClientTheMeta) {
  TestClient client(Listen());
  const auto worker = Worker(1, "iris");
  const std::string request = Field(1, Field(1, "12345")) + Field(9, "?") + Data("abc");
  const auto& response = client.Call(kClassifierPath, request);
  EXPECT_EQ(response.grpc_status(), 0) << response.grpc_message();
  EXPECT_EQ(response.messages(), std::vector{Meta("12345") + request});
  EXPECT_TRUE(response.trailers.contains("request_id"));
}

TEST_F(ClassifierTest, APuidIsMadeWhereNoneIsGiven) {
  TestClient client(Listen());
  const auto worker = Worker(1, "iris");
  std::set<std::string> puids;
  for (int i = 0; i < 3; ++i) {
    const std::string message = client.Call(kClassifierPath, Data("abc")).messages().at(0);
    puids.insert(message.substr(4, 40));
    EXPECT_EQ(message, Meta(message.substr(4, 40)) + Data("abc"));
  }
  // Also for one whose client has named the request.
  puids.insert(client.Call(kClassifierPath, Data("abc"), {{"request_id", "r"}}).messages().at(0).substr(4, 40));
  EXPECT_EQ(puids.size(), 4u);
  for (const std::string& puid : puids) EXPECT_EQ(puid.find_first_not_of("0123456789abcdef"), std::string::npos);
}

TEST_F(ClassifierTest, WhatIsNoRequestIsRefused) {
  TestClient client(Listen());
  const auto worker = Worker(1, "iris");
  Fails(client.Call(kClassifierPath, ""), Code::kInvalidArgument, "has no data");
  Fails(client.Call(kClassifierPath, Field(1, Field(1, "1"))), Code::kInvalidArgument, "has no data");
  Fails(client.Call(kClassifierPath, "\x12\x7f"), Code::kInvalidArgument, "doesn't parse at byte");
  Fails(client.Call(kClassifierPath, Field(1, Field(1, "\xff")) + Data("")), Code::kInvalidArgument, "not valid UTF-8");
  Fails(client.Call(kClassifierPath, Field(1, Field(1, std::string(kMostNameBytes + 1, 'p'))) + Data("")),
        Code::kInvalidArgument, "puid has 4097 bytes, expected at most 4096");
  EXPECT_EQ(worker->calls(), 0u);
  const std::string longest(kMostNameBytes, 'p');
  EXPECT_EQ(client.Call(kClassifierPath, Field(1, Field(1, longest)) + Data("abc")).grpc_status(), 0);
}

TEST_F(ClassifierTest, TheServableIsTheOnlyOneOrNamed) {
  TestClient client(Listen());
  const auto ask = [&](const TestClient::Fields& metadata = {}) -> const TestClient::Response& {
    return client.Call(kClassifierPath, Field(1, Field(1, "1")) + Data("abc"), metadata);
  };
  Fails(ask(), Code::kUnavailable, "no servable that answers the Classifier is running");
  const auto other = Worker(1, "other", /*classifies=*/false);
  auto iris = Worker(2, "iris");
  EXPECT_EQ(ask().grpc_status(), 0);
  EXPECT_EQ(ask({{"application", "iris"}}).grpc_status(), 0);
  Fails(ask({{"application", "rose"}}), Code::kNotFound, "'rose' not found");
  Fails(ask({{"application", "other"}}), Code::kUnimplemented, "servable 'other' does not answer the Classifier");
  const auto rose = Worker(3, "rose");
  Fails(ask(), Code::kNotFound, "answered by the servables 'iris', 'rose'");
  EXPECT_EQ(ask({{"application", "rose"}}).grpc_status(), 0);
  iris->Die();
  Eventually([&] { return ask({{"application", "iris"}}).grpc_status() == static_cast<int>(Code::kUnavailable); });
  Fails(ask({{"application", "iris"}}), Code::kUnavailable, "no worker of servable 'iris' is running");
}

TEST_F(ClassifierTest, PredictCantCallItsMethod) {
  TestClient client(Listen());
  const auto worker = Worker(1, "iris");
  const auto& response =
      client.Call("/mindspore.serving.proto.MSService/Predict", PredictRequest("iris", kClassifierPath, 0, {{1, 2}}));
  const PredictReply reply = ParseReply(response.messages().at(0));
  ASSERT_EQ(reply.errors.size(), 1u);
  EXPECT_NE(reply.errors[0].second.find("method is not available"), std::string::npos);
}

TEST_F(ClassifierTest, TheVariationThatAnswersIsNamed) {
  TestClient client(Listen());
  const auto old = Worker(1, "old");
  const auto fresh = Worker(2, "new");
  ASSERT_TRUE(
      gateway_
          ->SetTraffic({SplitSpec{.name = "iris",
                                  .variations = {{.name = "a", .servable = "old"}, {.name = "b", .servable = "new"}}}})
          .ok());
  std::multiset<std::string> seen;
  for (int i = 0; i < 10; ++i) {
    // Without a name it is the one that is split.
    const std::string message = client.Call(kClassifierPath, Field(1, Field(1, "1")) + Data("abc")).messages().at(0);
    for (const char* name : {"a", "b"}) {
      if (message == Meta("1", name) + Field(1, Field(1, "1")) + Data("abc")) seen.insert(name);
    }
  }
  EXPECT_EQ(seen.count("a"), 5u);
  EXPECT_EQ(seen.count("b"), 5u);
  EXPECT_EQ(old->calls(), 5u);
}

TEST_F(ClassifierTest, ItIsSentAgainWhenAWorkerDies) {
  TestClient client(Listen());
  auto first = Worker(1, "iris");
  const int32_t stream = client.Start(kClassifierPath, Framed(Field(1, Field(1, "1")) + Data("hold")));
  client.Flush();
  ASSERT_TRUE(Eventually([&] { return first->held() == 1; }));
  const auto second = Worker(2, "iris");
  second->Resume();
  first->Die();
  EXPECT_EQ(client.Wait(stream).messages(), std::vector{Meta("1") + Field(1, Field(1, "1")) + Data("hold")});
}

TEST_F(ClassifierTest, OneThatKillsWorkersIsSetAside) {
  TestClient client(Listen());
  const auto first = Worker(1, "iris");
  const auto second = Worker(2, "iris");
  const auto& response = client.Call(kClassifierPath, Field(1, Field(1, "p1")) + Data("die"));
  Fails(response, Code::kUnavailable, "Classification by servable 'iris' puid 'p1'");
  EXPECT_TRUE(response.trailers.contains("request_id"));
}

TEST_F(ClassifierTest, ABrokenAnswerIsInternal) {
  TestClient client(Listen());
  const auto worker = Worker(1, "iris");
  Fails(client.Call(kClassifierPath, Data("rogue")), Code::kInternal, "does not begin with the name of its model");
}

}  // namespace
}  // namespace mindserve::gateway
