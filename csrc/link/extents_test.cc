#include "link/extents.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace mindserve::link {
namespace {

TEST(ExtentsTest, NothingIsFreeBeforeItHasGrown) {
  Extents extents(100);
  EXPECT_EQ(extents.capacity(), 100u);
  EXPECT_EQ(extents.touched(), 0u);
  EXPECT_FALSE(extents.Take(1));
  EXPECT_EQ(extents.Grow(10), 0u);
  EXPECT_EQ(extents.Grow(5), 10u);
  EXPECT_EQ(extents.touched(), 15u);
  EXPECT_FALSE(extents.Take(1));
}

TEST(ExtentsTest, TakesTheLowestThatIsLargeEnough) {
  Extents extents(100);
  for (uint32_t count : {5u, 1u, 3u, 1u, 8u, 1u}) ASSERT_TRUE(extents.Grow(count));
  extents.Release(10, 8);
  extents.Release(0, 5);
  extents.Release(6, 3);
  EXPECT_EQ(extents.Take(3), 0u);
  EXPECT_EQ(extents.Take(3), 6u) << "two pages are left of the first run";
  EXPECT_EQ(extents.Take(6), 10u);
  EXPECT_FALSE(extents.Take(3));
  EXPECT_EQ(extents.Take(2), 3u);
  EXPECT_EQ(extents.Take(2), 16u);
  EXPECT_FALSE(extents.Take(1));
  EXPECT_EQ(extents.touched(), 19u);
}

TEST(ExtentsTest, RunsThatTouchAreMergedInWhateverOrderTheyCome) {
  std::vector<uint32_t> order = {0, 1, 2, 3};
  do {
    Extents extents(100);
    for (uint32_t i = 0; i < 4; ++i) ASSERT_EQ(extents.Grow(i + 1), i * (i + 1) / 2);
    for (uint32_t i : order) extents.Release(i * (i + 1) / 2, i + 1);
    EXPECT_EQ(extents.Take(10), 0u);
  } while (std::ranges::next_permutation(order).found);
}

TEST(ExtentsTest, GrowsByWhatIsMissingAtTheEnd) {
  Extents extents(20);
  ASSERT_EQ(extents.Grow(4), 0u);
  ASSERT_EQ(extents.Grow(6), 4u);
  extents.Release(4, 6);
  EXPECT_EQ(extents.Grow(9), 4u);
  EXPECT_EQ(extents.touched(), 13u);
  extents.Release(4, 9);
  EXPECT_EQ(extents.Grow(2), 11u) << "nothing is missing";
  EXPECT_EQ(extents.touched(), 13u);
  EXPECT_EQ(extents.Take(7), 4u);
}

TEST(ExtentsTest, EndsAtItsCapacity) {
  Extents extents(20);
  EXPECT_FALSE(extents.Grow(21));
  EXPECT_FALSE(extents.Grow(UINT32_MAX));
  EXPECT_EQ(extents.touched(), 0u);
  ASSERT_EQ(extents.Grow(15), 0u);
  EXPECT_FALSE(extents.Grow(6));
  EXPECT_EQ(extents.Grow(5), 15u);
  EXPECT_FALSE(extents.Grow(1));
  extents.Release(15, 5);
  EXPECT_FALSE(extents.Grow(6));
  extents.Release(0, 15);
  EXPECT_EQ(extents.Take(20), 0u);
  Extents none(0);
  EXPECT_FALSE(none.Take(1));
  EXPECT_FALSE(none.Grow(1));
}

// The same by looking at every page.
class Reference {
 public:
  explicit Reference(uint32_t capacity) : capacity_(capacity) {}
  std::optional<uint32_t> Take(uint32_t count) {
    const auto first = std::search_n(taken_.begin(), taken_.end(), count, false);
    if (first == taken_.end()) return std::nullopt;
    std::fill_n(first, count, true);
    return static_cast<uint32_t>(first - taken_.begin());
  }
  std::optional<uint32_t> Grow(uint32_t count) {
    const auto free = std::find(taken_.rbegin(), taken_.rend(), true) - taken_.rbegin();
    const auto first = static_cast<uint32_t>(taken_.size() - std::min<size_t>(free, count));
    if (first + count > capacity_) return std::nullopt;
    taken_.resize(std::max<size_t>(taken_.size(), first + count));
    std::fill_n(taken_.begin() + first, count, true);
    return first;
  }
  void Release(uint32_t first, uint32_t count) { std::fill_n(taken_.begin() + first, count, false); }
  size_t touched() const { return taken_.size(); }

 private:
  const uint32_t capacity_;
  std::vector<bool> taken_;
};

TEST(ExtentsTest, DoesAsASimpleSearchDoesOverManyRandomSteps) {
  for (uint32_t seed = 1; seed <= 10; ++seed) {
    std::mt19937 random(seed);
    const uint32_t capacity = 100 + random() % 1000;
    const uint32_t largest = 1 + random() % 60;
    Extents extents(capacity);
    Reference reference(capacity);
    struct Run {
      uint32_t first, count;
    };
    std::vector<Run> out;
    size_t taken = 0;
    for (int step = 0; step < 3000; ++step) {
      const uint32_t count = 1 + random() % largest;
      // Takes more than it gives back at first, then less, and so on.
      if (random() % 100 < (step / 300 % 2 == 0 ? 65u : 35u)) {
        auto first = extents.Take(count);
        ASSERT_EQ(first, reference.Take(count)) << "seed " << seed << ", step " << step;
        if (!first) {
          first = extents.Grow(count);
          ASSERT_EQ(first, reference.Grow(count)) << "seed " << seed << ", step " << step;
        }
        ASSERT_EQ(extents.touched(), reference.touched());
        if (first) out.push_back({*first, count});
        if (first) ++taken;
      } else if (!out.empty()) {
        std::swap(out[random() % out.size()], out.back());
        extents.Release(out.back().first, out.back().count);
        reference.Release(out.back().first, out.back().count);
        out.pop_back();
      }
    }
    EXPECT_GT(taken, 500u);
    for (const Run& run : out) extents.Release(run.first, run.count);
    EXPECT_EQ(extents.Take(extents.touched()), 0u) << "all of it is one run again";
  }
}

}  // namespace
}  // namespace mindserve::link
