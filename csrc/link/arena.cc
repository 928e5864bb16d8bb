#include "link/arena.h"

#include <algorithm>
#include <bit>

namespace mindserve::link {
namespace {

// Two cache lines: processors fetch lines in pairs, and the neighbour may be written while this one is read.
constexpr size_t kUnit = 128;
constexpr size_t kMaxSmall = 32 << 10;
// The numbers of pages fit into 31 bits, beside what they say.
constexpr size_t kMaxPages = size_t{1} << 31;

struct ClassInfo {
  uint32_t size;
  uint32_t slabs;       // of a chunk
  uint32_t reciprocal;  // 2^32 / size, rounded up
};

constexpr uint64_t AllFree(uint32_t slabs) {
  return ~uint64_t{0} >> (64 - slabs);
}

// Multiples of kUnit up to four of them, then four steps to each power of two. A chunk has so many slabs that it is
// made of whole pages and, but for the largest classes, of about 64 KiB.
constexpr auto kClassInfo = [] {
  std::array<ClassInfo, 28> classes{};
  for (uint32_t i = 0; i < classes.size(); ++i) {
    const size_t base = i < 4 ? 0 : (4 * kUnit) << (i / 4 - 1);
    const size_t size = i < 4 ? kUnit * (i + 1) : base + base / 4 * (i % 4 + 1);
    const uint32_t slabs = size <= 1024 ? 64 : size <= 2048 ? 32 : size <= 4096 ? 16 : 8;
    classes[i] = {static_cast<uint32_t>(size), slabs, static_cast<uint32_t>(((uint64_t{1} << 32) + size - 1) / size)};
  }
  return classes;
}();
static_assert(kClassInfo.back().size == kMaxSmall);
static_assert(std::ranges::all_of(kClassInfo, [](const ClassInfo& c) { return c.size * c.slabs % kPage == 0; }));

// The class for a size of i units.
constexpr auto kClassOf = [] {
  std::array<uint8_t, kMaxSmall / kUnit + 1> classes{};
  uint8_t size_class = 0;
  for (size_t units = 0; units < classes.size(); ++units) {
    if (kClassInfo[size_class].size < units * kUnit) ++size_class;
    classes[units] = size_class;
  }
  return classes;
}();

size_t RoundUpToPage(size_t n) {
  return (n + kPage - 1) / kPage * kPage;
}

uint32_t CountPages(const Region& region, size_t begin) {
  return begin > region.size() ? 0 : static_cast<uint32_t>(std::min((region.size() - begin) / kPage, kMaxPages - 1));
}

}  // namespace

Arena::Arena(const Region& region, size_t begin)
    : region_(region), begin_(RoundUpToPage(begin)), extents_(CountPages(region, begin_)), chunks_(1) {
  static_assert(kClassInfo.size() == kClasses);
}

std::optional<Slab> Arena::Allocate(size_t size) {
  if (size > kMaxSmall) return AllocatePages(size);
  const uint32_t size_class = kClassOf[(size + kUnit - 1) / kUnit];
  if (chunks_[classes_[size_class].current].free == 0) return AllocateSmall(size_class, size);
  return Take(size_class, size);
}

Slab Arena::Take(uint32_t size_class, size_t size) {
  Chunk& chunk = chunks_[classes_[size_class].current];
  const auto i = static_cast<uint32_t>(std::countr_zero(chunk.free));
  chunk.free &= chunk.free - 1;
  const uint32_t rounded = kClassInfo[size_class].size;
  used_ += rounded;
  ++slabs_;
  const uint64_t offset = chunk.begin + uint64_t{i} * rounded;
  return {offset, {region_.data() + offset, size}};
}

// Has the class take from a chunk that has a free slab, if there is one.
bool Arena::FindChunk(uint32_t size_class) {
  SizeClass& its = classes_[size_class];
  if (chunks_[its.current].free != 0) return true;
  if (its.usable == 0) return false;
  its.current = its.usable;
  Unlink(its.current);
  return true;
}

std::optional<Slab> Arena::AllocateSmall(uint32_t size_class, size_t size) {
  if (FindChunk(size_class) || AddChunk(size_class)) return Take(size_class, size);
  // No room for a chunk may yet be room for one slab, or a larger one is free in a chunk.
  if (auto slab = AllocatePages(size)) return slab;
  for (uint32_t larger = size_class + 1; larger < kClasses; ++larger) {
    if (FindChunk(larger)) return Take(larger, size);
  }
  return std::nullopt;
}

std::optional<Slab> Arena::AllocatePages(size_t size) {
  if (size > size_t{extents_.capacity()} * kPage) return std::nullopt;
  const auto count = static_cast<uint32_t>(std::max(RoundUpToPage(size) / kPage, size_t{1}));
  const auto first = TakePages(count);
  if (!first) return std::nullopt;
  pages_[*first] = 2 * count;
  used_ += size_t{count} * kPage;
  ++slabs_;
  const uint64_t offset = begin_ + uint64_t{*first} * kPage;
  return Slab{offset, {region_.data() + offset, size}};
}

std::optional<uint32_t> Arena::TakePages(uint32_t count) {
  auto first = extents_.Take(count);
  if (!first && ReleaseEmptyChunks()) first = extents_.Take(count);
  if (!first) first = extents_.Grow(count);
  pages_.resize(extents_.touched());
  return first;
}

bool Arena::AddChunk(uint32_t size_class) {
  const ClassInfo& info = kClassInfo[size_class];
  const auto count = static_cast<uint32_t>(size_t{info.size} * info.slabs / kPage);
  const auto first = TakePages(count);
  if (!first) return false;
  if (unused_ == 0) {
    unused_ = static_cast<uint32_t>(chunks_.size());
    chunks_.emplace_back();
  }
  const uint32_t id = unused_;
  unused_ = chunks_[id].next;
  chunks_[id] = {AllFree(info.slabs), begin_ + uint64_t{*first} * kPage, size_class};
  std::fill_n(pages_.begin() + *first, count, 2 * id + 1);
  classes_[size_class].current = id;
  return true;
}

void Arena::ReleaseChunk(uint32_t id) {
  Chunk& chunk = chunks_[id];
  const ClassInfo& info = kClassInfo[chunk.size_class];
  const auto count = static_cast<uint32_t>(size_t{info.size} * info.slabs / kPage);
  const auto first = static_cast<uint32_t>((chunk.begin - begin_) / kPage);
  std::fill_n(pages_.begin() + first, count, 0);
  extents_.Release(first, count);
  chunk.free = 0;
  chunk.next = unused_;
  unused_ = id;
}

// The chunks that are kept for the next slab of their class, though none is out. True if there was one.
bool Arena::ReleaseEmptyChunks() {
  bool any = false;
  for (size_t i = 0; i < kClasses; ++i) {
    const uint32_t id = classes_[i].current;
    if (id == 0 || chunks_[id].free != AllFree(kClassInfo[i].slabs)) continue;
    classes_[i].current = 0;
    ReleaseChunk(id);
    any = true;
  }
  return any;
}

void Arena::Link(uint32_t id) {
  uint32_t& list = classes_[chunks_[id].size_class].usable;
  chunks_[id].previous = 0;
  chunks_[id].next = list;
  if (list != 0) chunks_[list].previous = id;
  list = id;
}

void Arena::Unlink(uint32_t id) {
  const Chunk& chunk = chunks_[id];
  (chunk.previous != 0 ? chunks_[chunk.previous].next : classes_[chunk.size_class].usable) = chunk.next;
  if (chunk.next != 0) chunks_[chunk.next].previous = chunk.previous;
}

bool Arena::Free(uint64_t offset) {
  const uint64_t at = offset - begin_;  // what is before begin_ becomes far too large
  if (at / kPage >= pages_.size()) return false;
  const uint32_t page = pages_[at / kPage];
  const uint32_t id = page / 2;
  if (page % 2 == 0) return FreePages(at, id);
  Chunk& chunk = chunks_[id];
  const ClassInfo& info = kClassInfo[chunk.size_class];
  const auto within = static_cast<uint32_t>(offset - chunk.begin);
  const auto i = static_cast<uint32_t>((uint64_t{within} * info.reciprocal) >> 32);
  const uint64_t bit = uint64_t{1} << i;
  if (i * info.size != within || (chunk.free & bit) != 0) return false;
  const uint64_t free_before = chunk.free;
  chunk.free |= bit;
  used_ -= info.size;
  --slabs_;
  if (id == classes_[chunk.size_class].current) return true;
  if (free_before == 0) {
    Link(id);
  } else if (chunk.free == AllFree(info.slabs)) {
    Unlink(id);
    ReleaseChunk(id);
  }
  return true;
}

bool Arena::FreePages(uint64_t at, uint32_t count) {
  if (count == 0 || at % kPage != 0) return false;
  const auto first = static_cast<uint32_t>(at / kPage);
  pages_[first] = 0;
  extents_.Release(first, count);
  used_ -= size_t{count} * kPage;
  --slabs_;
  return true;
}

}  // namespace mindserve::link
