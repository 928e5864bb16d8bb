#include <gtest/gtest.h>
#include <poll.h>

#include <thread>

#include "gateway/health_service.h"
#include "gateway/predict_service.h"
#include "gateway/test_client.h"
#include "gateway/test_gateway.h"
#include "gateway/test_user_worker.h"
#include "gateway/test_worker.h"

namespace mindserve::gateway {
namespace {

using wire::ServingStatus;

class HealthTest : public GatewayTest {
 protected:
  static std::string Request(const std::string& service) {
    return service.empty() ? "" : wire::test::Field(1, service);
  }
  static std::vector<ServingStatus> Statuses(const TestClient::Response& response) {
    std::vector<ServingStatus> statuses;
    for (const std::string& message : response.messages()) {
      EXPECT_TRUE(message.empty() || message.size() == 2);
      statuses.push_back(message.empty() ? ServingStatus::kUnknown : static_cast<ServingStatus>(message[1]));
    }
    return statuses;
  }
};

TEST_F(HealthTest, CheckTellsOfTheServerAndEachServable) {
  TestWorker worker(*gateway_, 1, "add");
  gateway_->DeclareServable("starting");
  TestClient client(Listen());
  const auto check = [&](const std::string& service) {
    const auto& response = client.Call(kHealthCheckPath, Request(service));
    EXPECT_EQ(response.grpc_status(), 0) << response.grpc_message();
    return Statuses(response);
  };
  using Is = std::vector<ServingStatus>;
  EXPECT_EQ(check(""), Is{ServingStatus::kServing});
  EXPECT_EQ(check("add"), Is{ServingStatus::kServing});
  EXPECT_EQ(check("starting"), Is{ServingStatus::kNotServing});
  gateway_->DrainWorker(1);
  EXPECT_EQ(check("add"), Is{ServingStatus::kNotServing});
  const auto& unknown = client.Call(kHealthCheckPath, Request("nobody"));
  EXPECT_EQ(unknown.grpc_status(), static_cast<int>(Code::kNotFound));
  EXPECT_NE(unknown.grpc_message().find("'nobody'"), std::string::npos);
  EXPECT_EQ(client.Call(kHealthCheckPath, "\x0a\x7f").grpc_status(), static_cast<int>(Code::kInvalidArgument));
}

// Watch keeps it as long as the call lasts.
TEST_F(HealthTest, RefusesNamesThatNothingHas) {
  TestClient client(Listen());
  const std::string longest(kMostNameBytes - 3, 'n');
  EXPECT_EQ(client.Call(kHealthCheckPath, Request(longest)).grpc_status(), static_cast<int>(Code::kNotFound));
  for (const char* path : {kHealthCheckPath, kHealthWatchPath}) {
    const auto& response = client.Call(path, Request(longest + "n"));
    EXPECT_EQ(response.grpc_status(), static_cast<int>(Code::kInvalidArgument));
    EXPECT_EQ(response.grpc_message(), "the message has 4097 bytes, expected at most 4096");
  }
}

TEST_F(HealthTest, WatchTellsWhatChanges) {
  TestClient client(Listen());
  const int32_t add = client.Start(kHealthWatchPath, Framed(Request("add")));
  const int32_t server = client.Start(kHealthWatchPath, Framed(Request("")));
  const auto wait = [&](int32_t stream, size_t count) {
    client.RunUntil([&] { return client.response(stream).messages().size() >= count; });
    return Statuses(client.response(stream));
  };
  using Are = std::vector<ServingStatus>;
  Are expected = {ServingStatus::kServiceUnknown};
  EXPECT_EQ(wait(add, 1), expected);
  EXPECT_EQ(wait(server, 1), Are{ServingStatus::kServing});
  gateway_->DeclareServable("add");
  expected.push_back(ServingStatus::kNotServing);
  EXPECT_EQ(wait(add, 2), expected);
  {
    TestWorker worker(*gateway_, 1, "add");
    expected.push_back(ServingStatus::kServing);
    EXPECT_EQ(wait(add, 3), expected);
    TestWorker second(*gateway_, 2, "add");
  }
  expected.push_back(ServingStatus::kNotServing);
  EXPECT_EQ(wait(add, 4), expected);
  gateway_->RemoveServable("add");
  expected.push_back(ServingStatus::kServiceUnknown);
  EXPECT_EQ(wait(add, 5), expected);
  EXPECT_EQ(Statuses(client.response(server)), Are{ServingStatus::kServing});
}

TEST_F(HealthTest, ServicesHaveNamesToo) {
  TestClient client(Listen());
  const auto check = [&](const std::string& service) {
    const auto& response = client.Call(kHealthCheckPath, Request(service));
    return response.grpc_status() == 0 ? Statuses(response).front() : ServingStatus::kServiceUnknown;
  };
  const int32_t watch = client.Start(kHealthWatchPath, Framed(Request("t.Users")));
  EXPECT_EQ(check("t.Users"), ServingStatus::kServiceUnknown);
  ASSERT_TRUE(gateway_->SetServices({{.name = "t.Users", .methods = {{"Unary", false, false}}}}, "").ok());
  EXPECT_EQ(check("t.Users"), ServingStatus::kNotServing);
  EXPECT_EQ(check("mindspore.serving.proto.MSService"), ServingStatus::kServing);
  EXPECT_EQ(check("t.Others"), ServingStatus::kServiceUnknown);
  const std::vector<WorkerSpec::Method> methods = {{"/t.Users/Unary", false}};
  TestWorker other(*gateway_, 1, "other");
  EXPECT_EQ(check("t.Users"), ServingStatus::kNotServing);
  {
    const TestUserWorker first(*gateway_, 2, "first", methods);
    const TestUserWorker second(*gateway_, 3, "second", methods);
    EXPECT_EQ(check("t.Users"), ServingStatus::kServing);
    gateway_->DrainWorker(2);
    EXPECT_EQ(check("t.Users"), ServingStatus::kServing);
  }
  client.RunUntil([&] { return client.response(watch).messages().size() >= 4; });
  EXPECT_EQ(Statuses(client.response(watch)),
            (std::vector<ServingStatus>{ServingStatus::kServiceUnknown, ServingStatus::kNotServing,
                                        ServingStatus::kServing, ServingStatus::kNotServing}));
}

TEST_F(HealthTest, AReplacedWorkerIsNoChange) {
  TestWorker old(*gateway_, 1, "add", 1);
  TestClient client(Listen());
  const int32_t watch = client.Start(kHealthWatchPath, Framed(Request("add")));
  client.RunUntil([&] { return client.response(watch).messages().size() == 1; });
  TestWorker replacement(*gateway_, 2, "add", 2);
  gateway_->DrainWorker(1);
  gateway_->RemoveVersion("add", 1);
  EXPECT_TRUE(Eventually([&] { return old.ended(); }));
  EXPECT_EQ(Statuses(client.Call(kHealthCheckPath, Request("add"))), std::vector{ServingStatus::kServing});
  EXPECT_EQ(Statuses(client.response(watch)), std::vector{ServingStatus::kServing});
}

TEST_F(HealthTest, AServerThatStopsSaysSoToWatchersAndEndsThem) {
  TestClient client(Listen());
  const int32_t watch = client.Start(kHealthWatchPath, Framed(""));
  client.RunUntil([&] { return client.response(watch).messages().size() == 1; });
  std::thread stop([&] { gateway_->StopListening(std::chrono::seconds(20)); });
  const auto& response = client.Wait(watch);
  EXPECT_EQ(Statuses(response), (std::vector<ServingStatus>{ServingStatus::kServing, ServingStatus::kNotServing}));
  EXPECT_EQ(response.grpc_status(), static_cast<int>(Code::kUnavailable));
  client.RunUntil([&] { return client.ended(); });
  stop.join();
}

TEST_F(HealthTest, AServerThatStopsSaysSoToWhoAsks) {
  TestClient client(Listen());
  EXPECT_EQ(Statuses(client.Call(kHealthCheckPath, Request(""))), std::vector{ServingStatus::kServing});
  // Something in flight, so that the connection stays.
  TestWorker worker(*gateway_, 1, "add");
  const int32_t held = client.Start(kPredictPath, Framed(PredictRequest("add", "hold", 0, {{1, 2}})));
  client.Flush();
  Eventually([&] { return worker.held() == 1; });
  std::thread stop([&] { gateway_->StopListening(std::chrono::seconds(20)); });
  // It has said goodbye, which this client has not heard yet.
  pollfd readable{client.fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&readable, 1, 20'000), 1);
  const int32_t server = client.Start(kHealthCheckPath, Framed(Request("")));
  const int32_t add = client.Start(kHealthCheckPath, Framed(Request("add")));
  EXPECT_EQ(Statuses(client.Wait(server)), std::vector{ServingStatus::kNotServing});
  EXPECT_EQ(Statuses(client.Wait(add)), std::vector{ServingStatus::kNotServing});
  worker.Resume();
  EXPECT_EQ(client.Wait(held).grpc_status(), 0);
  client.RunUntil([&] { return client.ended(); });
  stop.join();
}

TEST_F(HealthTest, AWatchMayBeCancelled) {
  TestClient client(Listen());
  const int32_t watch = client.Start(kHealthWatchPath, Framed(Request("add")));
  client.RunUntil([&] { return client.response(watch).messages().size() == 1; });
  client.Reset(watch);
  client.Wait(watch);
  gateway_->DeclareServable("add");
  EXPECT_EQ(client.Call(kHealthCheckPath, Request("add")).grpc_status(), 0);
}

}  // namespace
}  // namespace mindserve::gateway
