#include <gtest/gtest.h>
#include <poll.h>

#include <thread>

#include "gateway/predict_service.h"
#include "gateway/ray_service.h"
#include "gateway/test_client.h"
#include "gateway/test_gateway.h"
#include "gateway/test_worker.h"

namespace mindserve::gateway {
namespace {

using wire::test::Field;
using RayTest = GatewayTest;

TEST_F(RayTest, ListsTheServablesByTheirNames) {
  TestClient client(Listen());
  const auto listed = [&] {
    const auto& response = client.Call(kListApplicationsPath, "");
    EXPECT_EQ(response.grpc_status(), 0) << response.grpc_message();
    return response.messages();
  };
  EXPECT_EQ(listed(), std::vector<std::string>{""});
  gateway_->DeclareServable("starting");
  TestWorker worker(*gateway_, 1, "add");
  gateway_->DeclareServable("zebra");
  EXPECT_EQ(listed(), std::vector{Field(1, "add") + Field(1, "starting") + Field(1, "zebra")});
  gateway_->RemoveServable("starting");
  EXPECT_EQ(listed(), std::vector{Field(1, "add") + Field(1, "zebra")});
}

TEST_F(RayTest, SaysSuccessWhenAskedForHealth) {
  TestClient client(Listen());
  const auto& response = client.Call(kHealthzPath, wire::test::UnknownFields());
  EXPECT_EQ(response.grpc_status(), 0);
  EXPECT_EQ(response.messages(), std::vector{Field(1, "success")});
}

TEST_F(RayTest, RefusesWhatIsNoMessage) {
  TestClient client(Listen());
  for (const auto& [path, type] :
       {std::pair{kListApplicationsPath, "ListApplicationsRequest"}, std::pair{kHealthzPath, "HealthzRequest"}}) {
    const auto& response = client.Call(path, "\x0a\x7f");
    EXPECT_EQ(response.grpc_status(), static_cast<int>(Code::kInvalidArgument));
    EXPECT_NE(response.grpc_message().find(type), std::string::npos);
  }
}

TEST_F(RayTest, AServerThatStopsIsUnavailable) {
  TestClient client(Listen());
  EXPECT_EQ(client.Call(kHealthzPath, "").grpc_status(), 0);
  // Something in flight, so that the connection stays.
  TestWorker worker(*gateway_, 1, "add");
  const int32_t held = client.Start(kPredictPath, Framed(PredictRequest("add", "hold", 0, {{1, 2}})));
  client.Flush();
  Eventually([&] { return worker.held() == 1; });
  std::thread stop([&] { gateway_->StopListening(std::chrono::seconds(20)); });
  // It has said goodbye, which this client has not heard yet.
  pollfd readable{client.fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&readable, 1, 20'000), 1);
  const int32_t health = client.Start(kHealthzPath, Framed(""));
  const int32_t list = client.Start(kListApplicationsPath, Framed(""));
  for (const int32_t stream : {health, list}) {
    EXPECT_EQ(client.Wait(stream).grpc_status(), static_cast<int>(Code::kUnavailable));
    EXPECT_TRUE(client.response(stream).messages().empty());
  }
  worker.Resume();
  EXPECT_EQ(client.Wait(held).grpc_status(), 0);
  client.RunUntil([&] { return client.ended(); });
  stop.join();
}

}  // namespace
}  // namespace mindserve::gateway
