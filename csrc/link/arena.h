// Shared memory that one side writes and the other reads, and the slabs cut from it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "base/unique_fd.h"
#include "link/extents.h"
#include "link/frame.h"

namespace mindserve::link {

// A mapping of a memfd. Movable; unmapped by the last owner.
class Region {
 public:
  Region() = default;
  // A new region of `size` bytes (rounded up to pages), mapped for writing and sealed: nobody can shrink or grow it,
  // and nobody else can map it for writing. Pages cost memory only once touched. `fd()` is for handing to the other
  // side.
  static Result<Region> Create(const char* name, size_t size);
  // Maps the other side's region for reading. The size is what the descriptor says, at least `min_size`, and the seals
  // against shrinking must be set, so that reading it can't fault.
  static Result<Region> Open(UniqueFd fd, size_t min_size);
  Region(Region&& other) noexcept;
  Region& operator=(Region&& other) noexcept;
  ~Region();

  int fd() const { return fd_.get(); }
  size_t size() const { return size_; }
  std::byte* data() const { return data_; }  // not to be written to in an opened region

 private:
  UniqueFd fd_;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// A piece of an arena. A value: whoever holds it last gives it back with Free.
struct Slab {
  uint64_t offset = 0;         // in the region
  std::span<std::byte> bytes;  // as many as were asked for, aligned to a cache line
};

// Cuts slabs out of [begin, region.size()) of a region; `begin` is rounded up to a page. Not thread-safe.
//
// Small slabs (up to 32 KiB) come in classes of sizes, four to each power of two. They are cut from chunks of 8 to 64
// slabs of one class; a chunk whose slabs are all free again becomes free pages, but for the one that its class took
// from last. Large slabs are runs of pages. Free runs that touch are merged, and the lowest that is large enough is
// taken. What the arena knows about its slabs lies outside of the region, where the other side can't see it.
//
// Pages once touched stay in memory: the seal that keeps the other side from writing also forbids to give them back.
// So an arena costs its peak, and fresh pages are touched only when no free run of touched ones is large enough. How
// much that is, measured against the most bytes that were asked for and out at one time:
//  - rounding: at most 128 bytes a slab up to 512 bytes, a quarter above that, an eighth above 32 KiB; besides, a
//    chunk for each class in use, 2.1 MiB if all are;
//  - bursts of one size after another, beside a steady flow of other sizes: up to 1.2 times; 1.6 if a burst comes while
//    the one before it goes;
//  - full all the time, of random sizes from 100 bytes to 20 MB that go in random order: up to 1.8 times;
//  - the worst: sizes change again and again, and of each chunk or run a slab of the old size stays behind. Then each
//    change may cost its peak once more: 2.8 times for 10 kB, 3 kB, 5 MB, each burst coming as the one before goes in
//    random order. No allocator that can't move slabs escapes that; the end of the region is the bound.
class Arena {
 public:
  // `region` outlives the arena.
  Arena(const Region& region, size_t begin);

  // Nothing if no piece is free that is large enough. `size` may be 0.
  std::optional<Slab> Allocate(size_t size);
  // Gives back a slab by its offset; false if none begins there (then nothing happened).
  bool Free(uint64_t offset);

  // Bytes of the slabs that are out, as rounded up by the arena; and how many slabs.
  size_t used() const { return used_; }
  size_t slabs() const { return slabs_; }
  // Bytes from the lowest slab's place to the end of the highest page ever used: what the arena costs at most.
  size_t touched() const { return size_t{extents_.touched()} * kPage; }

 private:
  struct Chunk {
    uint64_t free = 0;   // a bit for each slab that is; slab i lies at begin + i * its class's size
    uint64_t begin = 0;  // offset in the region
    uint32_t size_class = 0;
    uint32_t next = 0;  // in a list; 0: none
    uint32_t previous = 0;
  };
  struct SizeClass {
    uint32_t current = 0;  // the chunk that slabs are taken from; in no list
    // The list of the others that have both free slabs and some that are out. The one that was full last comes first,
    // and so the emptiest, which may soon be free as a whole, are taken from last.
    uint32_t usable = 0;
  };
  static constexpr size_t kClasses = 4 * 7;

  Slab Take(uint32_t size_class, size_t size);
  std::optional<Slab> AllocateSmall(uint32_t size_class, size_t size);
  std::optional<Slab> AllocatePages(size_t size);
  std::optional<uint32_t> TakePages(uint32_t count);
  bool FindChunk(uint32_t size_class);
  bool AddChunk(uint32_t size_class);
  void ReleaseChunk(uint32_t id);
  bool ReleaseEmptyChunks();
  bool FreePages(uint64_t at, uint32_t count);
  void Link(uint32_t id);
  void Unlink(uint32_t id);

  const Region& region_;
  const size_t begin_;
  Extents extents_;
  size_t used_ = 0;
  size_t slabs_ = 0;
  std::array<SizeClass, kClasses> classes_;
  std::vector<Chunk> chunks_;  // by number; 0 stands for none and never has a free slab
  uint32_t unused_ = 0;        // the list of those records that are no chunk now
  // What each page below touched() is. 2n + 1: in chunk n. 2n: the first of n pages that are one slab. 0: neither.
  std::vector<uint32_t> pages_;
};

}  // namespace mindserve::link
