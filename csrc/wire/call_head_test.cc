#include "wire/call_head.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "wire/test_messages.h"

namespace mindserve::wire {
namespace {

using test::Bytes;

CallHead Sample() {
  return {.request_id = "r-1",
          .model_id = "999",
          .peer = "ipv4:127.0.0.1:5",
          .metadata = {{"a", "1"}, {"b-bin", std::string_view("\0x", 2)}, {"a", "2"}, {"empty", ""}},
          .auth = {{"transport_security_type", "ssl"}},
          .depth = 3,
          .callers = {7, uint64_t{1} << 63},
          .plain = true};
}

TEST(CallHead, ComesBackAsItWasWritten) {
  const std::string bytes = WriteCallHead(Sample());
  const auto head = ReadCallHead(Bytes(bytes));
  ASSERT_TRUE(head.ok()) << head.status().ToString();
  EXPECT_EQ(head->request_id, "r-1");
  EXPECT_EQ(head->model_id, "999");
  EXPECT_EQ(head->peer, "ipv4:127.0.0.1:5");
  EXPECT_EQ(head->metadata, Sample().metadata);
  EXPECT_EQ(head->auth, Sample().auth);
  EXPECT_EQ(head->depth, 3u);
  EXPECT_EQ(head->callers, Sample().callers);
  EXPECT_TRUE(head->plain);
}

TEST(CallHead, OfNothingIsEmpty) {
  EXPECT_EQ(WriteCallHead({}), "");
  const auto head = ReadCallHead({});
  ASSERT_TRUE(head.ok());
  EXPECT_TRUE(head->request_id.empty());
  EXPECT_TRUE(head->metadata.empty());
  EXPECT_EQ(head->depth, 0u);
  EXPECT_FALSE(head->plain);
}

TEST(CallHead, TruncatedAnywhereIsAnErrorOrShorter) {
  const std::string bytes = WriteCallHead(Sample());
  for (size_t size = 0; size < bytes.size(); ++size) {
    const std::string cut = bytes.substr(0, size);
    const auto head = ReadCallHead(Bytes(cut));
    uint32_t depth = 1;
    EXPECT_EQ(CheckCallHead(Bytes(cut), &depth), head.status());
    if (head.ok()) {
      EXPECT_EQ(depth, head->depth);
    }
    if (head.ok()) {
      EXPECT_FALSE(head->plain) << "it comes last";
    } else {
      EXPECT_EQ(head.status().code(), Code::kInternal);
    }
  }
}

TEST(CallHead, WithABitFlippedIsReadOrRefused) {
  const std::string bytes = WriteCallHead(Sample());
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    const auto head = ReadCallHead(Bytes(flipped));
    uint32_t depth = 1;
    EXPECT_EQ(CheckCallHead(Bytes(flipped), &depth), head.status());
    if (!head.ok()) continue;
    EXPECT_EQ(depth, std::min(head->depth, kMostDepth));
    for (const auto& [key, value] : head->metadata) {
      if (value.empty()) continue;
      EXPECT_GE(value.data(), flipped.data());
      EXPECT_LE(value.data() + value.size(), flipped.data() + flipped.size());
    }
  }
}

TEST(CallEnd, ComesBackAsItWasWritten) {
  const std::string bytes = WriteCallEnd({.details = "it failed", .trailing = {{"k", "v"}, {"k", "w"}}});
  const auto end = ReadCallEnd(Bytes(bytes));
  ASSERT_TRUE(end.ok());
  EXPECT_EQ(end->details, "it failed");
  EXPECT_EQ(end->trailing, (MetadataView{{"k", "v"}, {"k", "w"}}));
  EXPECT_FALSE(ReadCallEnd(Bytes(bytes).first(bytes.size() - 1)).ok());
}

TEST(InitialMetadata, ComesBackAsItWasWritten) {
  const MetadataView metadata = {{"k", "v"}, {"x-bin", "\xff"}};
  const std::string bytes = WriteMetadata(metadata);
  const auto read = ReadMetadata(Bytes(bytes));
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(*read, metadata);
  EXPECT_FALSE(ReadMetadata(Bytes(bytes).first(bytes.size() - 1)).ok());
}

}  // namespace
}  // namespace mindserve::wire
