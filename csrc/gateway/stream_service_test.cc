// PredictStream through a real gateway.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "gateway/router.h"
#include "gateway/test_worker.h"
#include "gateway/user_fixture.h"
#include "wire/predict.h"

namespace mindserve::gateway {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

class StreamServiceTest : public UserTest {
 protected:
  // A worker of "s" with a method that streams and one that doesn't.
  std::unique_ptr<TestUserWorker> StartStreaming(uint64_t id, uint64_t version = 1) {
    return std::make_unique<TestUserWorker>(
        *gateway_, id, "s", std::vector<WorkerSpec::Method>{{"plain", true}, {StreamPath("m"), true}}, version);
  }
  static std::string Ask(const std::string& method, uint64_t version = 0, const std::string& servable = "s") {
    return PredictRequest(servable, method, version, {{1, 2}});
  }
  // The one message that a call was answered with.
  static PredictReply Answer(const TestClient::Response& response) {
    EXPECT_EQ(response.grpc_status(), 0) << response.grpc_message();
    return response.messages().size() == 1 ? ParseReply(response.messages().front()) : PredictReply();
  }
};

TEST_F(StreamServiceTest, AMethodThatStreamsIsAnsweredByItsHandler) {
  const auto worker = StartStreaming(1);
  TestClient client(Listen());
  const std::string message = Ask("m");
  const int32_t call = Begin(client, kPredictStreamPath, message, {{"request_id", "abc"}});
  const auto seen = worker->Await(0, [](const auto& c) { return c.half_closed; });
  EXPECT_EQ(seen.method, 1);
  EXPECT_EQ(seen.request_id, "abc");
  EXPECT_THAT(seen.messages, ElementsAre(message));
  for (const char* text : {"one", "two"}) {
    ASSERT_TRUE(worker->Reply(0, text));
    const size_t count = client.response(call).messages().size();
    client.RunUntil([&] { return client.response(call).messages().size() > count; });
  }
  worker->End(0, Code::kOk);
  IsOk(client.Wait(call), {"one", "two"});
  EXPECT_TRUE(NothingHeld());
  const auto stats = gateway_->GetStats();
  const auto counted =
      std::ranges::find(stats.methods, MethodKey{kPredictStreamPath, "s", 1, "m"}, &Gateway::MethodStats::key);
  ASSERT_NE(counted, stats.methods.end());
  EXPECT_EQ(counted->ended[0], 1u);
}

TEST_F(StreamServiceTest, TheVersionIsTheRequests) {
  const auto old = StartStreaming(1, 1);
  const auto latest = StartStreaming(2, 2);
  TestClient client(Listen());
  const int32_t first = Begin(client, kPredictStreamPath, Ask("m", 1));
  const int32_t second = Begin(client, kPredictStreamPath, Ask("m"));
  old->Await(0, [](const auto& c) { return c.half_closed; });
  latest->Await(0, [](const auto& c) { return c.half_closed; });
  old->End(0, Code::kOk);
  latest->End(0, Code::kOk);
  IsOk(client.Wait(first), {});
  IsOk(client.Wait(second), {});
}

TEST_F(StreamServiceTest, ItGoesAgainUntilItsFirstMessage) {
  auto first = StartStreaming(1);
  TestClient client(Listen());
  const int32_t call = Begin(client, kPredictStreamPath, Ask("m"));
  first->Await(0, [](const auto& c) { return c.half_closed; });
  const auto second = StartStreaming(2);
  Kill(first, 1);
  second->Await(0, [](const auto& c) { return c.half_closed; });
  ASSERT_TRUE(second->Reply(0, "one", link::kEnds | link::kReleased));
  IsOk(client.Wait(call), {"one"});
}

TEST_F(StreamServiceTest, AMethodThatDoesNotStreamAnswersAsPredictDoes) {
  const TestWorker worker(*gateway_, 1, "add");
  TestClient client(Listen());
  EXPECT_THAT(Answer(client.Call(kPredictStreamPath, PredictRequest("add", "add", 0, {{1, 2}}))).sums, ElementsAre(3));
}

TEST_F(StreamServiceTest, WhatIsWrongIsAnsweredAsByPredict) {
  const auto worker = StartStreaming(1);
  TestClient client(Listen());
  const auto errors = [&](const std::string& request, const char* path = kPredictStreamPath) {
    return Answer(client.Call(path, request)).errors;
  };
  EXPECT_THAT(errors(Ask("m", 0, "nobody")),
              ElementsAre(testing::Pair(5, "Request Servable(nobody) method(m), servable is not available")));
  EXPECT_THAT(errors(Ask("n")),
              ElementsAre(testing::Pair(2, "Request Servable(s) method(n), method is not available")));
  EXPECT_THAT(errors(Ask("m", 7)),
              ElementsAre(testing::Pair(5, "Request Servable(s) method(m) version(7), servable is not available")));
  EXPECT_THAT(errors(Ask(StreamPath("m"))), ElementsAre(testing::Pair(2, HasSubstr("method is not available"))));
  EXPECT_THAT(errors(PredictRequest("s", "m", 0, {{1, 2}, {3, 4}})),
              ElementsAre(testing::Pair(2, "instances count is 2, expected one: each has a stream of its own")));
  EXPECT_TRUE(
      client.Call(kPredictStreamPath, PredictRequest("s", "m", 0, {{1, 2}, {3, 4}})).trailers.contains("request_id"));
  EXPECT_THAT(errors(PredictRequest("s", "plain", 0, {{1, 2}, {3, 4}})),
              ElementsAre(testing::Pair(2, HasSubstr("instances count is 2"))));
  EXPECT_THAT(errors(PredictRequest("s", "m", 0, {})),
              ElementsAre(testing::Pair(2, HasSubstr("instances count is 0"))));
  EXPECT_THAT(errors(Ask("m"), kPredictPath),
              ElementsAre(testing::Pair(2, AllOf(HasSubstr("answers with a stream"), HasSubstr("infer_stream")))));
  EXPECT_EQ(client.Call(kPredictStreamPath, "\x12\x7f").grpc_status(), Number(Code::kInvalidArgument));
  EXPECT_EQ(worker->calls(), 0u);
}

TEST_F(StreamServiceTest, WithoutAWorkerItIsUnavailable) {
  gateway_->DeclareServable("s", {});
  TestClient client(Listen());
  EXPECT_EQ(client.Call(kPredictStreamPath, Ask("m")).grpc_status(), Number(Code::kUnavailable));
  auto worker = StartStreaming(1);
  const int32_t call = Begin(client, kPredictStreamPath, Ask("m"));
  worker->Await(0, [](const auto& c) { return c.half_closed; });
  worker->End(0, Code::kOk);
  client.Wait(call);
  Kill(worker, 1);
  const auto& response = client.Call(kPredictStreamPath, Ask("m"));
  Is(response, Code::kUnavailable, HasSubstr("no worker of servable 's' is running"));
}

TEST_F(StreamServiceTest, ACancelledCallIsGivenUp) {
  const auto worker = StartStreaming(1);
  TestClient client(Listen());
  const int32_t call = Begin(client, kPredictStreamPath, Ask("m"));
  worker->Await(0, [](const auto& c) { return c.half_closed; });
  client.Reset(call);
  client.Flush();
  EXPECT_TRUE(While(client, [&] { return worker->Call(0).cancelled; }));
  worker->Release(0);
  EXPECT_TRUE(NothingHeld());
}

}  // namespace
}  // namespace mindserve::gateway
