// Which pages of a region are taken: runs of them, found first-fit, merged with their neighbours when they come back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace mindserve::link {

// Pages 0 to capacity - 1. Only their numbers: the pages themselves are never looked at. Not thread-safe.
//
// First-fit from the lowest address on, since of the simple policies it wastes least: it leaves the free pages together
// at the upper end, and its worst case grows with the logarithm of the runs' sizes, where best-fit's grows with the
// sizes.
class Extents {
 public:
  explicit Extents(uint32_t capacity) : capacity_(capacity) {}

  // The first of `count` pages in a row, at least 1, all of them below touched(). O(log touched()).
  std::optional<uint32_t> Take(uint32_t count);
  // The same, at the end of the pages ever taken: as many new ones as are needed besides the free ones before them.
  // Nothing if that goes beyond the capacity. O(log touched()), amortised.
  std::optional<uint32_t> Grow(uint32_t count);
  // Gives pages back that were taken together. Whoever calls it has checked that they were.
  void Release(uint32_t first, uint32_t count);

  uint32_t capacity() const { return capacity_; }
  // The pages from 0 that were ever taken; the others are as the system gave them.
  uint32_t touched() const { return touched_; }

 private:
  uint32_t Leaves() const { return static_cast<uint32_t>(longest_.size() / 2); }
  uint32_t FreeFrom(uint32_t first) const { return longest_[Leaves() + first]; }
  void SetFree(uint32_t first, uint32_t count);
  void Unset(uint32_t first, uint32_t count);
  void SetLeaf(uint32_t page, uint32_t count);
  void TouchUpTo(uint32_t pages);

  const uint32_t capacity_;
  uint32_t touched_ = 0;
  // A complete binary tree, node 1 on top, the children of i in 2i and 2i + 1. A leaf is a page: how many free pages
  // the run has that begins there, 0 if none begins. Above: the largest of both children.
  std::vector<uint32_t> longest_ = std::vector<uint32_t>(2);
  // By a free run's last page: how many pages it has. 0 elsewhere.
  std::vector<uint32_t> free_until_;
};

}  // namespace mindserve::link
