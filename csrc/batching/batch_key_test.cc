#include "batching/batch_key.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

namespace mindserve::batching {
namespace {

Tensor Floats(Shape shape, std::vector<float> values) {
  std::span<std::byte> bytes;
  Tensor tensor = Tensor::Allocate(DType::kFloat32, std::move(shape), &bytes).value();
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return tensor;
}

using Tensors = std::vector<Tensor>;

bool Equal(const BatchKey& key, const Tensors& a, const Tensors& b) {
  const bool same = key.Same(a, b);
  EXPECT_EQ(same, key.Hash(a) == key.Hash(b));
  return same;
}

TEST(BatchKeyTest, ValuesDoNotCount) {
  EXPECT_TRUE(Equal(BatchKey({}), {Floats({2}, {1, 2})}, {Floats({2}, {3, 4})}));
}

TEST(BatchKeyTest, ShapesCount) {
  EXPECT_FALSE(Equal(BatchKey({}), {Floats({2}, {1, 2})}, {Floats({2, 1}, {1, 2})}));
  EXPECT_FALSE(Equal(BatchKey({}), {Floats({3}, {1, 2, 3})}, {Floats({2}, {1, 2})}));
  EXPECT_FALSE(Equal(BatchKey({}), {Floats({}, {1})}, {Floats({1}, {1})}));
}

TEST(BatchKeyTest, TypesCount) {
  const Tensor floats = Floats({1}, {1});
  const Tensor ints = Tensor::View(DType::kInt32, Shape{1}, floats.data(), floats.owner()).value();
  EXPECT_FALSE(Equal(BatchKey({}), {floats}, {ints}));
  EXPECT_FALSE(Equal(BatchKey({}), {Tensor::Text(DType::kString, "a")}, {Tensor::Text(DType::kBytes, "a")}));
}

TEST(BatchKeyTest, EveryInputCounts) {
  const Tensor two = Floats({2}, {1, 2});
  EXPECT_FALSE(Equal(BatchKey({}), {two, two}, {two, Floats({1}, {1})}));
  EXPECT_FALSE(Equal(BatchKey({}), {two, two}, {two}));
}

TEST(BatchKeyTest, ValuesCountWhereTheyAreSaidTo) {
  const BatchKey key({false, true});
  const Tensor a = Floats({2}, {1, 2});
  const Tensor b = Floats({2}, {1, 3});
  EXPECT_TRUE(Equal(key, {a, a}, {b, Floats({2}, {1, 2})}));
  EXPECT_FALSE(Equal(key, {a, a}, {a, b}));
}

TEST(BatchKeyTest, TextsCountWhereTheyAreSaidTo) {
  const BatchKey key({true});
  const auto text = [](std::string value) { return Tensors{Tensor::Text(DType::kString, std::move(value))}; };
  EXPECT_TRUE(Equal(key, text("left"), text("left")));
  EXPECT_FALSE(Equal(key, text("left"), text("right")));
  EXPECT_TRUE(Equal(BatchKey({}), text("left"), text("right")));
}

}  // namespace
}  // namespace mindserve::batching
