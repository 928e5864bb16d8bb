// Broken JSON by the thousand: whatever the bytes, the conversion ends, and what it makes is a request. Deterministic,
// and worth most under the address sanitizer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <random>

#include "wire/json_fixture.h"
#include "wire/json_reply.h"
#include "wire/test_messages.h"

namespace mindserve::wire {
namespace {

using namespace std::string_view_literals;

// Something of everything.
constexpr std::string_view kSample =
    R"({"id": [null, {"a": "\u00e9"}], "instances": [{"i": [[1, -2], [300, 4]], "f": [0.5, 1e-3], "b": [true, false]},)"
    R"({"s": "x\n", "t": ["y"], "o": {"b64": "AQACAA==", "type": "int16", "shape": [2, 1]}, "n": 7, "v": 1.5}]})";

// Whether `body`, in a block of exactly its size, becomes a request; what it becomes is checked.
bool Converts(std::string_view body) {
  const auto block = std::make_unique<char[]>(body.size());
  if (!body.empty()) std::memcpy(block.get(), body.data(), body.size());
  const Result<std::string> request = PredictRequestFromJson({block.get(), body.size()}, test::kRoute);
  if (!request.ok()) {
    EXPECT_TRUE(request.status().code() == Code::kInvalidArgument || request.status().code() == Code::kOutOfRange)
        << request.status().ToString();
    EXPECT_FALSE(request.status().message().empty());
    EXPECT_LE(request.status().message().size(), 512u);
    return false;
  }
  EXPECT_LE(request->size(), 64 + 4 * body.size());
  const auto bytes = test::Bytes(*request);
  Route route;
  EXPECT_TRUE(ReadRoute(bytes, 1000, &route).ok());
  EXPECT_EQ(route.servable, "servable");
  InstanceReader reader(bytes, {}, nullptr);
  std::vector<Tensor> slots;
  while (reader.Next()) EXPECT_TRUE(reader.Read(&slots).ok());
  EXPECT_TRUE(reader.status().ok());
  // As a reply, every tensor is read; names may be of any kind.
  std::string reply;
  for (const Extent& extent : route.instances) {
    reply += '\x1a';
    reply += request->substr(extent.offset + 1, extent.length - 1);
  }
  const Result<std::string> json = PredictReplyToJson(test::Bytes(reply));
  EXPECT_TRUE(json.ok()) << json.status().message();
  EXPECT_THAT(json.ok() ? *json : "", testing::Not(testing::HasSubstr("Failed to construct")));
  return true;
}

TEST(JsonMutation, TheSampleItselfIsGood) {
  EXPECT_TRUE(Converts(kSample));
}

TEST(JsonMutation, EveryTruncation) {
  for (size_t size = 0; size < kSample.size(); ++size) EXPECT_FALSE(Converts(kSample.substr(0, size))) << size;
}

TEST(JsonMutation, EveryBitFlip) {
  for (size_t bit = 0; bit < kSample.size() * 8; ++bit) {
    std::string flipped(kSample);
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    Converts(flipped);
  }
}

TEST(JsonMutation, EveryByteReplacedByTheOnesThatMatter) {
  for (size_t at = 0; at < kSample.size(); ++at) {
    for (char byte : "\0\"\\[]{},: 0-.eatn\x7f\x80\xff"sv) {
      std::string changed(kSample);
      changed[at] = byte;
      Converts(changed);
    }
  }
}

TEST(JsonMutation, EveryByteLeftOutAndDoubled) {
  for (size_t at = 0; at < kSample.size(); ++at) {
    Converts(std::string(kSample).erase(at, 1));
    Converts(std::string(kSample).insert(at, 1, kSample[at]));
  }
}

TEST(JsonMutation, BytesPutInTakenOutAndCopiedAtRandom) {
  std::mt19937 random(20'240'607);
  const auto below = [&random](size_t n) { return static_cast<size_t>(random() % n); };
  for (int round = 0; round < 4'000; ++round) {
    std::string changed(kSample);
    for (size_t change = 1 + below(4); change > 0 && !changed.empty(); --change) {
      const size_t at = below(changed.size());
      const size_t length = 1 + below(12);
      switch (below(3)) {
        case 0:
          changed.erase(at, length);
          break;
        case 1:
          changed.insert(at, changed.substr(below(changed.size()), length));
          break;
        default:
          changed[at] = static_cast<char>(random());
      }
    }
    Converts(changed);
  }
}

TEST(JsonMutation, NoiseAtRandom) {
  constexpr std::string_view kMarks = "[]{},:\"\\ 0123456789.-eE+truefalsnx";
  std::mt19937 random(7);
  for (int round = 0; round < 8'000; ++round) {
    std::string noise(random() % 64, '\0');
    for (char& byte : noise) {
      byte = round % 4 == 0 ? static_cast<char>(random()) : kMarks[random() % kMarks.size()];
    }
    Converts(noise);
    Converts("{\"instances\":[{\"x\":" + noise + "}]}");
  }
}

TEST(JsonMutation, RepliesOfNoise) {
  const std::string sample = test::GoldenReply();
  for (size_t bit = 0; bit < sample.size() * 8; ++bit) {
    std::string flipped = sample;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    const Result<std::string> json = PredictReplyToJson(test::Bytes(flipped));
    EXPECT_TRUE(json.ok() || json.status().code() == Code::kInternal) << json.status().ToString();
  }
  for (size_t size = 0; size < sample.size(); ++size) {
    const Result<std::string> json = PredictReplyToJson(test::Bytes(sample).first(size));
    EXPECT_TRUE(json.ok() || json.status().code() == Code::kInternal) << json.status().ToString();
  }
}

}  // namespace
}  // namespace mindserve::wire
