#include "gateway/output.h"

#include <gtest/gtest.h>

#include <string>

namespace mindserve::gateway {
namespace {

std::span<const std::byte> Bytes(const std::string& text) {
  return std::as_bytes(std::span<const char>(text));
}

class Lender final : public ReplyLender {
 public:
  void Return(std::span<const std::byte> bytes) override { returned += bytes.size(); }
  size_t returned = 0;
};

// Takes up to `most` bytes out of it.
std::string Take(Output& output, size_t most) {
  std::string taken;
  for (const iovec& entry : output.Front()) {
    taken.append(static_cast<const char*>(entry.iov_base), std::min(entry.iov_len, most - taken.size()));
  }
  output.Consume(taken.size());
  return taken;
}

TEST(OutputTest, BytesComeOutInOrderHoweverTheyAreTaken) {
  const std::string large(5000, 'L');
  const std::string expected = "ab" + large + "cd" + large + "e";
  for (size_t step : {1, 3, 1000, 5002, 5003, 20'000}) {
    Output output;
    const auto lender = std::make_shared<Lender>();
    output.Copy(Bytes("a"));
    output.Copy(Bytes("b"));
    output.Refer(Bytes(large));
    output.Keep(ReplyPart(Bytes(large), lender));
    output.Copy(Bytes("c"));
    output.Copy(Bytes("d"));
    output.Refer(Bytes(large));
    output.Keep(ReplyPart(Bytes(large), lender));
    output.Copy(Bytes("e"));
    EXPECT_EQ(output.size(), expected.size());
    std::string all;
    while (!output.empty()) {
      all += Take(output, step);
      EXPECT_EQ(lender->returned, all.size() < 5002 ? 0u : all.size() < 10'004 ? 5000u : 10'000u) << all.size();
    }
    EXPECT_EQ(all, expected) << step;
  }
}

TEST(OutputTest, WhatIsWrittenIsForgottenThoughItNeverRunsEmpty) {
  Output output;
  std::string in;
  std::string out;
  uint32_t state = 3;
  const std::string large(3000, 'L');
  for (int i = 0; i < 20'000; ++i) {
    const std::string piece(1 + ((state = state * 1664525 + 1013904223) >> 26), static_cast<char>('a' + i % 26));
    output.Copy(Bytes(piece));
    in += piece;
    if (i % 100 == 0) {
      output.Refer(Bytes(large));
      in += large;
    }
    if (output.size() > 10'000) out += Take(output, 5000);
  }
  while (!output.empty()) out += Take(output, 100'000);
  EXPECT_EQ(in, out);
}

TEST(OutputTest, NothingIsKeptBehindNothing) {
  Output output;
  const auto lender = std::make_shared<Lender>();
  output.Keep(ReplyPart(Bytes("x"), lender));
  EXPECT_EQ(lender->returned, 1u);
}

}  // namespace
}  // namespace mindserve::gateway
