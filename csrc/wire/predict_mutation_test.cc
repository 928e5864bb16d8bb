// Broken requests by the thousand: whatever the bytes, reading ends, stays inside them and agrees with itself.
// Deterministic, and worth most under the address sanitizer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <random>

#include "wire/health.h"
#include "wire/predict.h"
#include "wire/test_messages.h"

namespace mindserve::wire {
namespace {

using test::Field;
using test::Instance;
using test::Item;
using test::NumericTensor;
using test::TextTensor;

constexpr size_t kMaxInstances = 64;

// What came out of reading a request.
struct Outcome {
  bool routed = false;
  size_t instances = 0;
  size_t good = 0;
};

bool Inside(std::span<const std::byte> bytes, const void* begin, size_t size) {
  if (size == 0) return true;
  const auto* at = static_cast<const std::byte*>(begin);
  return at >= bytes.data() && at + size <= bytes.data() + bytes.size();
}

// What must hold of every tensor that the reader hands out.
void CheckTensor(std::span<const std::byte> request, const Tensor& tensor) {
  ASSERT_TRUE(tensor);
  const auto elements = tensor.shape().Elements();
  ASSERT_TRUE(elements.has_value());
  if (IsText(tensor.dtype())) {
    ASSERT_EQ(tensor.elements().size(), *elements);
    for (std::string_view element : tensor.elements()) ASSERT_TRUE(Inside(request, element.data(), element.size()));
  } else {
    ASSERT_EQ(tensor.data().size(), *elements * Info(tensor.dtype()).size);
    ASSERT_TRUE(Inside(request, tensor.data().data(), tensor.data().size()));
  }
}

// Reads `text` from a block of exactly its size, so that the sanitizer sees one byte too far.
Outcome ReadAll(std::string_view text) {
  const auto block = std::make_unique<std::byte[]>(text.size());
  if (!text.empty()) std::memcpy(block.get(), text.data(), text.size());
  const std::span<const std::byte> request(block.get(), text.size());
  Outcome outcome;

  Route route;
  const Status status = ReadRoute(request, kMaxInstances, &route);
  outcome.routed = status.ok();
  if (!status.ok()) {
    EXPECT_TRUE(status.code() == Code::kInvalidArgument || status.code() == Code::kResourceExhausted);
    EXPECT_FALSE(status.message().empty());
  } else {
    EXPECT_TRUE(Inside(request, route.servable.data(), route.servable.size()));
    EXPECT_TRUE(Inside(request, route.method.data(), route.method.size()));
    EXPECT_LE(route.spec.offset + route.spec.length, request.size());
    size_t end = 0;
    for (const Extent& extent : route.instances) {
      EXPECT_GE(extent.offset, end);
      EXPECT_GE(extent.length, 2u);
      end = extent.offset + extent.length;
      EXPECT_LE(end, request.size());
    }
  }

  const std::vector<std::string> names = {"x1", "x2", "s"};
  InstanceReader reader(request, names, nullptr);
  std::vector<Tensor> slots;
  while (reader.Next()) {
    ++outcome.instances;
    const Status read = reader.Read(&slots);
    EXPECT_EQ(slots.size(), names.size());
    if (!read.ok()) {
      EXPECT_TRUE(read.code() == Code::kInvalidArgument || read.code() == Code::kDataLoss);
      continue;
    }
    ++outcome.good;
    for (const Tensor& tensor : slots) CheckTensor(request, tensor);
  }
  if (outcome.routed) {
    EXPECT_TRUE(reader.status().ok());
    EXPECT_EQ(outcome.instances, route.instances.size());
  }
  (void)ReadHealthRequest(request);
  return outcome;
}

// A request that has a bit of everything.
std::string Sample() {
  const std::string data(16, '\x3f');
  std::string request = test::UnknownFields();
  request += Instance(Item("x1", NumericTensor({2, 2}, 11, data)) + Item("x2", NumericTensor({}, 8, data.substr(8))) +
                      Item("s", TextTensor({2}, 13, {"one", ""})));
  request += Field(1, test::Spec("servable", "method", 3));
  request += Instance(Item("s", TextTensor({}, 14, {std::string(130, 'b')})) +
                      Item("x2", Field(1, test::UnpackedShape({4, 1})) + test::Varint(2, 7) + Field(3, data)) +
                      Item("other", "") + Item("x1", NumericTensor({0, 3}, 12, "")) + test::UnknownFields());
  return request;
}

TEST(Mutation, TheSampleItselfIsGood) {
  const Outcome outcome = ReadAll(Sample());
  EXPECT_TRUE(outcome.routed);
  EXPECT_EQ(outcome.instances, 2u);
  EXPECT_EQ(outcome.good, 2u);
}

TEST(Mutation, EveryTruncation) {
  const std::string sample = Sample();
  for (size_t size = 0; size < sample.size(); ++size) {
    const Outcome outcome = ReadAll(std::string_view(sample).substr(0, size));
    EXPECT_LE(outcome.good, 1u) << size;
  }
}

// Truncated on the inside: the instance's length is right, its last item is cut.
TEST(Mutation, EveryTruncationOfAnInstance) {
  const std::string items = Item("x1", NumericTensor({1}, 2, "a")) + Item("x2", NumericTensor({1}, 2, "b")) +
                            Item("s", TextTensor({1}, 13, {"c"}));
  for (size_t size = 0; size <= items.size(); ++size) {
    const Outcome outcome = ReadAll(Instance(items.substr(0, size)) + Instance(items));
    EXPECT_TRUE(outcome.routed);
    EXPECT_EQ(outcome.instances, 2u);
    EXPECT_EQ(outcome.good, size == items.size() ? 2u : 1u) << size;
  }
}

TEST(Mutation, EveryTruncationOfATensor) {
  const std::string rest = Item("x2", NumericTensor({1}, 2, "b")) + Item("s", TextTensor({1}, 13, {"c"}));
  const std::string tensor = NumericTensor({1, 300, 0}, 2, "") + TextTensor({}, 2, {"a", "b"});
  for (size_t size = 0; size <= tensor.size(); ++size) {
    const Outcome outcome = ReadAll(Instance(Item("x1", tensor.substr(0, size)) + rest));
    EXPECT_TRUE(outcome.routed);
    EXPECT_EQ(outcome.instances, 1u);
  }
}

TEST(Mutation, EveryBitFlip) {
  const std::string sample = Sample();
  for (size_t bit = 0; bit < sample.size() * 8; ++bit) {
    std::string flipped = sample;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    ReadAll(flipped);
  }
}

TEST(Mutation, EveryByteReplacedByTheOnesThatMatter) {
  const std::string sample = Sample();
  for (size_t at = 0; at < sample.size(); ++at) {
    for (char byte : {'\x00', '\x7f', '\x80', '\xff'}) {
      std::string changed = sample;
      changed[at] = byte;
      ReadAll(changed);
    }
  }
}

TEST(Mutation, BytesPutInTakenOutAndCopiedAtRandom) {
  const std::string sample = Sample();
  std::mt19937 random(20'240'607);
  const auto below = [&random](size_t n) { return static_cast<size_t>(random() % n); };
  for (int round = 0; round < 4'000; ++round) {
    std::string changed = sample;
    for (size_t change = 1 + below(4); change > 0; --change) {
      if (changed.empty()) break;
      const size_t at = below(changed.size());
      const size_t length = 1 + below(12);
      switch (below(4)) {
        case 0:
          changed.erase(at, length);
          break;
        case 1:
          changed.insert(at, length, static_cast<char>(random()));
          break;
        case 2:
          changed.insert(at, changed.substr(below(changed.size()), length));
          break;
        default:
          changed[at] = static_cast<char>(random());
      }
    }
    ReadAll(changed);
  }
}

TEST(Mutation, NoiseAtRandom) {
  std::mt19937 random(7);
  for (int round = 0; round < 4'000; ++round) {
    std::string noise(random() % 64, '\0');
    // Small values are more often tags and lengths than anything else.
    for (char& byte : noise) byte = static_cast<char>(random() % (round % 2 == 0 ? 256 : 40));
    ReadAll(noise);
  }
}

}  // namespace
}  // namespace mindserve::wire
