#include "gateway/frame_heads.h"

#include <gtest/gtest.h>

#include <string>

namespace mindserve::gateway {
namespace {

const std::string kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

std::string Frame(uint8_t type, uint8_t flags, const std::string& payload) {
  const auto byte = [&](int shift) { return static_cast<char>(payload.size() >> shift & 0xff); };
  const char head[] = {byte(16), byte(8), byte(0), static_cast<char>(type), static_cast<char>(flags), 0, 0, 0, 1};
  return std::string(head, sizeof(head)) + payload;
}

// Four that are cheap, and others, one with what looks like a head in it.
const std::string kBytes = kPreface + Frame(NGHTTP2_SETTINGS, 0, "") + Frame(NGHTTP2_DATA, 0, "") +
                           Frame(NGHTTP2_DATA, 0, std::string(9, '\0')) +
                           Frame(NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, "") +
                           Frame(NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, std::string(70'000, 'x')) +
                           Frame(NGHTTP2_DATA, NGHTTP2_FLAG_PADDED, std::string("\1\0", 2)) +
                           Frame(NGHTTP2_CONTINUATION, 0, "fields") + Frame(NGHTTP2_PING, 0, "12345678");

uint64_t Count(FrameHeads& heads, const std::string& bytes) {
  return heads.CountCheap(std::as_bytes(std::span(bytes.data(), bytes.size())));
}

TEST(FrameHeadsTest, CountsDataWithNothingInIt) {
  FrameHeads heads;
  EXPECT_EQ(Count(heads, kBytes), 4u);
  EXPECT_EQ(Count(heads, Frame(NGHTTP2_DATA, 0, "")), 1u);
}

TEST(FrameHeadsTest, HoweverTheBytesAreCut) {
  for (const size_t piece : {1, 2, 3, 5, 8, 9, 10, 24, 25, 4096}) {
    FrameHeads heads;
    uint64_t count = 0;
    for (size_t at = 0; at < kBytes.size(); at += piece) count += Count(heads, kBytes.substr(at, piece));
    EXPECT_EQ(count, 4u) << piece;
  }
}

}  // namespace
}  // namespace mindserve::gateway
