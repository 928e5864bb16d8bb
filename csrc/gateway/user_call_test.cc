// Calls of users' services through a real gateway: sockets, HTTP/2, the link, and workers whose handlers are the tests.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "gateway/predict_service.h"
#include "gateway/test_client.h"
#include "gateway/test_gateway.h"
#include "gateway/test_user_worker.h"
#include "gateway/user_service.h"

namespace mindserve::gateway {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::Contains;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::MatchesRegex;
using testing::Not;
using testing::Pair;

constexpr const char* kUnary = "/t.Users/Unary";
constexpr const char* kIdempotent = "/t.Users/Idempotent";
constexpr const char* kDown = "/t.Users/Down";
constexpr const char* kUp = "/t.Users/Up";
constexpr const char* kBoth = "/t.Users/Both";
// Their numbers in Methods().
enum Method : uint16_t { kUnaryNumber, kIdempotentNumber, kDownNumber, kUpNumber, kBothNumber };

int Number(Code code) {
  return static_cast<int>(code);
}

class UserCallTest : public GatewayTest {
 protected:
  explicit UserCallTest(int io_threads = 1, const KeepAlive& keepalive = {}) : GatewayTest(io_threads, keepalive) {
    const Status status = gateway_->SetServices({{.name = "t.Users",
                                                  .methods = {{"Unary", false, false},
                                                              {"Idempotent", false, false},
                                                              {"Down", false, true},
                                                              {"Up", true, false},
                                                              {"Both", true, true}}}},
                                                "");
    EXPECT_TRUE(status.ok()) << status.ToString();
  }

  static std::vector<WorkerSpec::Method> Methods() {
    return {{kUnary, false}, {kIdempotent, true}, {kDown, true}, {kUp, true}, {kBoth, true}};
  }
  std::unique_ptr<TestUserWorker> Start(uint64_t id, const std::string& servable = "s") {
    return std::make_unique<TestUserWorker>(*gateway_, id, servable, Methods());
  }
  static int32_t Begin(TestClient& client, const char* path, std::string_view message,
                       const TestClient::Fields& more = {}) {
    const int32_t call = client.Start(path, Framed(message), true, more);
    client.Flush();
    return call;
  }
  static int32_t Open(TestClient& client, const char* path, const TestClient::Fields& more = {}) {
    const int32_t call = client.Start(path, "", false, more);
    client.Flush();
    return call;
  }
  static void Send(TestClient& client, int32_t call, std::string_view message, bool ends = false) {
    client.Send(call, Framed(message), ends);
    client.Flush();
  }
  static void Is(const TestClient::Response& response, Code code, const testing::Matcher<std::string>& text) {
    EXPECT_EQ(response.grpc_status(), Number(code)) << response.grpc_message();
    EXPECT_THAT(response.grpc_message(), text);
    EXPECT_TRUE(response.trailers.contains("request_id"));
  }
  bool NothingHeld() {
    return Eventually([this] {
      const auto stats = gateway_->GetStats();
      return stats.in_flight == 0 && stats.enqueued_bytes == 0;
    });
  }
};

TEST_F(UserCallTest, AUnaryCallGoesToTheHandlerAndBack) {
  const auto worker = Start(1);
  TestClient client(Listen());
  const int32_t call = Begin(client, kUnary, "ping", {{"request_id", "abc"}, {"key", "value"}});
  const auto seen = worker->Await(0, [](const auto& c) { return c.half_closed; });
  EXPECT_EQ(seen.method, kUnaryNumber);
  EXPECT_EQ(seen.request_id, "abc");
  EXPECT_THAT(seen.messages, ElementsAre("ping"));
  EXPECT_EQ(seen.deadline_ns, INT64_MAX);
  ASSERT_TRUE(worker->Reply(0, "pong", link::kEnds | link::kReleased));
  const auto& response = client.Wait(call);
  EXPECT_EQ(response.grpc_status(), 0) << response.grpc_message();
  EXPECT_THAT(response.messages(), ElementsAre("pong"));
  EXPECT_EQ(response.trailers.at("request_id"), "abc");
  NothingHeld();
}

TEST_F(UserCallTest, AStreamOfAnswersComesAsItIsSent) {
  const auto worker = Start(1);
  TestClient client(Listen());
  const int32_t call = Begin(client, kDown, "go");
  for (const char* text : {"one", "", "three"}) {
    ASSERT_TRUE(worker->Reply(0, text));
    const size_t count = client.response(call).messages().size();
    client.RunUntil([&] { return client.response(call).messages().size() > count; });
  }
  EXPECT_FALSE(client.response(call).closed);
  worker->End(0, Code::kOk);
  EXPECT_EQ(client.Wait(call).grpc_status(), 0);
  EXPECT_THAT(client.response(call).messages(), ElementsAre("one", "", "three"));
  NothingHeld();
}

TEST_F(UserCallTest, AStreamOfRequestsGoesToTheHandlerAsItComes) {
  const auto worker = Start(1);
  TestClient client(Listen());
  const int32_t call = Open(client, kUp);
  EXPECT_EQ(worker->Call(0).method, kUpNumber);
  Send(client, call, "one");
  EXPECT_THAT(worker->Await(0, [](const auto& c) { return c.messages.size() == 1; }).messages, ElementsAre("one"));
  Send(client, call, "");
  Send(client, call, "three", true);
  const auto seen = worker->Await(0, [](const auto& c) { return c.half_closed; });
  EXPECT_THAT(seen.messages, ElementsAre("one", "", "three"));
  ASSERT_TRUE(worker->Reply(0, "sum", link::kEnds | link::kReleased));
  EXPECT_THAT(client.Wait(call).messages(), ElementsAre("sum"));
  NothingHeld();
}

TEST_F(UserCallTest, BothWaysTheOrderIsUpToThem) {
  const auto worker = Start(1);
  TestClient client(Listen());
  const int32_t call = Open(client, kBoth);
  ASSERT_TRUE(worker->Reply(0, "hello"));  // before anything came
  client.RunUntil([&] { return client.response(call).messages().size() == 1; });
  Send(client, call, "a");
  worker->Await(0, [](const auto& c) { return c.messages.size() == 1; });
  worker->Take(0);
  ASSERT_TRUE(worker->Reply(0, "A"));
  client.RunUntil([&] { return client.response(call).messages().size() == 2; });
  Send(client, call, "b", true);
  worker->Await(0, [](const auto& c) { return c.half_closed; });
  ASSERT_TRUE(worker->Reply(0, "B"));
  worker->End(0, Code::kOk);
  EXPECT_EQ(client.Wait(call).grpc_status(), 0);
  EXPECT_THAT(client.response(call).messages(), ElementsAre("hello", "A", "B"));
  NothingHeld();
}

}  // namespace
}  // namespace mindserve::gateway
