// A gateway that serves a user's service with a method of each kind, for the tests.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/test_client.h"
#include "gateway/test_gateway.h"
#include "gateway/test_user_worker.h"

namespace mindserve::gateway {

inline constexpr const char* kUnary = "/t.Users/Unary";
inline constexpr const char* kIdempotent = "/t.Users/Idempotent";
inline constexpr const char* kDown = "/t.Users/Down";
inline constexpr const char* kUp = "/t.Users/Up";
inline constexpr const char* kBoth = "/t.Users/Both";
// Their numbers in UserTest::Methods.
enum UserMethod : uint16_t { kUnaryNumber, kIdempotentNumber, kDownNumber, kUpNumber, kBothNumber };

inline int Number(Code code) {
  return static_cast<int>(code);
}

class UserTest : public GatewayTest {
 protected:
  explicit UserTest(int io_threads = 1) : GatewayTest(io_threads) {
    const Status status = gateway_->SetServices({Service()}, "");
    EXPECT_TRUE(status.ok()) << status.ToString();
  }

  static ServiceSpec Service() {
    return {.name = "t.Users",
            .methods = {{"Unary", false, false},
                        {"Idempotent", false, false},
                        {"Down", false, true},
                        {"Up", true, false},
                        {"Both", true, true}}};
  }
  static std::vector<WorkerSpec::Method> Methods() {
    return {{kUnary, false}, {kIdempotent, true}, {kDown, true}, {kUp, true}, {kBoth, true}};
  }
  std::unique_ptr<TestUserWorker> Start(uint64_t id, const std::string& servable = "s", uint64_t version = 1,
                                        size_t reply_arena = 64 << 20) {
    return std::make_unique<TestUserWorker>(*gateway_, id, servable, Methods(), version, reply_arena);
  }
  // The worker dies, and the gateway knows it.
  void Kill(std::unique_ptr<TestUserWorker>& worker, uint64_t id) {
    worker.reset();
    Gone(id);
  }
  void Gone(uint64_t id) {
    Eventually([&] {
      const auto workers = gateway_->GetStats().workers;
      return std::ranges::find(workers, id, &Gateway::WorkerStats::id) == workers.end();
    });
  }

  // Begins a call with one message.
  static int32_t Begin(TestClient& client, const char* path, std::string_view message,
                       const TestClient::Fields& more = {}) {
    const int32_t call = client.Start(path, Framed(message), true, more);
    client.Flush();
    return call;
  }
  // Begins one with a stream of them.
  static int32_t Open(TestClient& client, const char* path, const TestClient::Fields& more = {}) {
    const int32_t call = client.Start(path, "", false, more);
    client.Flush();
    return call;
  }
  static void Send(TestClient& client, int32_t call, std::string_view message, bool ends = false) {
    client.Send(call, Framed(message), ends);
    client.Flush();
  }
  // All that was sent before has been taken in by the gateway.
  static void Sync(TestClient& client) {
    const int acked = client.pings_acked();
    client.Ping();
    client.RunUntil([&] { return client.pings_acked() > acked; });
  }

  // Waits for something while the client goes on.
  static bool While(TestClient& client, const std::function<bool()>& condition) {
    return Eventually([&] {
      Sync(client);
      return condition();
    });
  }

  // How a call ended; every end tells the request id.
  static void Is(const TestClient::Response& response, Code code, const testing::Matcher<std::string>& text) {
    EXPECT_EQ(response.grpc_status(), Number(code)) << response.grpc_message();
    EXPECT_THAT(response.grpc_message(), text);
    EXPECT_TRUE(response.trailers.contains("request_id"));
  }
  static void IsOk(const TestClient::Response& response, const std::vector<std::string>& messages) {
    Is(response, Code::kOk, "");
    EXPECT_EQ(response.messages(), messages);
  }
  uint64_t Refused(Refusal by) { return gateway_->GetStats().refused[static_cast<size_t>(by)]; }
  bool NothingHeld() {
    return Eventually([this] {
      const auto stats = gateway_->GetStats();
      return stats.in_flight == 0 && stats.enqueued_bytes == 0;
    });
  }
};

}  // namespace mindserve::gateway
