// Listeners for the server's own workers, whose handlers call other servables.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "gateway/predict_service.h"
#include "gateway/test_worker.h"
#include "gateway/user_fixture.h"

namespace mindserve::gateway {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;
using testing::Pair;

class InternalTest : public UserTest {
 protected:
  explicit InternalTest(int io_threads = 1) : UserTest(io_threads) {
    std::string name = (std::filesystem::temp_directory_path() / "mindserve-internal-XXXXXX").string();
    directory_ = ::mkdtemp(name.data());
  }
  ~InternalTest() override {
    gateway_.reset();
    std::filesystem::remove_all(directory_);
  }

  std::vector<ListenerSpec> Listeners() {
    std::vector<ListenerSpec> listeners(2);
    listeners[0].address.host = "127.0.0.1";
    listeners[1].address.unix_socket = true;
    listeners[1].address.path = directory_ + "/socket";
    listeners[1].internal = true;
    return listeners;
  }
  void ListenBoth(const Limits& limits = {}) {
    const auto addresses = gateway_->Listen(Listeners(), limits);
    ASSERT_TRUE(addresses.ok()) << addresses.status().ToString();
    ASSERT_EQ(addresses->size(), 2u);
    address_ = addresses->at(0);
    internal_ = addresses->at(1);
  }

  std::string directory_;
  net::Address address_, internal_;
};

TEST_F(InternalTest, AnInternalOneStandsBehindAllOthers) {
  auto listeners = Listeners();
  std::swap(listeners[0], listeners[1]);
  const auto addresses = gateway_->Listen(std::move(listeners), {});
  EXPECT_EQ(addresses.status().code(), Code::kInvalidArgument);
  ListenBoth();
  const auto shared = gateway_->ShareListeners();
  ASSERT_TRUE(shared.ok());
  EXPECT_EQ(shared->size(), 1u);
}

TEST_F(InternalTest, ItsConnectionsAreNotCounted) {
  Limits limits;
  limits.max_connections = 1;
  limits.max_concurrent_streams = 1;
  limits.idle_connection_timeout = milliseconds(1);
  ListenBoth(limits);
  const auto worker = Start(1);
  worker->Echo();
  TestClient one(internal_);
  TestClient two(internal_);
  // As many streams as there are calls.
  std::vector<int32_t> open;
  one.RunUntil([&] { return !one.settings().empty(); });
  EXPECT_GT(one.settings().at(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS), 1'000'000u);
  for (int i = 0; i < 10; ++i) open.push_back(Open(one, kUp));
  worker->Call(9);
  TestClient client(address_);
  IsOk(client.Call(kUnary, "x"), {"x"});
  IsOk(two.Call(kUnary, "x"), {"x"});
  EXPECT_LE(gateway_->GetStats().connections, 1u);
  EXPECT_EQ(gateway_->GetStats().accepted, 1u);
  for (const int32_t call : open) {
    one.Send(call, "", true);
    IsOk(one.Wait(call), {""});
  }
}

TEST_F(InternalTest, DepthIsBelievedOnlyThere) {
  ListenBoth();
  const auto worker = Start(1);
  worker->Echo();
  TestWorker predictor(*gateway_, 2, "add");
  TestClient inside(internal_);
  TestClient outside(address_);
  const std::string predict = PredictRequest("add", "add", 0, {{1, 2}});
  IsOk(inside.Call(kUnary, "x", {{"mindserve-depth", "16"}, {"application", "s"}}), {"x"});
  EXPECT_THAT(worker->Call(0).metadata, Contains(Pair("mindserve-depth", "16")));
  IsOk(outside.Call(kUnary, "x", {{"mindserve-depth", "17"}, {"application", "s"}}), {"x"});
  EXPECT_THAT(worker->Call(1).metadata, Not(Contains(Pair("mindserve-depth", testing::_))));
  EXPECT_EQ(inside.Call(kPredictPath, predict, {{"mindserve-depth", "16"}}).grpc_status(), 0);
  EXPECT_EQ(outside.Call(kPredictPath, predict, {{"mindserve-depth", "17"}}).grpc_status(), 0);

  const auto text = AllOf(HasSubstr("17 deep, at most 16"), HasSubstr("a cycle of servables"));
  Is(inside.Call(kUnary, "x", {{"mindserve-depth", "17"}}), Code::kFailedPrecondition, text);
  const auto& refused = inside.Call(kPredictPath, predict, {{"mindserve-depth", "17"}});
  EXPECT_EQ(refused.grpc_status(), Number(Code::kFailedPrecondition));
  EXPECT_THAT(refused.grpc_message(), text);
  for (const char* depth : {"", "x", "-1", "1x", "99999999999"}) {
    Is(inside.Call(kUnary, "x", {{"mindserve-depth", depth}}), Code::kInvalidArgument, HasSubstr("expected a number"));
  }
  EXPECT_EQ(worker->calls(), 2u);
}

TEST_F(InternalTest, WhileClientsDrainWorkersAreServed) {
  ListenBoth();
  const auto worker = Start(1);
  const auto other = Start(2, "other");
  other->Echo();
  TestClient client(address_);
  TestClient before(internal_);
  IsOk(before.Call(kUnary, "x", {{"application", "other"}}), {"x"});
  const int32_t call = Begin(client, kUnary, "m", {{"application", "s"}});
  worker->Call(0);
  std::thread stop([&] { gateway_->StopListening(milliseconds(20'000)); });
  client.RunUntil([&] { return client.goaways() > 0; });
  // The handler goes on, and calls, over a connection that it has and over a new one.
  IsOk(before.Call(kUnary, "y", {{"application", "other"}}), {"y"});
  EXPECT_EQ(before.goaways(), 0);
  TestClient during(internal_);
  IsOk(during.Call(kUnary, "z", {{"application", "other"}}), {"z"});
  worker->Reply(0, "done", link::kEnds | link::kReleased);
  IsOk(client.Wait(call), {"done"});
  client.RunUntil([&] { return client.ended(); });
  for (TestClient* inside : {&before, &during}) {
    inside->RunUntil([&] { return inside->ended(); });
    EXPECT_GT(inside->goaways(), 0);
  }
  stop.join();
  EXPECT_FALSE(std::filesystem::exists(internal_.path));
}

TEST_F(InternalTest, WhoDoesNotLeaveIsEndedInTime) {
  ListenBoth();
  const auto worker = Start(1);
  TestClient inside(internal_);
  const int32_t call = Open(inside, kBoth);
  worker->Call(0);
  std::thread stop([&] { gateway_->StopListening(milliseconds(50)); });
  Is(inside.Wait(call), Code::kUnavailable, HasSubstr("shutting down"));
  stop.join();
  ListenBoth();
  TestClient again(internal_);
  worker->Echo();
  IsOk(again.Call(kUnary, "x"), {"x"});
}

class InternalThreadsTest : public InternalTest {
 protected:
  InternalThreadsTest() : InternalTest(2) {}
};

TEST_F(InternalThreadsTest, AllThreadsWaitForAllClients) {
  ListenBoth();
  const auto worker = Start(1);
  const auto other = Start(2, "other");
  other->Echo();
  TestClient client(address_);  // on one of the threads
  TestClient one(internal_);
  TestClient two(internal_);
  const int32_t call = Begin(client, kUnary, "m", {{"application", "s"}});
  worker->Call(0);
  std::thread stop([&] { gateway_->StopListening(milliseconds(20'000)); });
  client.RunUntil([&] { return client.goaways() > 0; });
  for (TestClient* inside : {&one, &two}) {
    IsOk(inside->Call(kUnary, "x", {{"application", "other"}}), {"x"});
    EXPECT_EQ(inside->goaways(), 0);
  }
  worker->Reply(0, "done", link::kEnds | link::kReleased);
  IsOk(client.Wait(call), {"done"});
  for (TestClient* each : {&client, &one, &two}) each->RunUntil([&] { return each->ended(); });
  stop.join();
}

}  // namespace
}  // namespace mindserve::gateway
