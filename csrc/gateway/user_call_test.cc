// Calls of users' services through a real gateway: sockets, HTTP/2, the link, and workers whose handlers are the tests.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <thread>

#include "gateway/predict_service.h"
#include "gateway/test_worker.h"
#include "gateway/user_fixture.h"
#include "gateway/user_service.h"

namespace mindserve::gateway {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Pair;
using testing::StartsWith;
using testing::UnorderedElementsAre;

using UserCallTest = UserTest;

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

TEST_F(UserCallTest, TheHandlerIsToldWhatTheClientSaid) {
  const auto worker = Start(1);
  TestClient client(Listen());
  const int32_t call = Begin(client, kUnary, "m",
                             {{"grpc-timeout", "20S"},
                              {"grpc-encoding", "identity"},
                              {"grpc-accept-encoding", "gzip"},
                              {"request_id", "id 1"},
                              {"application", "s"},
                              {"multiplexed_model_id", "m7"},
                              {"mindserve-depth", "99"},
                              {"twice", "a"},
                              {"twice", "b"},
                              {"data-bin", "AAEC"}});
  const auto seen = worker->Await(0, [](const auto& c) { return c.half_closed; });
  EXPECT_EQ(seen.request_id, "id 1");
  EXPECT_EQ(seen.model_id, "m7");
  EXPECT_THAT(seen.peer, MatchesRegex("ipv4:127\\.0\\.0\\.1:[0-9]+"));
  EXPECT_THAT(seen.metadata,
              UnorderedElementsAre(Pair("user-agent", "mindserve-test"), Pair("request_id", "id 1"),
                                   Pair("application", "s"), Pair("multiplexed_model_id", "m7"), Pair("twice", "a"),
                                   Pair("twice", "b"), Pair("data-bin", std::string("\0\1\2", 3))));
  EXPECT_TRUE(seen.auth.empty());
  EXPECT_NEAR(static_cast<double>(seen.deadline_ns - Clock::now().time_since_epoch().count()), 20e9, 15e9);
  worker->Reply(0, "", link::kEnds | link::kReleased);
  IsOk(client.Wait(call), {""});
}

TEST_F(UserCallTest, ARequestWithoutAnIdGetsOne) {
  const auto worker = Start(1);
  worker->Echo();
  TestClient client(Listen());
  const std::string first = client.Call(kUnary, "a").trailers.at("request_id");
  const std::string second = client.Call(kUnary, "a").trailers.at("request_id");
  EXPECT_THAT(first, MatchesRegex("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"));
  EXPECT_NE(first, second);
  EXPECT_EQ(worker->Call(0).request_id, first);
}

TEST_F(UserCallTest, AnIdThatIsNoneIsInvalid) {
  const auto worker = Start(1);
  worker->Echo();
  TestClient client(Listen());
  for (const std::string& id : {std::string(129, 'x'), std::string("h\xc3\xa9")}) {
    const auto& response = client.Call(kUnary, "a", {{"request_id", id}});
    Is(response, Code::kInvalidArgument, HasSubstr("'request_id' has " + std::to_string(id.size()) + " characters"));
    EXPECT_NE(response.trailers.at("request_id"), id);
  }
  IsOk(client.Call(kUnary, "a", {{"request_id", std::string(128, 'x')}}), {"a"});
  EXPECT_EQ(worker->calls(), 1u);
}

TEST_F(UserCallTest, AnEmptyIdIsAbsent) {
  const auto worker = Start(1);
  worker->Echo();
  TestClient client(Listen());
  const auto& response = client.Call(kUnary, "a", {{"request_id", ""}});
  IsOk(response, {"a"});
  EXPECT_EQ(response.trailers.at("request_id").size(), 36u);
  EXPECT_EQ(worker->Call(0).request_id, response.trailers.at("request_id"));
}

TEST_F(UserCallTest, MetadataThatNoHandlerCouldReadIsInvalid) {
  const auto worker = Start(1);
  TestClient client(Listen());
  Is(client.Call(kUnary, "a", {{"key", "h\xc3\xa9"}}), Code::kInvalidArgument, HasSubstr("metadata 'key'"));
  EXPECT_EQ(worker->calls(), 0u);
  NothingHeld();
}

TEST_F(UserCallTest, SpacesAroundMetadataAreDropped) {
  const auto worker = Start(1);
  worker->Echo();
  TestClient client(Listen());
  IsOk(client.Call(kUnary, "a", {{"key", " v w\t "}, {"grpc-timeout", "20S "}}), {"a"});
  EXPECT_THAT(worker->Call(0).metadata, testing::Contains(Pair("key", "v w")));
}

TEST_F(UserCallTest, BinaryMetadataIsBase64OrInvalid) {
  const auto worker = Start(1);
  worker->Echo();
  TestClient client(Listen());
  for (const char* text : {"Zm8=", "Zm8"}) {
    IsOk(client.Call(kUnary, "a", {{"key-bin", text}}), {"a"});
    EXPECT_THAT(worker->Call(worker->calls() - 1).metadata, testing::Contains(Pair("key-bin", "fo")));
  }
  Is(client.Call(kUnary, "a", {{"key-bin", "Zm8=="}}), Code::kInvalidArgument,
     HasSubstr("metadata 'key-bin' has a value that is not base64"));
  EXPECT_EQ(worker->calls(), 2u);
  const auto& predict = client.Call(kPredictPath, "", {{"key-bin", "?"}});
  EXPECT_EQ(predict.grpc_status(), Number(Code::kInvalidArgument));
  EXPECT_THAT(predict.grpc_message(), HasSubstr("'key-bin'"));
  NothingHeld();
}

TEST_F(UserCallTest, EveryEndTellsTheRequestId) {
  Limits limits;
  limits.max_metadata_bytes = 1000;
  TestClient client(Listen(limits));
  // None of these comes to a worker: there is none.
  const TestClient::Fields id = {{"request_id", "abc"}};
  const auto with = [&](const TestClient::Fields& more) {
    TestClient::Fields fields = id;
    fields.insert(fields.end(), more.begin(), more.end());
    return client.Call(kUnary, "a", fields);
  };
  for (const auto& [response, code] :
       {std::pair(with({}), Code::kUnavailable), std::pair(with({{"application", "none"}}), Code::kNotFound),
        std::pair(with({{"long", std::string(2000, 'x')}}), Code::kResourceExhausted),
        std::pair(with({{"grpc-timeout", "soon"}}), Code::kInternal),
        std::pair(with({{"grpc-encoding", "zstd"}}), Code::kUnimplemented)}) {
    Is(response, code, HasSubstr(""));
    EXPECT_EQ(response.trailers.at("request_id"), "abc");
  }
  // Broken framing.
  Is(client.Wait(client.Start(kUnary, Framed("a").substr(0, 3))), Code::kInternal, HasSubstr("framing"));
  Is(client.Wait(client.Start(kUnary, Framed("a") + Framed("b"))), Code::kUnimplemented, HasSubstr("a second message"));
}

TEST_F(UserCallTest, ApplicationNamesTheServable) {
  TestClient client(Listen());
  Is(client.Call(kUnary, "x"), Code::kUnavailable, HasSubstr("no servable that answers service 't.Users' is running"));
  const auto one = Start(1, "one");
  const auto echo = [&](const TestClient::Fields& more) { return client.Call(kUnary, "x", more); };
  one->Echo();
  IsOk(echo({}), {"x"});  // the only one that can
  IsOk(echo({{"application", "one"}}), {"x"});
  Is(echo({{"application", "two"}}), Code::kNotFound,
     AllOf(HasSubstr("Application 'two' not found"), HasSubstr("'one'")));
  const TestUserWorker other(*gateway_, 7, "other", {{"/t.Others/Do"}});
  IsOk(echo({}), {"x"});
  Is(echo({{"application", "other"}}), Code::kUnimplemented, "servable 'other' has no method '/t.Users/Unary'");
  const auto two = Start(2, "two");
  two->Echo();
  Is(echo({}), Code::kNotFound,
     AllOf(StartsWith("Application metadata not set: service 't.Users'"), HasSubstr("'one', 'two'")));
  IsOk(echo({{"application", "two"}}), {"x"});
  EXPECT_EQ(two->calls(), 1u);
  gateway_->RemoveServable("one");
  IsOk(echo({}), {"x"});
  EXPECT_EQ(two->calls(), 2u);
}

TEST_F(UserCallTest, AServableWithoutAWorkerIsUnavailable) {
  TestClient client(Listen());
  gateway_->DeclareServable("s");
  Is(client.Call(kUnary, "x", {{"application", "s"}}), Code::kUnavailable, HasSubstr("no worker of servable 's'"));
  auto worker = Start(1);
  Kill(worker, 1);
  Is(client.Call(kUnary, "x"), Code::kUnavailable, HasSubstr("no worker of servable 's'"));
}

TEST_F(UserCallTest, TheDriverHasAPathOfItsOwn) {
  TestClient client(Listen());
  Is(client.Call(kDriverPath, "x"), Code::kUnimplemented, "no servable has a driver");
  const auto users = Start(1, "users");
  Is(client.Call(kDriverPath, "x"), Code::kUnimplemented, "no servable has a driver");
  Is(client.Call(kDriverPath, "x", {{"application", "users"}}), Code::kUnimplemented, "servable 'users' has no driver");
  TestUserWorker driver(*gateway_, 2, "d", {{kDriverPath}});
  driver.Echo();
  IsOk(client.Call(kDriverPath, "x"), {"x"});
}

TEST_F(UserCallTest, PredictHasNoMethodsThatArePaths) {
  TestUserWorker worker(*gateway_, 1, "s", {{"add"}, {kUnary}});
  TestClient client(Listen());
  const auto& response = client.Call(kPredictPath, PredictRequest("s", kUnary, 0, {{1, 2}}));
  ASSERT_EQ(response.grpc_status(), 0);
  EXPECT_THAT(ParseReply(response.messages().at(0)).errors, ElementsAre(Pair(2, HasSubstr("method is not available"))));
  Is(client.Call("/t.Users/Down", ""), Code::kUnimplemented, HasSubstr("has no method"));
  EXPECT_EQ(client.Call("/t.Users/add", "").grpc_status(), Number(Code::kUnimplemented));
}

TEST_F(UserCallTest, CallsAreCountedByPathServableAndVersion) {
  const auto worker = Start(1, "s", 3);
  TestClient client(Listen());
  const int32_t call = Begin(client, kUnary, "12345");
  worker->Await(0, [](const auto& c) { return c.half_closed; });
  auto stats = gateway_->GetStats();
  EXPECT_EQ(stats.workers.front().load, 1u);
  EXPECT_EQ(stats.in_flight, 1u);
  worker->Reply(0, "123", link::kEnds | link::kReleased);
  IsOk(client.Wait(call), {"123"});
  Is(client.Call(kUnary, "x", {{"application", "none"}}), Code::kNotFound, HasSubstr("none"));
  stats = gateway_->GetStats();
  EXPECT_EQ(stats.workers.front().load, 0u);
  const auto of = [&](const MethodKey& key) {
    const auto found = std::ranges::find(stats.methods, key, &Gateway::MethodStats::key);
    return found == stats.methods.end() ? Gateway::MethodStats{} : *found;
  };
  const auto counted = of({kUnary, "s", 3, "Unary"});
  EXPECT_EQ(counted.ended[0], 1u);
  EXPECT_EQ(counted.bytes_in, 5u);
  EXPECT_EQ(counted.bytes_out, 3u);
  EXPECT_EQ(counted.instances, 0u);
  EXPECT_EQ(of({kUnary, "", 0, ""}).ended[static_cast<size_t>(Code::kNotFound)], 1u);
  EXPECT_EQ(of({kPredictPath, "s", 3, kUnary}).key, MethodKey{});
}

TEST_F(UserCallTest, AHandlersStatusAndMetadataComeToTheClient) {
  const auto worker = Start(1);
  TestClient client(Listen());
  const int32_t call = Begin(client, kUnary, "m");
  worker->End(0, Code::kInvalidArgument, "foo not found, adding to nums.", {{"num", "0"}, {"Mixed-Case", " v "}});
  const auto& response = client.Wait(call);
  Is(response, Code::kInvalidArgument, "foo not found, adding to nums.");
  EXPECT_EQ(response.trailers.at("num"), "0");
  EXPECT_EQ(response.trailers.at("mixed-case"), "v");

  const int32_t ok = Begin(client, kUnary, "m");
  worker->Initial(1, {{"early", "bird"}, {"data-bin", std::string_view("\0\1\2", 3)}});
  client.RunUntil([&] { return client.response(ok).headers.contains("early"); });
  EXPECT_EQ(client.response(ok).headers.at("data-bin"), "AAEC");
  EXPECT_EQ(client.response(ok).headers.count("grpc-encoding"), 0u);
  EXPECT_FALSE(client.response(ok).closed);
  worker->Reply(1, "answer");
  worker->End(1, Code::kOk, "", {{"late", "too"}});
  IsOk(client.Wait(ok), {"answer"});
  EXPECT_EQ(client.response(ok).trailers.at("late"), "too");

  const int32_t after = Begin(client, kDown, "m");
  worker->Reply(2, "one");
  worker->End(2, Code::kAborted, "enough");
  Is(client.Wait(after), Code::kAborted, "enough");
  EXPECT_THAT(client.response(after).messages(), ElementsAre("one"));

  const int32_t shortly = Begin(client, kUnary, "m");
  worker->EndInShort(3, {Code::kInternal, "no room for more"});
  Is(client.Wait(shortly), Code::kInternal, "no room for more");
  NothingHeld();
}

TEST_F(UserCallTest, MetadataThatCannotBeSentIsLeftOut) {
  const auto worker = Start(1);
  TestClient client(Listen());
  const int32_t call = Begin(client, kUnary, "m", {{"request_id", "abc"}});
  const std::string large(20'000, 'x');
  worker->End(0, Code::kNotFound, "",
              {{"grpc-status", "0"},
               {":path", "/x"},
               {"content-type", "text"},
               {"te", "x"},
               {"connection", "close"},
               {"request_id", "mine"},
               {"bad key", "x"},
               {"", "x"},
               {"text", "h\xc3\xa9"},
               {"line", "a\nb"},
               {"good", "yes"},
               {"large", large},
               {"after", "x"}});
  const auto& response = client.Wait(call);
  Is(response, Code::kNotFound, "");
  EXPECT_EQ(response.trailers.size(), 5u);  // ":status" and "content-type" are of an answer that has nothing else
  EXPECT_EQ(response.trailers.at("good"), "yes");
  EXPECT_EQ(response.trailers.at("request_id"), "abc");
  EXPECT_EQ(response.trailers.at("content-type"), "application/grpc");
}

TEST_F(UserCallTest, LongDetailsComeWholeAsLongAsClientsTakeThem) {
  const auto worker = Start(1);
  TestClient client(Listen());
  auto details = [&, n = size_t{0}](const std::string& text) mutable {
    const int32_t call = Begin(client, kUnary, "m");
    worker->End(n++, Code::kInternal, text);
    return client.Wait(call).grpc_message();
  };
  std::string trace;
  while (trace.size() < 4096) trace += "  File \"servable_config.py\", line 7, in handler\n";
  trace.resize(4096);
  EXPECT_EQ(details(trace), trace);
  std::string umlauts;
  for (int i = 0; i < 2048; ++i) umlauts += "\xc3\xa9";
  const std::string cut = details(umlauts);
  EXPECT_EQ(cut, umlauts.substr(0, cut.size()));
  EXPECT_EQ(cut.size(), 2 * ((7168 - 4) / 6));
}

TEST_F(UserCallTest, CompressedAnswersStaySoForThoseWhoTakeThem) {
  const auto worker = Start(1);
  TestClient client(Listen());
  const std::string zipped = Gzip("plain text");
  for (const bool announced : {false, true}) {
    const size_t n = announced ? 1 : 0;
    const int32_t call = Begin(client, kUnary, "m", {{"grpc-accept-encoding", "identity, deflate, gzip"}});
    if (announced) worker->Initial(n, {}, true);
    worker->Reply(n, zipped, link::kCompressed | link::kEnds | link::kReleased);
    const auto& response = client.Wait(call);
    EXPECT_EQ(response.grpc_status(), 0);
    EXPECT_EQ(response.headers.at("grpc-encoding"), "gzip");
    EXPECT_EQ(response.body, Framed(zipped, true));
  }
  const int32_t call = Begin(client, kUnary, "m");
  worker->Initial(2, {}, true);
  worker->Reply(2, zipped, link::kCompressed | link::kEnds | link::kReleased);
  Is(client.Wait(call), Code::kInternal, HasSubstr("a compressed message, of which its client was not told"));
  EXPECT_EQ(client.response(call).headers.count("grpc-encoding"), 0u);
}

TEST_F(UserCallTest, CompressedRequestsAreInflatedForTheHandler) {
  const auto worker = Start(1);
  worker->Echo();
  TestClient client(Listen());
  const std::string large(3'000'000, 'z');
  const int32_t call = client.Start(kUp, Framed(Gzip(large), true) + Framed("b"), true, {{"grpc-encoding", "gzip"}});
  IsOk(client.Wait(call), {large + "b"});
  NothingHeld();
}

TEST_F(UserCallTest, AnAnswerThatIsNoneIsAnError) {
  const auto worker = Start(1);
  TestClient client(Listen());
  const int32_t none = Begin(client, kUnary, "m");
  worker->End(0, Code::kOk);
  Is(client.Wait(none), Code::kInternal, HasSubstr("without the message"));
  const int32_t two = Begin(client, kUnary, "m");
  worker->Reply(1, "a");
  worker->Reply(1, "b");
  Is(client.Wait(two), Code::kInternal, HasSubstr("a second message"));
  worker->Await(1, [](const auto& c) { return c.cancelled; });
  const int32_t broken = Begin(client, kUnary, "m");
  worker->Do(
      [](link::WorkerLink& link, const auto* call) {
        EXPECT_TRUE(link.SendTrailing(call->lane, call->number, Code::kOk, "\x0a\x7f", link::kReleased));
      },
      2);
  Is(client.Wait(broken), Code::kInternal, HasSubstr("call end doesn't parse"));
  NothingHeld();
}

TEST_F(UserCallTest, AFrameThatBelongsToNoUsersCallMakesTheWorkerFaulty) {
  auto worker = Start(1);
  TestClient client(Listen());
  const int32_t call = Begin(client, kUnary, "m");
  worker->Await(0, [](const auto& c) { return c.half_closed; });
  worker->Take(0);
  worker->Take(0);  // there is none
  Is(client.Wait(call), Code::kUnavailable, HasSubstr("has no message to release"));
  Gone(1);
}

TEST_F(UserCallTest, LimitsOnWhatIsEnqueuedHold) {
  gateway_->DeclareServable("s", {.max_enqueued_requests = 2, .max_enqueued_bytes = 100});
  Limits limits;
  limits.max_enqueued_requests = 3;
  const auto worker = Start(1);
  const auto other = Start(2, "o");
  other->Echo();
  TestClient client(Listen(limits));
  const TestClient::Fields s = {{"application", "s"}};
  const int32_t stream = Open(client, kUp, s);
  worker->Call(0);
  const std::string large(101, 'x');
  Is(client.Call(kUnary, large, s), Code::kResourceExhausted, HasSubstr("(max_enqueued_bytes) of servable 's'"));
  Send(client, stream, std::string(60, 'x'));
  worker->Await(0, [](const auto& c) { return c.messages.size() == 1; });
  Is(client.Call(kUnary, std::string(60, 'x'), s), Code::kResourceExhausted, HasSubstr("max_enqueued_bytes"));
  const auto held = gateway_->GetStats().enqueued_bytes;
  worker->Take(0);
  Eventually([&] { return gateway_->GetStats().enqueued_bytes == held - 60; });
  const int32_t second = Begin(client, kUnary, std::string(60, 'x'), s);
  worker->Call(1);
  Is(client.Call(kUnary, "x", s), Code::kResourceExhausted, HasSubstr("(max_enqueued_requests) of servable 's'"));
  const int32_t third = Open(client, kBoth, {{"application", "o"}});
  other->Call(0);
  const auto& refused = client.Call(kUnary, "x", {{"application", "o"}});
  Is(refused, Code::kResourceExhausted, HasSubstr("exceeds the limit 3 (max_enqueued_requests)"));
  EXPECT_EQ(refused.trailers.at("grpc-retry-pushback-ms"), "100");
  worker->Reply(1, "", link::kEnds | link::kReleased);
  IsOk(client.Wait(second), {""});
  client.Reset(stream);
  client.Reset(third);
  client.Flush();
  NothingHeld();
  EXPECT_EQ(Refused(Refusal::kMaxEnqueuedRequests), 2u);
  EXPECT_EQ(Refused(Refusal::kMaxEnqueuedBytes), 2u);
}

TEST_F(UserCallTest, CancellationAndDeadlinesComeToTheHandler) {
  const auto worker = Start(1);
  TestClient client(Listen());
  const int32_t call = Begin(client, kUnary, "m");
  worker->Call(0);
  client.Reset(call);
  client.Flush();
  worker->Await(0, [](const auto& c) { return c.cancelled; });
  const auto& late = client.Call(kUnary, "m", {{"grpc-timeout", "20m"}});
  Is(late, Code::kDeadlineExceeded, HasSubstr("deadline"));
  worker->Await(1, [](const auto& c) { return c.cancelled; });
  const int32_t stream = Open(client, kBoth, {{"grpc-timeout", "50m"}});
  worker->Reply(2, "a");
  Is(client.Wait(stream), Code::kDeadlineExceeded, HasSubstr("deadline"));
  EXPECT_THAT(client.response(stream).messages(), ElementsAre("a"));
  worker->Await(2, [](const auto& c) { return c.cancelled; });
  NothingHeld();
}

TEST_F(UserCallTest, AClientThatLeavesCancelsAllOfItsCalls) {
  const auto worker = Start(1);
  const net::Address address = Listen();
  {
    TestClient client(address);
    Begin(client, kDown, "m");
    Open(client, kUp);
    worker->Call(1);
  }
  for (size_t n : {0u, 1u}) worker->Await(n, [](const auto& c) { return c.cancelled; });
  NothingHeld();
}

TEST_F(UserCallTest, CallsGoOnWhileTheGatewayDrains) {
  const auto worker = Start(1);
  TestClient client(Listen());
  const int32_t call = Open(client, kBoth);
  worker->Call(0);
  std::thread stop([&] { gateway_->StopListening(milliseconds(20'000)); });
  client.RunUntil([&] { return client.goaways() > 0; });
  Send(client, call, "a", true);
  worker->Await(0, [](const auto& c) { return c.half_closed; });
  worker->Reply(0, "A");
  worker->End(0, Code::kOk);
  IsOk(client.Wait(call), {"A"});
  client.RunUntil([&] { return client.ended(); });
  stop.join();
}

TEST_F(UserCallTest, WhatDoesNotEndInTimeIsEndedWithItsId) {
  const auto worker = Start(1);
  TestClient client(Listen());
  const int32_t call = Open(client, kBoth);
  worker->Call(0);
  std::thread stop([&] { gateway_->StopListening(milliseconds(20)); });
  Is(client.Wait(call), Code::kUnavailable, "the server is shutting down");
  stop.join();
  worker->Await(0, [](const auto& c) { return c.cancelled; });
}

TEST_F(UserCallTest, ServicesMayChangeWhileTheyAreCalled) {
  const auto worker = Start(1);
  TestClient client(Listen());
  const int32_t call = Open(client, kBoth);
  worker->Call(0);
  ASSERT_TRUE(gateway_->SetServices({}, "").ok());
  EXPECT_EQ(client.Call(kUnary, "x").grpc_message(), "no method '/t.Users/Unary' is served");
  ServiceSpec changed = Service();
  changed.methods.back() = {"Both", false, false};
  ASSERT_TRUE(gateway_->SetServices({changed}, "").ok());
  Send(client, call, "a");
  Send(client, call, "b", true);
  worker->Await(0, [](const auto& c) { return c.half_closed && c.messages.size() == 2; });
  worker->Reply(0, "A");
  worker->End(0, Code::kOk);
  IsOk(client.Wait(call), {"A"});
  ASSERT_TRUE(gateway_->SetServices({changed}, "").ok());
  const int32_t unary = Begin(client, kBoth, "x");
  worker->Reply(1, "y", link::kEnds | link::kReleased);
  IsOk(client.Wait(unary), {"y"});
}

TEST_F(UserCallTest, AWorkerThatDrainsKeepsItsCallsUntilTheyEnd) {
  const auto worker = Start(1);
  TestClient client(Listen());
  const int32_t call = Open(client, kBoth);
  worker->Call(0);
  gateway_->DrainWorker(1);
  Is(client.Call(kUnary, "x"), Code::kUnavailable, HasSubstr("no worker"));
  EXPECT_FALSE(worker->ended());
  worker->Reply(0, "A");
  worker->End(0, Code::kOk);
  IsOk(client.Wait(call), {"A"});
  Eventually([&] { return worker->ended(); });
}

class TwoThreadsTest : public UserTest {
 protected:
  TwoThreadsTest() : UserTest(2) {}
};

TEST_F(TwoThreadsTest, EveryThreadServesThem) {
  const auto worker = Start(1);
  worker->Echo();
  const net::Address address = Listen();
  for (int i = 0; i < 4; ++i) {
    TestClient client(address);
    IsOk(client.Call(kUnary, "x"), {"x"});
  }
  EXPECT_NE(worker->Call(0).lane, worker->Call(1).lane);
}

// Connections are dealt out to the threads, each of which counts its own.
TEST_F(TwoThreadsTest, ClientsAreToldApart) {
  const auto worker = Start(1);
  const net::Address address = Listen();
  std::set<uint64_t> clients;
  for (size_t i = 0; i < 4; ++i) {
    TestClient client(address);
    const int32_t call = Open(client, kUp);
    Sync(client);
    clients.insert(worker->Call(i).client);
    client.Reset(call);
    Sync(client);
  }
  EXPECT_EQ(clients.size(), 4u);
}

}  // namespace
}  // namespace mindserve::gateway
