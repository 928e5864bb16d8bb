#include "gateway/request_head.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mindserve::gateway {
namespace {

using testing::ElementsAre;
using testing::Pair;

constexpr size_t kPlenty = 16 * 1024;

RequestHead Head(std::initializer_list<std::pair<std::string_view, std::string_view>> fields, size_t max = kPlenty) {
  RequestHead head;
  for (const auto& [name, value] : fields) head.Add(name, value, max);
  return head;
}

TEST(RequestHeadTest, WhatACallNeeds) {
  const RequestHead head = Head({{":method", "POST"},
                                 {":path", "/s/M"},
                                 {"content-type", "application/grpc"},
                                 {"te", "trailers"},
                                 {"grpc-timeout", "3S"},
                                 {"grpc-encoding", "gzip"},
                                 {"user-agent", "a"},
                                 {"x-b", "c"}});
  EXPECT_EQ(head.http_error(), 0);
  EXPECT_TRUE(head.status().ok());
  EXPECT_EQ(head.path(), "/s/M");
  EXPECT_EQ(head.timeout(), std::chrono::seconds(3));
  EXPECT_EQ(head.encoding(), Encoding::kGzip);
  EXPECT_THAT(head.metadata(), ElementsAre(Pair("user-agent", "a"), Pair("x-b", "c")));
}

// They may be stripped (gRPC over HTTP/2, "Custom-Metadata").
TEST(RequestHeadTest, SpacesAroundAValueAreNoPartOfIt) {
  const RequestHead head =
      Head({{"a", " x y\t "}, {"b", " "}, {"grpc-timeout", "3S "}, {"content-type", " application/grpc"}});
  EXPECT_THAT(head.metadata(), ElementsAre(Pair("a", "x y"), Pair("b", "")));
  EXPECT_EQ(head.timeout(), std::chrono::seconds(3));
  EXPECT_EQ(head.http_error(), 405);  // the method is missing, the type is right
}

TEST(RequestHeadTest, BinaryMetadataIsDecodedAndSplit) {
  const RequestHead head =
      Head({{"a-bin", "Zm9v"}, {"b-bin", "Zg==,Zm8"}, {"c-bin", "Zg , Zm8=\t"}, {"d", "Zm9v,x"}, {"e-bin", ""}});
  EXPECT_TRUE(head.status().ok());
  EXPECT_THAT(head.metadata(),
              ElementsAre(Pair("a-bin", "foo"), Pair("b-bin", "f"), Pair("b-bin", "fo"), Pair("c-bin", "f"),
                          Pair("c-bin", "fo"), Pair("d", "Zm9v,x"), Pair("e-bin", "")));
  EXPECT_EQ(head.Value("a-bin"), "foo");
}

TEST(RequestHeadTest, BinaryMetadataThatIsNoBase64IsAnError) {
  for (const char* value : {"?", "Zm9vZ", "Zg=", "Zh==", "Zm9v,?", "Zm9v Zm9v", "Zm-v", "caf\xc3\xa9"}) {
    const RequestHead head = Head({{"a", "b"}, {"c-bin", value}});
    EXPECT_EQ(head.status().code(), Code::kInvalidArgument) << value;
    EXPECT_THAT(head.status().message(), testing::HasSubstr("metadata 'c-bin' has a value that is not base64"));
  }
}

TEST(RequestHeadTest, ErrorsOfEachKind) {
  EXPECT_EQ(Head({}).http_error(), 405);
  EXPECT_EQ(Head({{":method", "POST"}}).http_error(), 415);
  EXPECT_EQ(Head({{"grpc-timeout", "soon"}}).status().code(), Code::kInternal);
  EXPECT_EQ(Head({{"grpc-encoding", "br"}}).status().code(), Code::kUnimplemented);
}

TEST(RequestHeadTest, TheLimitCountsAsHttp2Does) {
  EXPECT_TRUE(Head({{"abc", "de"}}, 37).status().ok());
  const RequestHead head =
      Head({{"abc", "de"}, {"x", ""}, {":method", "POST"}, {"content-type", "application/grpc"}}, 36);
  EXPECT_EQ(head.status().code(), Code::kResourceExhausted);
  EXPECT_EQ(head.http_error(), 0) << "the answer is still one of gRPC";
  EXPECT_TRUE(head.metadata().empty());
}

TEST(RequestHeadTest, JoinedValuesCountLikeFieldsOfTheirOwn) {
  const std::string key = std::string(200, 'k') + "-bin";
  const std::string value = "Zg,Zg,Zg";
  const size_t one = key.size() + 32;
  EXPECT_EQ(Head({{key, value}}, value.size() + 3 * one).metadata().size(), 3u);
  const RequestHead head = Head({{key, value}}, value.size() + 3 * one - 1);
  EXPECT_EQ(head.status().code(), Code::kResourceExhausted);
  EXPECT_THAT(head.status().message(), testing::HasSubstr("max_metadata_bytes"));
  // What would be thousands of times as much is not made at all.
  const RequestHead large = Head({{key, std::string(kPlenty / 2, ',')}});
  size_t bytes = 0;
  for (const auto& [name, each] : large.metadata()) bytes += name.size();
  EXPECT_LE(bytes, kPlenty);
}

TEST(RequestHeadTest, ClearMakesItNew) {
  RequestHead head = Head({{":method", "POST"}, {":path", "/s/M"}, {"grpc-timeout", "x"}, {"a", "b"}});
  EXPECT_EQ(head.metadata().size(), 1u);
  head.Clear();
  EXPECT_TRUE(head.status().ok());
  EXPECT_TRUE(head.path().empty());
  EXPECT_TRUE(head.metadata().empty());
  EXPECT_EQ(head.http_error(), 405);
}

TEST(RequestHeadTest, DropTextsLeavesTheRest) {
  RequestHead head = Head({{":method", "POST"},
                           {"content-type", "application/grpc"},
                           {":path", "/s/M"},
                           {"grpc-timeout", "1S"},
                           {"grpc-accept-encoding", "gzip"},
                           {"a", "b"}});
  EXPECT_EQ(head.metadata().size(), 1u);
  head.DropTexts();
  EXPECT_TRUE(head.path().empty());
  EXPECT_TRUE(head.metadata().empty());
  EXPECT_EQ(head.Value("a"), "");
  EXPECT_TRUE(head.status().ok());
  EXPECT_EQ(head.http_error(), 0);
  EXPECT_EQ(head.timeout(), std::chrono::seconds(1));
  EXPECT_TRUE(head.accepts_gzip());
}

}  // namespace
}  // namespace mindserve::gateway
