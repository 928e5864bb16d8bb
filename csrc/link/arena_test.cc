#include "link/arena.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>

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

TEST_F(ArenaTest, TheLastFreedIsUsedFirst) {
  Make(1 << 20, 0);
  const auto a = arena_->Allocate(1000);
  const auto b = arena_->Allocate(1000);
  ASSERT_TRUE(arena_->Free(a->offset));
  ASSERT_TRUE(arena_->Free(b->offset));
  EXPECT_EQ(arena_->Allocate(1000)->offset, b->offset);
  EXPECT_EQ(arena_->Allocate(1000)->offset, a->offset);
}

TEST_F(ArenaTest, RefusesToFreeWhatIsNotOut) {
  Make(1 << 20, kPage);
  const auto slab = arena_->Allocate(1000);
  EXPECT_FALSE(arena_->Free(0));
  EXPECT_FALSE(arena_->Free(slab->offset + 1));
  EXPECT_FALSE(arena_->Free(slab->offset + 256));
  EXPECT_FALSE(arena_->Free(uint64_t{1} << 62));
  EXPECT_TRUE(arena_->Free(slab->offset));
  EXPECT_FALSE(arena_->Free(slab->offset));
  EXPECT_EQ(arena_->used(), 0u);
  EXPECT_EQ(arena_->slabs(), 0u);
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
  EXPECT_TRUE(arena_->Allocate(60 * kPage));
}

TEST_F(ArenaTest, KeepsContentsApartOverManyRandomSteps) {
  Make(8 << 20, kPage);
  std::mt19937 random(7);
  struct Out {
    Slab slab;
    int fill;
  };
  std::vector<Out> out;
  for (int step = 0; step < 20'000; ++step) {
    if (out.size() < 50 && random() % 2 == 0) {
      const auto slab = arena_->Allocate(random() % 3 == 0 ? random() % 200'000 : random() % 2'000);
      if (!slab) continue;
      const int fill = static_cast<int>(random() % 256);
      std::memset(slab->bytes.data(), fill, slab->bytes.size());
      out.push_back({*slab, fill});
    } else if (!out.empty()) {
      const size_t at = random() % out.size();
      for (std::byte byte : out[at].slab.bytes) ASSERT_EQ(static_cast<int>(byte), out[at].fill);
      ASSERT_TRUE(arena_->Free(out[at].slab.offset));
      out[at] = out.back();
      out.pop_back();
    }
  }
  EXPECT_EQ(arena_->slabs(), out.size());
}

}  // namespace
}  // namespace mindserve::link
