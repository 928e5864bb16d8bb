#include "link/arena.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <vector>

#include "link/frame.h"

namespace mindserve::link {
namespace {

class ArenaTest : public testing::Test {
 protected:
  void Make(size_t size, size_t begin) {
    auto region = Region::Create("test", size);
    ASSERT_TRUE(region.ok());
    region_ = *std::move(region);
    arena_.emplace(region_, begin);
  }
  Region region_;
  std::optional<Arena> arena_;
};

TEST_F(ArenaTest, SlabsLieInTheRegionAreAlignedAndDontOverlap) {
  Make(1 << 20, kPage);
  std::map<uint64_t, size_t> out;
  for (size_t size : {0u, 1u, 255u, 256u, 257u, 320u, 321u, 4096u, 100'000u, 3u}) {
    const auto slab = arena_->Allocate(size);
    ASSERT_TRUE(slab) << size;
    EXPECT_EQ(slab->bytes.size(), size);
    EXPECT_EQ(slab->offset % kCacheLine, 0u);
    EXPECT_GE(slab->offset, kPage);
    EXPECT_LE(slab->offset + size, region_.size());
    EXPECT_EQ(slab->bytes.data(), region_.data() + slab->offset);
    out[slab->offset] = std::max<size_t>(size, 1);
  }
  uint64_t end = 0;
  for (const auto& [offset, size] : out) {
    EXPECT_GE(offset, end);
    end = offset + size;
  }
  EXPECT_EQ(arena_->slabs(), 10u);
}

TEST_F(ArenaTest, WhatIsFreedIsUsedAgain) {
  Make(64 << 20, kPage);
  for (size_t size : {1000u, 10'000u, 100'000u, 1'000'000u}) {
    const auto first = arena_->Allocate(size);
    ASSERT_TRUE(first);
    const size_t touched = arena_->touched();
    ASSERT_TRUE(arena_->Free(first->offset));
    for (int i = 0; i < 1000; ++i) {
      const auto slab = arena_->Allocate(size);
      ASSERT_TRUE(slab);
      EXPECT_EQ(slab->offset, first->offset);
      ASSERT_TRUE(arena_->Free(slab->offset));
    }
    EXPECT_EQ(arena_->touched(), touched);
  }
}

TEST_F(ArenaTest, NeighboursThatAreFreeBecomeOneLargerPiece) {
  Make(1 << 20, 0);
  std::vector<uint64_t> out;
  for (int i = 0; i < 4; ++i) out.push_back(arena_->Allocate(50'000)->offset);
  const size_t touched = arena_->touched();
  for (int i : {1, 3, 2}) ASSERT_TRUE(arena_->Free(out[i]));
  EXPECT_EQ(arena_->Allocate(150'000)->offset, out[1]);
  EXPECT_EQ(arena_->touched(), touched);
}

TEST_F(ArenaTest, ChunksOfOneSizeServeOthersOnceTheyAreFree) {
  Make(8 << 20, 0);
  std::vector<uint64_t> out;
  for (size_t size : {100u, 600u, 3000u, 20'000u}) {
    for (size_t i = 0; i < (4 << 20) / size; ++i) {
      const auto slab = arena_->Allocate(size);
      ASSERT_TRUE(slab) << size;
      out.push_back(slab->offset);
    }
    for (uint64_t offset : out) ASSERT_TRUE(arena_->Free(offset));
    out.clear();
  }
  EXPECT_EQ(arena_->used(), 0u);
  EXPECT_LE(arena_->touched(), size_t{6} << 20);
  EXPECT_TRUE(arena_->Allocate(8 << 20)) << "chunks that were kept are given up for what needs the room";
}

TEST_F(ArenaTest, RefusesToFreeWhatIsNotOut) {
  Make(8 << 20, kPage);
  EXPECT_FALSE(arena_->Free(kPage)) << "nothing was ever out";
  for (size_t size : {1000u, 5000u, 28'000u, 100'000u}) {
    const auto before = arena_->Allocate(size);
    const auto slab = arena_->Allocate(size);
    const auto after = arena_->Allocate(size);
    ASSERT_TRUE(after);
    const size_t used = arena_->used();
    ASSERT_TRUE(arena_->Free(after->offset));
    for (uint64_t offset = 0; offset <= slab->offset + 2 * size; ++offset) {
      if (offset == before->offset || offset == slab->offset) continue;
      ASSERT_FALSE(arena_->Free(offset)) << offset;
    }
    for (int bit = 0; bit < 64; ++bit) {
      const uint64_t flipped = slab->offset ^ uint64_t{1} << bit;
      if (flipped == before->offset) continue;
      EXPECT_FALSE(arena_->Free(flipped)) << flipped;
    }
    EXPECT_FALSE(arena_->Free(kPage + arena_->touched()));
    EXPECT_FALSE(arena_->Free(region_.size()));
    EXPECT_FALSE(arena_->Free(UINT64_MAX));
    EXPECT_EQ(arena_->used(), used / 3 * 2);
    EXPECT_EQ(arena_->slabs(), 2u);
    EXPECT_TRUE(arena_->Free(slab->offset));
    EXPECT_FALSE(arena_->Free(slab->offset));
    EXPECT_TRUE(arena_->Free(before->offset));
    EXPECT_FALSE(arena_->Free(before->offset));
    EXPECT_EQ(arena_->used(), 0u);
    EXPECT_EQ(arena_->slabs(), 0u);
  }
}

TEST_F(ArenaTest, SaysWhenItIsFullAndRecovers) {
  Make(64 * kPage, 0);
  EXPECT_FALSE(arena_->Allocate(64 * kPage + 1));
  EXPECT_FALSE(arena_->Allocate(SIZE_MAX));
  std::vector<uint64_t> out;
  while (const auto slab = arena_->Allocate(kPage)) out.push_back(slab->offset);
  EXPECT_EQ(out.size(), 64u);
  ASSERT_TRUE(arena_->Free(out.back()));
  EXPECT_TRUE(arena_->Allocate(kPage));
  // A larger free piece serves a smaller wish when nothing else is left.
  ASSERT_TRUE(arena_->Free(out.front()));
  EXPECT_TRUE(arena_->Allocate(100));
}

TEST_F(ArenaTest, CutsAfreshWhenAllIsFreeButTooSmall) {
  Make(64 * kPage, 0);
  std::vector<uint64_t> out;
  while (const auto slab = arena_->Allocate(kPage)) out.push_back(slab->offset);
  for (uint64_t offset : out) ASSERT_TRUE(arena_->Free(offset));
  EXPECT_TRUE(arena_->Allocate(64 * kPage));
}

TEST_F(ArenaTest, OfARegionWithoutRoomForAChunk) {
  Make(3 * kPage, kPage);
  const auto first = arena_->Allocate(100);
  const auto second = arena_->Allocate(100);
  ASSERT_TRUE(second);
  EXPECT_NE(first->offset, second->offset);
  ASSERT_TRUE(arena_->Free(first->offset));
  ASSERT_TRUE(arena_->Free(second->offset));
  const auto large = arena_->Allocate(8000);
  ASSERT_TRUE(large);
  EXPECT_FALSE(arena_->Allocate(0));
  ASSERT_TRUE(arena_->Free(large->offset));
  EXPECT_TRUE(arena_->Allocate(0));

  Make(2 * kPage, 2 * kPage);
  EXPECT_FALSE(arena_->Allocate(0));
  EXPECT_FALSE(arena_->Free(2 * kPage));
  EXPECT_EQ(arena_->touched(), 0u);
}

// What is out, in the order of offsets: a reference that finds every overlap, and every byte that isn't kept.
class Model {
 public:
  explicit Model(Arena* arena) : arena_(arena) {}

  // The offset; nothing if the arena is full.
  std::optional<uint64_t> Allocate(size_t size) {
    const auto slab = arena_->Allocate(size);
    if (!slab) return std::nullopt;
    EXPECT_EQ(slab->bytes.size(), size);
    EXPECT_EQ(slab->offset % kCacheLine, 0u);
    const uint64_t end = slab->offset + std::max<size_t>(size, 1);
    const auto next = out_.lower_bound(slab->offset);
    EXPECT_TRUE(next == out_.end() || end <= next->first);
    if (next != out_.begin()) {
      const auto& [offset, before] = *std::prev(next);
      EXPECT_LE(offset + std::max<size_t>(before.bytes.size(), 1), slab->offset);
    }
    const auto fill = static_cast<std::byte>(++count_);
    if (size > 0) slab->bytes.front() = slab->bytes.back() = fill;
    out_[slab->offset] = {slab->bytes, fill};
    requested_ += size;
    peak_ = std::max(peak_, requested_);
    return slab->offset;
  }
  // The one at or after `offset`; if there is none, the first.
  void FreeFrom(uint64_t offset) {
    auto at = out_.lower_bound(offset);
    if (at == out_.end()) at = out_.begin();
    const auto& [bytes, fill] = at->second;
    if (!bytes.empty()) {
      EXPECT_EQ(bytes.front(), fill);
      EXPECT_EQ(bytes.back(), fill);
    }
    requested_ -= bytes.size();
    EXPECT_TRUE(arena_->Free(at->first));
    EXPECT_FALSE(arena_->Free(at->first));
    out_.erase(at);
  }
  bool IsOut(uint64_t offset) const { return out_.contains(offset); }
  size_t slabs() const { return out_.size(); }
  size_t requested() const { return requested_; }
  size_t peak() const { return peak_; }

 private:
  struct Out {
    std::span<std::byte> bytes;
    std::byte fill;
  };
  Arena* const arena_;
  std::map<uint64_t, Out> out_;
  unsigned count_ = 0;
  size_t requested_ = 0;
  size_t peak_ = 0;
};

// From 1 up to 2^`bits` bytes; each power of two as often as the others.
size_t RandomSize(std::mt19937* random, double bits) {
  return static_cast<size_t>(std::exp2(std::uniform_real_distribution(0., bits)(*random)));
}

TEST_F(ArenaTest, DoesAsAModelDoesOverManyRandomSteps) {
  for (uint32_t seed = 1; seed <= 8; ++seed) {
    Make(4 << 20, kPage);
    std::mt19937 random(seed);
    Model model(&*arena_);
    int full = 0;
    for (int step = 0; step < 10'000; ++step) {
      const uint64_t anywhere = random() % region_.size();
      if (random() % 100 < (step / 1000 % 2 == 0 ? 70u : 40u)) {
        full += !model.Allocate(RandomSize(&random, step % 5000 < 2500 ? 18 : 13)).has_value();
      } else if (model.slabs() > 0) {
        model.FreeFrom(anywhere);
      }
      // Whatever the other side says.
      for (uint64_t offset : {anywhere, anywhere / kPage * kPage, anywhere / 128 * 128}) {
        ASSERT_TRUE(model.IsOut(offset) || !arena_->Free(offset));
      }
      ASSERT_EQ(arena_->slabs(), model.slabs());
      ASSERT_GE(arena_->used(), model.requested());
      ASSERT_FALSE(HasFailure()) << "seed " << seed << ", step " << step;
    }
    EXPECT_GT(full, 0);
    while (model.slabs() > 0) model.FreeFrom(0);
    EXPECT_EQ(arena_->used(), 0u);
    EXPECT_TRUE(arena_->Allocate(region_.size() - kPage)) << "all of it is one piece again";
  }
}

// Bursts of one size after another, each as large as a limit allows: the memory of one has to serve the next.
class ArenaBurstsTest : public ArenaTest {
 protected:
  // How many bytes were touched for each that was out at the peak. `steady` slabs of random size, from 1 up to 2^`bits`
  // bytes, are out all the time, one of them replaced in each step. `overlap`: a burst comes while the one before goes,
  // instead of afterwards.
  double Cost(size_t steady, double bits, bool overlap) {
    constexpr size_t kLimit = 64 << 20;
    Make(size_t{1} << 30, kPage);
    std::mt19937 random(11);
    Model model(&*arena_);
    const auto allocate = [&](size_t size) {
      const auto offset = model.Allocate(size);
      EXPECT_TRUE(offset);
      return offset.value_or(0);
    };
    std::vector<uint64_t> background;
    for (size_t i = 0; i < steady; ++i) background.push_back(allocate(RandomSize(&random, bits)));
    std::vector<uint64_t> last;
    for (double megabytes : {1., 1.3, 1.6, 1.9, 2.3, 2.8, 3.3, 3.9, 4.6, 5.5, 6.5, 7.7, .7, .2, .05, .01, .003, 5.}) {
      const auto size = static_cast<size_t>(megabytes * 1e6);
      // Nearly in the order in which they came, the next to go at the back.
      for (size_t i = 0; i + 1 < last.size(); ++i)
        std::swap(last[i], last[std::min(i + random() % 16, last.size() - 1)]);
      std::ranges::reverse(last);
      std::vector<uint64_t> burst;
      while (!last.empty() || model.requested() + size <= kLimit) {
        if (model.requested() + size <= kLimit && (overlap || last.empty())) {
          burst.push_back(allocate(size));
        } else {
          model.FreeFrom(last.back());
          last.pop_back();
        }
        if (steady > 0) {
          uint64_t& one = background[random() % steady];
          model.FreeFrom(one);
          one = allocate(RandomSize(&random, bits));
        }
      }
      last = std::move(burst);
    }
    return static_cast<double>(arena_->touched()) / static_cast<double>(model.peak());
  }
};

TEST_F(ArenaBurstsTest, CostLittleMoreThanTheirPeak) {
  EXPECT_LT(Cost(0, 0, false), 1.1);
  EXPECT_LT(Cost(300, 13, false), 1.2);
  EXPECT_LT(Cost(300, 20, false), 1.3);
}

TEST_F(ArenaBurstsTest, CostNotTwiceTheirPeakWhileTheyOverlap) {
  EXPECT_LT(Cost(0, 0, true), 1.75);
  EXPECT_LT(Cost(300, 13, true), 1.75);
  EXPECT_LT(Cost(300, 20, true), 1.75);
}

// Of sizes as they come, as many as a limit allows, in no order: what a server that is always full sees.
TEST_F(ArenaTest, CostsNotTwiceItsPeakWhenItIsAlwaysFull) {
  constexpr size_t kLimit = 64 << 20;
  Make(size_t{1} << 30, kPage);
  std::mt19937 random(3);
  std::lognormal_distribution<> sizes(std::log(100e3), 1.5);
  Model model(&*arena_);
  for (int step = 0; step < 50'000; ++step) {
    const auto size = static_cast<size_t>(std::min(sizes(random), 8e6));
    while (model.requested() + size > kLimit) model.FreeFrom(random() % (kPage + arena_->touched()));
    ASSERT_TRUE(model.Allocate(size));
  }
  EXPECT_LT(static_cast<double>(arena_->touched()), 1.5 * static_cast<double>(model.peak()));
}

}  // namespace
}  // namespace mindserve::link
