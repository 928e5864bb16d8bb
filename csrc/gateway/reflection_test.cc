#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "gateway/reflection_service.h"
#include "gateway/test_client.h"
#include "gateway/test_gateway.h"

namespace mindserve::gateway {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;
using wire::test::Field;
using wire::test::Varint;

// A FileDescriptorProto with one message and maybe more.
std::string File(const std::string& name, const std::string& package, const std::string& message,
                 const std::string& more = "") {
  return Field(1, name) + Field(2, package) + more + Field(4, Field(1, message));
}
const std::string kBuiltIn = File("health.proto", "grpc.health.v1", "HealthCheckRequest");
const std::string kBase = File("base.proto", "base", "Base");
const std::string kShop =
    File("shop.proto", "shop", "Fruit", Field(3, "base.proto") + Field(7, Field(2, ".base.Base") + Varint(3, 9)));
const std::string kUsers = Field(1, kBase) + Field(1, kShop);

// What a request is answered with.
std::string Answered(const std::string& request, const std::string& answer) {
  return Field(2, request) + answer;
}
std::string Files(const std::vector<std::string>& files) {
  std::string content;
  for (const std::string& file : files) content += Field(1, file);
  return Field(4, content);
}
std::string NotFound(const std::string& text) {
  return Field(7, Varint(1, 5) + Field(2, text));
}
std::string Services(const std::vector<std::string>& names) {
  std::string content;
  for (const std::string& name : names) content += Field(1, Field(1, name));
  return Field(6, content);
}

class ReflectionTest : public GatewayTest {
 protected:
  ReflectionTest() : GatewayTest(GatewayOptions{.io_threads = 1, .descriptors = Field(1, kBuiltIn)}) {}

  // As many requests as there are, on one stream that the client ends.
  std::vector<std::string> Ask(TestClient& client, const std::vector<std::string>& requests,
                               const char* path = kReflectionV1Path) {
    std::string body;
    for (const std::string& request : requests) body += Framed(request);
    const auto& response = client.Wait(client.Start(path, body));
    EXPECT_EQ(response.grpc_status(), 0) << response.grpc_message();
    return response.messages();
  }
};

TEST_F(ReflectionTest, AnswersEachRequestInBothVersions) {
  ASSERT_TRUE(gateway_->SetServices({{.name = "shop.Shop", .methods = {{.name = "Buy"}}}}, kUsers).ok());
  TestClient client(Listen());
  const std::string by_name = Field(3, "shop.proto");
  const std::string by_symbol = Field(4, "shop.Fruit");
  const std::string by_extension = Field(5, Field(1, "base.Base") + Varint(2, 9));
  const std::string extensions = Field(6, "base.Base");
  const std::string built_in = Field(4, "grpc.health.v1.HealthCheckRequest");
  for (const char* path : {kReflectionV1Path, kReflectionV1AlphaPath}) {
    EXPECT_THAT(Ask(client, {by_name, by_symbol, by_extension, extensions, built_in, by_name}, path),
                ElementsAre(Answered(by_name, Files({kShop, kBase})), Answered(by_symbol, Files({kShop, kBase})),
                            Answered(by_extension, Files({kShop, kBase})),
                            Answered(extensions, Field(5, Field(1, "base.Base") + Field(2, "\x09"))),
                            Answered(built_in, Files({kBuiltIn})), Answered(by_name, Files({kShop, kBase}))));
  }
}

TEST_F(ReflectionTest, SaysOfEachRequestWhatIsNotThere) {
  TestClient client(Listen());
  const std::string file = Field(3, "shop.proto");
  const std::string symbol = Field(4, "shop.Fruit");
  const std::string extension = Field(5, Field(1, "base.Base") + Varint(2, 9));
  const std::string extensions = Field(6, "base.Base");
  const std::string none = Field(100, "what a later version asks");
  const std::string there = Field(3, "health.proto");
  EXPECT_THAT(Ask(client, {file, symbol, extension, extensions, none, there}),
              ElementsAre(Answered(file, NotFound("no file 'shop.proto' is known")),
                          Answered(symbol, NotFound("no symbol 'shop.Fruit' is known")),
                          Answered(extension, NotFound("no extension 9 of a message 'base.Base' is known")),
                          Answered(extensions, NotFound("no message 'base.Base' is known")),
                          StartsWith(Answered(none, "\x3a")), Answered(there, Files({kBuiltIn}))));
}

TEST_F(ReflectionTest, ListsAllServicesSorted) {
  TestClient client(Listen());
  const std::string list = Field(7, "");
  const std::vector<std::string> built_in = {"grpc.health.v1.Health",
                                             "grpc.reflection.v1.ServerReflection",
                                             "grpc.reflection.v1alpha.ServerReflection",
                                             "io.seldon.api.rpc.Classifier",
                                             "mindserve.StreamService",
                                             "mindspore.serving.proto.MSService",
                                             "ray.serve.PredictAPIsService",
                                             "ray.serve.RayServeAPIService"};
  EXPECT_THAT(Ask(client, {list}), ElementsAre(Answered(list, Services(built_in))));

  // On a stream that is open already, too.
  const int32_t stream = client.Start(kReflectionV1Path, "", /*ends=*/false);
  client.Flush();
  ASSERT_TRUE(gateway_->SetServices({{.name = "shop.Shop", .methods = {}}, {.name = "a.A", .methods = {}}}, "").ok());
  client.Send(stream, Framed(list), /*ends=*/true);
  std::vector<std::string> all = built_in;
  all.insert(all.begin(), "a.A");
  all.push_back("shop.Shop");
  EXPECT_THAT(client.Wait(stream).messages(), ElementsAre(Answered(list, Services(all))));
}

TEST_F(ReflectionTest, AnswersBeforeTheClientHasEnded) {
  TestClient client(Listen());
  const int32_t stream = client.Start(kReflectionV1AlphaPath, Framed(Field(3, "health.proto")), /*ends=*/false);
  EXPECT_TRUE(client.RunUntil([&] { return client.response(stream).messages().size() == 1; }));
  client.Send(stream, Framed(Field(3, "none.proto")), /*ends=*/false);
  EXPECT_TRUE(client.RunUntil([&] { return client.response(stream).messages().size() == 2; }));
  EXPECT_FALSE(client.response(stream).closed);
  client.Send(stream, "", /*ends=*/true);
  EXPECT_EQ(client.Wait(stream).grpc_status(), 0);
}

TEST_F(ReflectionTest, EndsTheCallOfARequestThatDoesNotParse) {
  TestClient client(Listen());
  const int32_t stream =
      client.Start(kReflectionV1Path, Framed(Field(3, "health.proto")) + Framed("\x1a\x7f") + Framed(Field(7, "")));
  const auto& response = client.Wait(stream);
  EXPECT_EQ(response.grpc_status(), static_cast<int>(Code::kInvalidArgument));
  EXPECT_THAT(response.grpc_message(), HasSubstr("ServerReflectionRequest"));
  EXPECT_EQ(response.messages().size(), 1u);
}

// Else one connection could fill the memory: it takes few bytes to ask for many.
TEST_F(ReflectionTest, RefusesToPileUpAnswersThatNobodyReads) {
  constexpr size_t kMegabyte = size_t{1} << 20;
  const std::string big = File("big.proto", "big", "Big", Field(8, std::string(kMegabyte, 'x')));
  ASSERT_TRUE(gateway_->SetServices({}, Field(1, big)).ok());
  const net::Address address = Listen();
  const auto counted = [&](const char* path) {
    for (const auto& method : gateway_->GetStats().methods) {
      if (method.key.path == path) return method;
    }
    return Gateway::MethodStats{};
  };
  const auto pile_up = [&](const char* path, const std::string& request, size_t count) {
    // A window of nothing: not a byte of an answer goes out.
    TestClient client(address, /*stream_window=*/0);
    std::string body;
    for (size_t i = 0; i < count; ++i) body += Framed(request);
    client.Start(path, body, /*ends=*/false);
    client.Flush();
    Eventually([&] {
      client.Flush();
      return counted(path).ended[static_cast<size_t>(Code::kResourceExhausted)] == 1;
    });
    return counted(path).bytes_out;
  };
  const uint64_t bytes = pile_up(kReflectionV1Path, Field(3, "big.proto"), 100);
  EXPECT_GE(bytes, kMostUnsentAnswerBytes);
  EXPECT_LT(bytes, kMostUnsentAnswerBytes + 2 * kMegabyte);
  const std::string missing = Field(3, "none.proto");
  const std::string answer = Answered(missing, NotFound("no file 'none.proto' is known"));
  EXPECT_EQ(pile_up(kReflectionV1AlphaPath, missing, kMostUnsentAnswers + 1), kMostUnsentAnswers * answer.size());
}

TEST_F(ReflectionTest, RefusesToPileThemUpOnManyStreams) {
  constexpr size_t kMegabyte = size_t{1} << 20;
  const std::string big = File("big.proto", "big", "Big", Field(8, std::string(kMegabyte, 'x')));
  ASSERT_TRUE(gateway_->SetServices({}, Field(1, big)).ok());
  const net::Address address = Listen();
  const std::string request = Framed(Field(3, "big.proto"));
  {
    TestClient client(address, /*stream_window=*/0);
    std::vector<int32_t> streams;
    for (int i = 0; i < 40; ++i) streams.push_back(client.Start(kReflectionV1Path, request, /*ends=*/false));
    const auto refused = [&] {
      return std::ranges::count_if(streams, [&](int32_t stream) { return client.response(stream).grpc_status() == 8; });
    };
    EXPECT_TRUE(client.RunUntil([&] { return refused() == 24; }));
    EXPECT_THAT(client.response(streams.back()).grpc_message(), HasSubstr("or 16 MiB of a connection"));
    // Each client has its own.
    TestClient other(address, /*stream_window=*/2 * kMegabyte);
    EXPECT_EQ(other.Wait(other.Start(kReflectionV1Path, request)).messages().size(), 1u);
    EXPECT_GE(gateway_->GetStats().enqueued_bytes, 16 * kMegabyte);
  }
  Eventually([&] { return gateway_->GetStats().enqueued_bytes == 0; });
}

TEST_F(ReflectionTest, AnswersAsManyAsAClientReads) {
  TestClient client(Listen());
  const std::string request = Framed(Field(3, "health.proto"));
  const std::string answer = Framed(Answered(Field(3, "health.proto"), Files({kBuiltIn})));
  const int32_t stream = client.Start(kReflectionV1Path, request, /*ends=*/false);
  for (size_t asked = 1; asked <= kMostUnsentAnswers + 1; ++asked) {
    if (asked > 1) client.Send(stream, request, /*ends=*/false);
    ASSERT_TRUE(client.RunUntil([&] { return client.response(stream).body.size() == asked * answer.size(); }));
  }
}

TEST_F(ReflectionTest, KeepsWhatItWillSendWhenServicesChange) {
  const std::string big = File("big.proto", "big", "Big", Field(8, std::string(size_t{1} << 20, 'x')));
  ASSERT_TRUE(gateway_->SetServices({}, Field(1, big)).ok());
  TestClient client(Listen(), /*stream_window=*/1 << 10);
  const std::string request = Field(3, "big.proto");
  const int32_t stream = client.Start(kReflectionV1Path, Framed(request), /*ends=*/false);
  client.RunUntil([&] { return !client.response(stream).body.empty(); });
  ASSERT_TRUE(gateway_->SetServices({}, "").ok());
  client.Send(stream, Framed(request), /*ends=*/true);
  EXPECT_THAT(client.Wait(stream).messages(), ElementsAre(Answered(request, Files({big})),
                                                          Answered(request, NotFound("no file 'big.proto' is known"))));
}

TEST_F(ReflectionTest, RefusesServicesThatCanNotBe) {
  TestClient client(Listen());
  ASSERT_TRUE(gateway_->SetServices({{.name = "shop.Shop", .methods = {}}}, kUsers).ok());
  const std::string list = Field(7, "");
  const std::vector<std::string> before = Ask(client, {list});
  const auto refused = [&](std::vector<ServiceSpec> services, const std::string& descriptors = "") {
    const Status status = gateway_->SetServices(std::move(services), descriptors);
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    return status.message();
  };
  for (const char* name : {"", "shop.", ".Shop", "shop..Shop", "shop/Shop", "shop.2nd", "shöp.Shop"}) {
    EXPECT_THAT(refused({{.name = name, .methods = {}}}), HasSubstr("expected one like 'package.Service'")) << name;
  }
  EXPECT_THAT(refused({{.name = "a.A", .methods = {{.name = "no good"}}}}), HasSubstr("method 'no good'"));
  EXPECT_THAT(refused({{.name = "a.A", .methods = {{.name = "Do"}, {.name = "Do"}}}}), HasSubstr("'Do' twice"));
  EXPECT_THAT(refused({{.name = "a.A", .methods = {}}, {.name = "a.A", .methods = {}}}), HasSubstr("given twice"));
  for (const char* name : {"grpc.health.v1.Health", "ray.serve.PredictAPIsService"}) {
    EXPECT_THAT(refused({{.name = name, .methods = {}}}), HasSubstr("is built in")) << name;
  }
  EXPECT_THAT(refused({}, "no descriptors"), HasSubstr("FileDescriptorSet"));
  EXPECT_EQ(Ask(client, {list}), before);
}

TEST(ReflectionOptions, BuiltInDescriptorsHaveToParse) {
  const auto gateway = Gateway::Create({.io_threads = 1, .descriptors = "no descriptors"});
  ASSERT_FALSE(gateway.ok());
  EXPECT_EQ(gateway.status().code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace mindserve::gateway
