// Listeners for the server's own workers, whose handlers call other servables.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <array>
#include <cstdio>
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

TEST_F(InternalTest, ItsConnectionsMayBeIdle) {
  Limits limits;
  limits.idle_connection_timeout = milliseconds(20);
  ListenBoth(limits);
  const auto worker = Start(1);
  worker->Echo();
  TestClient inside(internal_);
  IsOk(inside.Call(kUnary, "x"), {"x"});
  TestClient client(address_);
  client.RunUntil([&] { return client.ended(); });
  IsOk(inside.Call(kUnary, "x"), {"x"});
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
  EXPECT_EQ(worker->Call(0).depth, 16u);
  IsOk(outside.Call(kUnary, "x", {{"mindserve-depth", "17"}, {"application", "s"}}), {"x"});
  EXPECT_EQ(worker->Call(1).depth, 0u);
  for (size_t call : {0, 1}) {
    EXPECT_THAT(worker->Call(call).metadata, Not(Contains(Pair("mindserve-depth", testing::_)))) << "handlers see none";
  }
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

// As a worker names the call.
std::string Parent(const TestUserWorker::Seen& call) {
  std::array<char, 17> text;
  std::snprintf(text.data(), text.size(), "%016lx", link::TagOf(call.lane, call.number));
  return text.data();
}

constexpr const char* kGivenUp = "the call that this one was made for was given up";

TEST_F(InternalTest, WithACallGoThoseMadeForIt) {
  ListenBoth();
  const auto worker = Start(1);
  const auto other = Start(2, "other");
  TestWorker predictor(*gateway_, 3, "add");
  TestClient client(address_);
  TestClient inside(internal_);
  const int32_t given_up = Begin(client, kUnary, "m", {{"application", "s"}});
  const int32_t goes_on = Begin(client, kUnary, "m", {{"application", "s"}});
  const std::string parent = Parent(worker->Call(0));
  const std::string other_parent = Parent(worker->Call(1));
  const int32_t child = Begin(inside, kUnary, "m", {{"application", "other"}, {"mindserve-parent", parent}});
  const int32_t stream = Open(inside, kBoth, {{"application", "other"}, {"mindserve-parent", parent}});
  const int32_t predict =
      Begin(inside, kPredictPath, PredictRequest("add", "hold", 0, {{1, 2}}), {{"mindserve-parent", parent}});
  const int32_t stays = Begin(inside, kUnary, "m", {{"application", "other"}, {"mindserve-parent", other_parent}});
  EXPECT_THAT(other->Call(0).metadata, Not(Contains(Pair("mindserve-parent", testing::_)))) << "handlers see none";
  other->Call(2);
  Eventually([&] { return predictor.held() == 1; });

  client.Reset(given_up);
  client.Flush();
  for (const int32_t call : {child, stream}) Is(inside.Wait(call), Code::kCancelled, kGivenUp);
  EXPECT_EQ(inside.Wait(predict).grpc_status(), Number(Code::kCancelled));
  for (const size_t call : {0, 1}) other->Await(call, [](const auto& seen) { return seen.cancelled; });
  Eventually([&] { return predictor.cancels() == 1; });
  // One that was on its way meanwhile.
  Is(inside.Call(kUnary, "m", {{"application", "other"}, {"mindserve-parent", parent}}), Code::kCancelled, kGivenUp);

  EXPECT_FALSE(other->Call(2).cancelled);
  worker->Reply(1, "done", link::kEnds | link::kReleased);
  IsOk(client.Wait(goes_on), {"done"});
  Sync(inside);
  other->Reply(2, "late", link::kEnds | link::kReleased);
  IsOk(inside.Wait(stays), {"late"});
}

TEST_F(InternalTest, AlsoWhenItsDeadlinePasses) {
  ListenBoth();
  const auto worker = Start(1);
  const auto other = Start(2, "other");
  TestClient client(address_);
  TestClient inside(internal_);
  const int32_t call = Begin(client, kUnary, "m", {{"application", "s"}, {"grpc-timeout", "300m"}});
  const int32_t child =
      Begin(inside, kUnary, "m", {{"application", "other"}, {"mindserve-parent", Parent(worker->Call(0))}});
  Is(client.Wait(call), Code::kDeadlineExceeded, testing::_);
  Is(inside.Wait(child), Code::kCancelled, kGivenUp);
  other->Await(0, [](const auto& seen) { return seen.cancelled; });
}

TEST_F(InternalTest, ParentsAreBelievedOnlyThere) {
  ListenBoth();
  const auto worker = Start(1);
  const auto other = Start(2, "other");
  TestClient client(address_);
  TestClient outside(address_);
  const int32_t call = Begin(client, kUnary, "m", {{"application", "s"}});
  const std::string parent = Parent(worker->Call(0));
  const int32_t no_child = Begin(outside, kUnary, "m", {{"application", "other"}, {"mindserve-parent", parent}});
  EXPECT_THAT(other->Call(0).metadata, Not(Contains(Pair("mindserve-parent", testing::_))));
  client.Reset(call);
  client.Flush();
  worker->Await(0, [](const auto& seen) { return seen.cancelled; });
  Sync(outside);
  EXPECT_FALSE(other->Call(0).cancelled);
  other->Reply(0, "done", link::kEnds | link::kReleased);
  IsOk(outside.Wait(no_child), {"done"});
  TestClient inside(internal_);
  Is(inside.Call(kUnary, "x", {{"mindserve-parent", "xyz"}}), Code::kInvalidArgument, HasSubstr("expected a number"));
}

TEST_F(InternalTest, PredictTellsItsWorkerOfRequestIdAndDepth) {
  ListenBoth();
  TestWorker worker(*gateway_, 1, "add");
  TestClient inside(internal_);
  TestClient outside(address_);
  const std::string predict = PredictRequest("add", "add", 0, {{1, 2}, {3, 4}});
  const auto& plain = outside.Call(kPredictPath, predict);
  EXPECT_EQ(plain.grpc_status(), 0);
  EXPECT_EQ(plain.trailers.at("request_id").size(), 36u);
  EXPECT_THAT(worker.heads(), testing::IsEmpty()) << "most calls need none";

  const auto& named = outside.Call(kPredictPath, predict, {{"request_id", "r-1"}, {"mindserve-depth", "3"}});
  EXPECT_EQ(named.grpc_status(), 0) << named.grpc_message();
  EXPECT_EQ(named.trailers.at("request_id"), "r-1");
  const auto& inner = inside.Call(kPredictPath, predict, {{"request_id", "r-2"}, {"mindserve-depth", "3"}});
  EXPECT_EQ(inner.trailers.at("request_id"), "r-2");
  EXPECT_EQ(inside.Call(kPredictPath, predict, {{"mindserve-depth", "4"}}).grpc_status(), 0);
  EXPECT_THAT(worker.heads(), testing::ElementsAre(Pair("r-1", 0u), Pair("r-2", 3u), Pair("", 4u)));

  const auto& failed = outside.Call(kPredictPath, "no request", {{"request_id", "r-3"}});
  EXPECT_EQ(failed.grpc_status(), Number(Code::kInvalidArgument));
  EXPECT_EQ(failed.trailers.at("request_id"), "r-3");
  const auto& deep = inside.Call(kPredictPath, predict, {{"request_id", "r-4"}, {"mindserve-depth", "17"}});
  EXPECT_EQ(deep.trailers.at("request_id"), "r-4");
  const std::string& made = outside.Call(kPredictPath, "no request").trailers.at("request_id");
  EXPECT_EQ(made.size(), 36u) << "an error has one too";
  const auto& wrong = outside.Call(kPredictPath, predict, {{"request_id", std::string(129, 'x')}});
  EXPECT_EQ(wrong.trailers.at("request_id").size(), 36u);
  EXPECT_EQ(wrong.grpc_status(), Number(Code::kInvalidArgument));
  EXPECT_THAT(wrong.grpc_message(), HasSubstr("expected at most 128 of printable ASCII"));
  Eventually([&] { return gateway_->GetStats().enqueued_bytes == 0; });
}

TEST_F(InternalTest, AnotherWorkerIsToldOfRequestIdAndDepthToo) {
  ListenBoth();
  auto first = std::make_unique<TestWorker>(*gateway_, 1, "add");
  TestClient inside(internal_);
  const int32_t call = Begin(inside, kPredictPath, PredictRequest("add", "hold", 0, {{1, 2}}),
                             {{"request_id", "r-1"}, {"mindserve-depth", "2"}});
  Eventually([&] { return first->held() == 1; });
  TestWorker second(*gateway_, 2, "add");
  second.Resume();
  first.reset();
  EXPECT_EQ(inside.Wait(call).grpc_status(), 0);
  EXPECT_THAT(second.heads(), testing::ElementsAre(Pair("r-1", 2u)));
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

TEST_F(InternalThreadsTest, WithACallGoThoseOfOtherThreadsToo) {
  ListenBoth();
  const auto worker = Start(1);
  const auto other = Start(2, "other");
  TestClient client(address_);
  TestClient one(internal_);
  TestClient two(internal_);
  const int32_t call = Begin(client, kUnary, "m", {{"application", "s"}});
  const TestClient::Fields fields = {{"application", "other"}, {"mindserve-parent", Parent(worker->Call(0))}};
  const int32_t of_one = Begin(one, kUnary, "m", fields);
  const int32_t of_two = Begin(two, kUnary, "m", fields);
  EXPECT_NE(other->Call(0).lane, other->Call(1).lane);
  client.Reset(call);
  client.Flush();
  Is(one.Wait(of_one), Code::kCancelled, kGivenUp);
  Is(two.Wait(of_two), Code::kCancelled, kGivenUp);
}

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
