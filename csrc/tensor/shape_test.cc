#include "tensor/shape.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <numeric>

namespace mindserve {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

// 1, 2, ..., rank
std::vector<int64_t> Count(size_t rank) {
  std::vector<int64_t> dims(rank);
  std::iota(dims.begin(), dims.end(), 1);
  return dims;
}

TEST(Shape, IsAScalarByDefault) {
  const Shape shape;
  EXPECT_EQ(shape.rank(), 0u);
  EXPECT_TRUE(shape.dims().empty());
  EXPECT_EQ(shape.Elements(), 1u);
  EXPECT_EQ(shape, Shape{});
}

// Across the border between the dimensions kept inline and those on the heap.
TEST(Shape, HoldsAnyRankHoweverItIsMade) {
  for (size_t rank = 0; rank <= 12; ++rank) {
    const std::vector<int64_t> dims = Count(rank);
    const Shape at_once{std::span<const int64_t>(dims)};
    EXPECT_THAT(at_once.dims(), ElementsAreArray(dims));
    Shape pushed;
    for (int64_t dim : dims) pushed.push_back(dim);
    EXPECT_THAT(pushed.dims(), ElementsAreArray(dims));
    EXPECT_EQ(pushed, at_once);
    for (size_t i = 0; i < rank; ++i) EXPECT_EQ(pushed[i], dims[i]);
  }
}

TEST(Shape, IsCopiedMovedAndAssignedAcrossRanks) {
  for (size_t from = 0; from <= 9; ++from) {
    for (size_t to = 0; to <= 9; ++to) {
      const auto dims = Count(from);
      const auto old = Count(to);
      const Shape source{std::span<const int64_t>(dims)};
      Shape copy{std::span<const int64_t>(old)};
      copy = source;
      EXPECT_EQ(copy, source);
      Shape moved{std::span<const int64_t>(old)};
      moved = std::move(copy);
      EXPECT_EQ(moved, source);
      moved.push_back(99);
      EXPECT_EQ(moved.rank(), from + 1);
      EXPECT_EQ(moved[from], 99);
    }
  }
}

TEST(Shape, SetReplacesOneDimension) {
  for (size_t rank : {1, 6, 7, 9}) {
    const auto dims = Count(rank);
    Shape shape{std::span<const int64_t>(dims)};
    shape.set(rank - 1, 42);
    EXPECT_EQ(shape[rank - 1], 42);
    EXPECT_EQ(shape.rank(), rank);
  }
}

TEST(Shape, ElementsIsTheProduct) {
  EXPECT_EQ((Shape{2, 3, 4}).Elements(), 24u);
  EXPECT_EQ((Shape{7}).Elements(), 7u);
  EXPECT_EQ((Shape{1, 1, 1, 1, 1, 1, 1, 5}).Elements(), 5u);
  EXPECT_EQ((Shape{kMax}).Elements(), static_cast<uint64_t>(kMax));
  EXPECT_EQ((Shape{kMax, 2}).Elements(), static_cast<uint64_t>(kMax) * 2);
}

TEST(Shape, ElementsIsZeroWithAZeroDimension) {
  EXPECT_EQ((Shape{0}).Elements(), 0u);
  EXPECT_EQ((Shape{3, 0, 5}).Elements(), 0u);
  EXPECT_EQ((Shape{0, kMax}).Elements(), 0u);
}

TEST(Shape, ElementsIsNothingForANegativeDimensionWhereverItStands) {
  EXPECT_EQ((Shape{-1}).Elements(), std::nullopt);
  EXPECT_EQ((Shape{2, -1}).Elements(), std::nullopt);
  EXPECT_EQ((Shape{0, -1}).Elements(), std::nullopt);
  EXPECT_EQ((Shape{-1, 0}).Elements(), std::nullopt);
  EXPECT_EQ((Shape{std::numeric_limits<int64_t>::min()}).Elements(), std::nullopt);
}

// As numpy sees it: what overflows without its zeros is not a shape, wherever the zeros stand.
TEST(Shape, ElementsIsNothingWhenItOverflowsAlsoBesideAZero) {
  EXPECT_EQ((Shape{kMax, kMax}).Elements(), std::nullopt);
  EXPECT_EQ((Shape{int64_t{1} << 32, int64_t{1} << 32}).Elements(), std::nullopt);
  EXPECT_EQ((Shape{kMax, kMax, 0}).Elements(), std::nullopt);
  EXPECT_EQ((Shape{kMax, 0, kMax}).Elements(), std::nullopt);
  EXPECT_EQ((Shape{0, kMax, kMax}).Elements(), std::nullopt);
}

TEST(Shape, WithBatchPutsADimensionInFrontAndWithoutFirstTakesItAway) {
  for (size_t rank = 0; rank <= 8; ++rank) {
    const auto dims = Count(rank);
    const Shape shape{std::span<const int64_t>(dims)};
    const Shape batch = shape.WithBatch(32);
    EXPECT_EQ(batch.rank(), rank + 1);
    EXPECT_EQ(batch[0], 32);
    EXPECT_EQ(batch.WithoutFirst(), shape);
  }
  EXPECT_THAT((Shape{2, 2}).WithBatch(0).dims(), ElementsAre(0, 2, 2));
}

TEST(Shape, IsWrittenAsNumpyWritesIt) {
  EXPECT_EQ(Shape{}.ToString(), "()");
  EXPECT_EQ((Shape{3}).ToString(), "(3,)");
  EXPECT_EQ((Shape{2, 2}).ToString(), "(2, 2)");
  EXPECT_EQ((Shape{-1, 3, 224, 224}).ToString(), "(-1, 3, 224, 224)");
}

TEST(Shape, EqualityLooksAtRankAndDimensions) {
  EXPECT_EQ((Shape{2, 3}), (Shape{2, 3}));
  EXPECT_NE((Shape{2, 3}), (Shape{3, 2}));
  EXPECT_NE((Shape{2, 3}), (Shape{2, 3, 1}));
  EXPECT_NE(Shape{}, (Shape{1}));
  EXPECT_NE(Shape{}, (Shape{0}));
  EXPECT_NE((Shape{1, 2, 3, 4, 5, 6, 7}), (Shape{1, 2, 3, 4, 5, 6, 8}));
}

}  // namespace
}  // namespace mindserve
