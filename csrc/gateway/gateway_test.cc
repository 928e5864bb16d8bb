// Listening, stopping, and starting again.
#include "gateway/gateway.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "gateway/health_service.h"
#include "gateway/predict_service.h"
#include "gateway/test_client.h"
#include "gateway/test_gateway.h"
#include "gateway/test_worker.h"

namespace mindserve::gateway {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

class ListenTest : public GatewayTest {
 protected:
  static std::string Add(const std::string& method = "add") { return PredictRequest("add", method, 0, {{1, 2}}); }
  static bool Works(TestClient& client) { return client.Call(kPredictPath, Add()).grpc_status() == 0; }
  static ListenerSpec At(const std::string& host, uint16_t port) {
    ListenerSpec spec;
    spec.address.host = host;
    spec.address.port = port;
    return spec;
  }
};

TEST_F(ListenTest, SeveralListenersAtOnce) {
  TestWorker worker(*gateway_, 1, "add");
  char directory[] = "/tmp/mindserve-gateway-XXXXXX";
  ASSERT_NE(::mkdtemp(directory), nullptr);
  ListenerSpec file;
  file.address.unix_socket = true;
  file.address.path = std::string(directory) + "/socket";
  const auto addresses = gateway_->Listen({At("127.0.0.1", 0), file, At("localhost", 0)}, {});
  ASSERT_TRUE(addresses.ok()) << addresses.status().ToString();
  ASSERT_EQ(addresses->size(), 3u);
  for (const net::Address& address : *addresses) {
    TestClient client(address);
    EXPECT_TRUE(Works(client)) << address.ToString();
  }
  struct stat info{};
  ASSERT_EQ(::stat(file.address.path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  gateway_->StopListening(seconds(20));
  EXPECT_FALSE(std::filesystem::exists(file.address.path));
  std::filesystem::remove_all(directory);
}

TEST_F(ListenTest, AllOrNone) {
  const net::Address taken = Listen();
  auto other = Gateway::Create({.io_threads = 1});
  const auto failed = (*other)->Listen({At("127.0.0.1", 0), At("127.0.0.1", taken.port)}, {});
  ASSERT_FALSE(failed.ok());
  EXPECT_THAT(failed.status().message(),
              StartsWith("Serving Error: Serving gRPC server start failed, create server failed, address " +
                         taken.ToString() + ": "));
  EXPECT_TRUE((*other)->Listen({At("127.0.0.1", 0)}, {}).ok()) << "it is not listening yet";
}

TEST_F(ListenTest, TwiceIsAnError) {
  Listen();
  const auto again = gateway_->Listen({At("127.0.0.1", 0)}, {});
  ASSERT_FALSE(again.ok());
  EXPECT_EQ(again.status().code(), Code::kFailedPrecondition);
  EXPECT_EQ(again.status().message(), "Serving Error: Serving gRPC server is already running");
}

TEST_F(ListenTest, TlsIsExchangedOnlyWhereItIs) {
  EXPECT_EQ(gateway_->SetTls(0, nullptr), Status(Code::kFailedPrecondition, "the server is not listening"));
  Listen();
  EXPECT_EQ(gateway_->SetTls(0, nullptr), Status(Code::kInvalidArgument, "listener 0 is plaintext"));
  EXPECT_EQ(gateway_->SetTls(1, nullptr), Status(Code::kInvalidArgument, "there is no listener 1, only 1"));
  gateway_->StopListening(milliseconds(0));
  EXPECT_EQ(gateway_->SetTls(0, nullptr).code(), Code::kFailedPrecondition);
}

TEST_F(ListenTest, AMessageLimitOutOfRangeIsRefused) {
  for (size_t size : {0, 513}) {
    Limits limits;
    limits.max_msg_mb_size = size;
    const auto refused = gateway_->Listen({At("127.0.0.1", 0)}, limits);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.status().code(), Code::kInvalidArgument);
    EXPECT_THAT(refused.status().message(), HasSubstr("max_msg_mb_size"));
  }
}

TEST_F(ListenTest, WhatIsInFlightEndsBeforeTheServerDoes) {
  TestWorker worker(*gateway_, 1, "add");
  TestClient client(Listen());
  const int32_t call = client.Start(kPredictPath, Framed(Add("hold")));
  client.Flush();
  Eventually([&] { return worker.held() == 1; });
  std::thread stop([&] { gateway_->StopListening(seconds(20)); });
  client.RunUntil([&] { return client.goaways() == 2; });
  EXPECT_EQ(client.goaway_error(), static_cast<uint32_t>(NGHTTP2_NO_ERROR));
  EXPECT_FALSE(client.response(call).closed);
  worker.Resume();
  EXPECT_EQ(client.Wait(call).grpc_status(), 0);
  client.RunUntil([&] { return client.ended(); });
  stop.join();
  EXPECT_EQ(gateway_->GetStats().connections, 0u);
}

TEST_F(ListenTest, WhenTheGraceIsOverCallsAreUnavailable) {
  TestWorker worker(*gateway_, 1, "add");
  TestClient client(Listen());
  const int32_t call = client.Start(kPredictPath, Framed(Add("hold")));
  client.Flush();
  Eventually([&] { return worker.held() == 1; });
  gateway_->StopListening(milliseconds(0));
  const auto& response = client.Wait(call);
  EXPECT_EQ(response.grpc_status(), static_cast<int>(Code::kUnavailable));
  EXPECT_THAT(response.grpc_message(), HasSubstr("shutting down"));
  client.RunUntil([&] { return client.ended(); });
  Eventually([&] { return worker.cancels() == 1; });
}

TEST_F(ListenTest, AClientThatDoesNotAnswerIsLeftWhenTheGraceIsOver) {
  const net::Address address = Listen();
  UniqueFd silent = ConnectTo(address);
  TestClient deaf(address);
  deaf.RunUntil([&] { return !deaf.settings().empty(); });
  gateway_->StopListening(milliseconds(20));
  EXPECT_EQ(gateway_->GetStats().connections, 0u);
}

TEST_F(ListenTest, ItMayListenAgainAfterwards) {
  TestWorker worker(*gateway_, 1, "add");
  for (int i = 0; i < 3; ++i) {
    const net::Address address = Listen();
    TestClient client(address);
    EXPECT_TRUE(Works(client));
    std::thread stop([&] { gateway_->StopListening(seconds(20)); });
    client.RunUntil([&] { return client.ended(); });
    stop.join();
  }
  gateway_->StopListening(seconds(20));  // nothing to do
}

TEST_F(ListenTest, DestroyedInTheMiddleOfThings) {
  auto worker = std::make_unique<TestWorker>(*gateway_, 1, "add");
  TestClient client(Listen());
  const int32_t call = client.Start(kPredictPath, Framed(Add("hold")));
  const int32_t watch = client.Start(kHealthWatchPath, Framed(""));
  client.Flush();
  Eventually([&] { return worker->held() == 1; });
  gateway_.reset();
  EXPECT_EQ(client.Wait(call).grpc_status(), static_cast<int>(Code::kUnavailable));
  client.Wait(watch);
  client.RunUntil([&] { return client.ended(); });
}

TEST(AttachTest, AWorkerThatDoesNotShakeHandsIsRefused) {
  auto gateway = Gateway::Create({.io_threads = 1});
  ASSERT_TRUE(gateway.ok());
  int fds[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
  UniqueFd other(fds[1]);
  EXPECT_FALSE((*gateway)->AttachWorker(UniqueFd(fds[0]), {1, "add", 1, {}}, milliseconds(10)).ok());
  // Its number may be used again.
  TestWorker worker(**gateway, 1, "add");
}

}  // namespace
}  // namespace mindserve::gateway
