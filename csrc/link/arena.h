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

// Cuts slabs out of [begin, region.size()) of a region. Freed slabs are used again first, the last freed before others,
// so that the pages in use stay few and warm. Pages once touched stay in memory: the seal that keeps the other side
// from writing also forbids to give them back, so an arena costs its peak. Not thread-safe.
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

 private:
  // Slabs come in classes: multiples of kUnit up to four of them, then four steps to each power of two.
  static constexpr size_t kUnit = 256;
  static constexpr size_t kClasses = 4 * 32;
  static size_t ClassOf(size_t size);
  static size_t ClassSize(size_t size_class);

  std::optional<Slab> Take(size_t size_class, size_t size);

  const Region& region_;
  const size_t begin_;
  size_t next_;  // the part never yet cut
  size_t used_ = 0;
  size_t slabs_ = 0;
  std::array<std::vector<uint64_t>, kClasses> free_;  // offsets, by class
  std::vector<uint8_t>
      out_;  // by (offset - begin_) / kUnit: 1 + class of the slab that begins there and is out; 0: none
};

}  // namespace mindserve::link
