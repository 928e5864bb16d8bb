// Listening, stopping, and starting again.
#include "gateway/gateway.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
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
  template <typename... Spec>
  static std::vector<ListenerSpec> Specs(Spec&&... specs) {
    std::vector<ListenerSpec> all;
    (all.push_back(std::forward<Spec>(specs)), ...);
    return all;
  }
};

TEST_F(ListenTest, SeveralListenersAtOnce) {
  TestWorker worker(*gateway_, 1, "add");
  char directory[] = "/tmp/mindserve-gateway-XXXXXX";
  ASSERT_NE(::mkdtemp(directory), nullptr);
  const std::string path = std::string(directory) + "/socket";
  ListenerSpec file;
  file.address.unix_socket = true;
  file.address.path = path;
  const auto addresses = gateway_->Listen(Specs(At("127.0.0.1", 0), std::move(file), At("localhost", 0)), {});
  ASSERT_TRUE(addresses.ok()) << addresses.status().ToString();
  ASSERT_EQ(addresses->size(), 3u);
  for (const net::Address& address : *addresses) {
    TestClient client(address);
    EXPECT_TRUE(Works(client)) << address.ToString();
  }
  struct stat info{};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  gateway_->StopListening(seconds(20));
  EXPECT_FALSE(std::filesystem::exists(path));
  std::filesystem::remove_all(directory);
}

TEST_F(ListenTest, AllOrNone) {
  const net::Address taken = Listen();
  auto other = Gateway::Create({.io_threads = 1});
  const auto failed = (*other)->Listen(Specs(At("127.0.0.1", 0), At("127.0.0.1", taken.port)), {});
  ASSERT_FALSE(failed.ok());
  EXPECT_THAT(failed.status().message(),
              StartsWith("Serving Error: Serving gRPC server start failed, create server failed, address " +
                         taken.ToString() + ": "));
  EXPECT_TRUE((*other)->Listen(Specs(At("127.0.0.1", 0)), {}).ok()) << "it is not listening yet";
}

TEST_F(ListenTest, TwiceIsAnError) {
  Listen();
  const auto again = gateway_->Listen(Specs(At("127.0.0.1", 0)), {});
  ASSERT_FALSE(again.ok());
  EXPECT_EQ(again.status().code(), Code::kFailedPrecondition);
  EXPECT_EQ(again.status().message(), "Serving Error: Serving gRPC server is already running");
}

TEST_F(ListenTest, ClientsMayComeAfterInternalOnes) {
  ASSERT_TRUE(gateway_->Listen({}, {}).ok()) << "for calls from inside the process";
  EXPECT_EQ(gateway_->Listen({}, {}).status().code(), Code::kFailedPrecondition);
  const net::Address address = Listen();
  TestClient client(address);
  EXPECT_TRUE(Works(client));
  EXPECT_EQ(gateway_->Listen(Specs(At("127.0.0.1", 0)), {}).status().code(), Code::kFailedPrecondition);
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
    const auto refused = gateway_->Listen(Specs(At("127.0.0.1", 0)), limits);
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

// A large reply is given to the kernel long before the client has it; by closing, with a WINDOW_UPDATE unread, the
// server would throw away what the kernel still has.
TEST_F(ListenTest, AClientMayTakeItsReplyAfterAllWasSaid) {
  TestWorker worker(*gateway_, 1, "add");
  TestClient client(Listen());
  const int32_t call = client.Start(kPredictPath, Framed(Add("hold")));
  client.Flush();
  Eventually([&] { return worker.held() == 1; });
  std::thread stop([&] { gateway_->StopListening(seconds(20)); });
  client.RunUntil([&] { return client.goaways() == 2; });
  worker.Resume();
  // It is all said when the server's end of the stream is here, unread.
  Eventually([&] {
    pollfd readable{client.fd(), POLLRDHUP, 0};
    return ::poll(&readable, 1, 0) == 1;
  });
  EXPECT_EQ(gateway_->GetStats().connections, 1u) << "the server waits for the client to close";
  client.Ping();
  client.Flush();
  EXPECT_EQ(client.Wait(call).grpc_status(), 0);
  client.RunUntil([&] { return client.ended(); });
  stop.join();
  EXPECT_EQ(gateway_->GetStats().connections, 0u);
}

TEST_F(ListenTest, CallsThatCrossTheFirstGoawayAreAnswered) {
  TestWorker worker(*gateway_, 1, "add");
  TestClient client(Listen());
  EXPECT_TRUE(Works(client));
  std::thread stop([&] { gateway_->StopListening(seconds(20)); });
  // The server has said goodbye when its watch over the port is gone; the client sends before it reads that.
  pollfd readable{client.fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&readable, 1, 20'000), 1);
  const int32_t call = client.Start(kPredictPath, Framed(Add()));
  EXPECT_EQ(client.Wait(call).grpc_status(), 0);
  client.RunUntil([&] { return client.ended(); });
  EXPECT_GE(client.goaways(), 1);
  stop.join();
}

// What a client does between the PING and the first GOAWAY would be lost if its answer to the PING were taken for its
// having seen the GOAWAY.
TEST_F(ListenTest, TheFirstGoawayComesBeforeThePingThatAsksWhetherItCame) {
  const net::Address address = Listen();
  const UniqueFd client = ConnectTo(address);
  constexpr char kHello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
  ASSERT_EQ(::send(client.get(), kHello, sizeof kHello, 0), static_cast<ssize_t>(sizeof kHello));
  Eventually([&] { return gateway_->GetStats().connections == 1; });
  std::thread stop([&] { gateway_->StopListening(milliseconds(500)); });
  std::string kinds;
  for (bool ping = false; !ping;) {
    uint8_t head[9];
    ASSERT_EQ(::recv(client.get(), head, sizeof head, MSG_WAITALL), 9);
    char payload[256];
    const size_t size = head[0] << 16 | head[1] << 8 | head[2];
    ASSERT_LE(size, sizeof payload);
    if (size > 0) {
      ASSERT_EQ(::recv(client.get(), payload, size, MSG_WAITALL), static_cast<ssize_t>(size));
    }
    ping = head[3] == NGHTTP2_PING;
    if (ping || head[3] == NGHTTP2_GOAWAY) kinds += ping ? "PING" : "GOAWAY ";
  }
  EXPECT_EQ(kinds, "GOAWAY PING");
  ::shutdown(client.get(), SHUT_RDWR);
  stop.join();
}

class HandoverTest : public ListenTest {
 protected:
  HandoverTest() : successor_(*Gateway::Create({.io_threads = 2})) {}

  // The successor's listener at `address`, which is one of the other's.
  ListenerSpec Inherited(const net::Address& address) {
    auto shared = gateway_->ShareListeners();
    EXPECT_TRUE(shared.ok());
    ListenerSpec spec;
    spec.address = address;
    spec.inherited = std::move(shared->front());
    return spec;
  }

  std::unique_ptr<Gateway> successor_;
};

TEST_F(HandoverTest, ConnectionsWaitUntilTheSuccessorAccepts) {
  TestWorker worker(*gateway_, 1, "add");
  TestWorker successors_worker(*successor_, 1, "add");
  const net::Address address = Listen();
  const auto bound = successor_->Listen(Specs(Inherited(address)), {}, false);
  ASSERT_TRUE(bound.ok()) << bound.status().ToString();
  EXPECT_EQ(bound->front().ToString(), address.ToString());
  {
    TestClient client(address);
    EXPECT_TRUE(Works(client));
  }
  EXPECT_EQ(successor_->GetStats().accepted, 0u);

  gateway_->DisownListeners({0, 7});
  gateway_->StopListening(seconds(20));
  TestClient waiting(address);  // nobody accepts, and nobody refuses
  successor_->Accept();
  successor_->Accept();
  EXPECT_TRUE(Works(waiting));
  EXPECT_EQ(successor_->GetStats().accepted, 1u);
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
