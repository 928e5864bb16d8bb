#include "link/extents.h"

#include <algorithm>
#include <bit>

namespace mindserve::link {

void Extents::SetLeaf(uint32_t page, uint32_t count) {
  size_t node = Leaves() + page;
  longest_[node] = count;
  while (node > 1) {
    node /= 2;
    const uint32_t longest = std::max(longest_[2 * node], longest_[2 * node + 1]);
    if (longest_[node] == longest) return;
    longest_[node] = longest;
  }
}

void Extents::SetFree(uint32_t first, uint32_t count) {
  free_until_[first + count - 1] = count;
  SetLeaf(first, count);
}

void Extents::Unset(uint32_t first, uint32_t count) {
  free_until_[first + count - 1] = 0;
  SetLeaf(first, 0);
}

std::optional<uint32_t> Extents::Take(uint32_t count) {
  if (longest_[1] < count) return std::nullopt;
  size_t node = 1;
  while (node < Leaves()) {
    node *= 2;
    if (longest_[node] < count) ++node;
  }
  const auto first = static_cast<uint32_t>(node - Leaves());
  const uint32_t free = longest_[node];
  if (free == count) {
    Unset(first, free);
  } else {
    SetLeaf(first, 0);
    SetFree(first + count, free - count);
  }
  return first;
}

std::optional<uint32_t> Extents::Grow(uint32_t count) {
  const uint32_t last = touched_ == 0 ? 0 : free_until_[touched_ - 1];
  const uint32_t first = touched_ - std::min(last, count);
  if (count > capacity_ - first) return std::nullopt;
  if (last > count) {
    free_until_[touched_ - 1] = 0;
    SetFree(touched_ - last, last - count);
  } else if (last > 0) {
    Unset(first, last);
  }
  TouchUpTo(first + count);
  return first;
}

void Extents::Release(uint32_t first, uint32_t count) {
  if (const uint32_t before = first == 0 ? 0 : free_until_[first - 1]; before > 0) {
    free_until_[first - 1] = 0;
    first -= before;
    count += before;
  }
  if (const uint32_t end = first + count; end < touched_) {
    if (const uint32_t after = FreeFrom(end); after > 0) {
      SetLeaf(end, 0);
      count += after;
    }
  }
  SetFree(first, count);
}

void Extents::TouchUpTo(uint32_t pages) {
  if (pages <= touched_) return;
  free_until_.resize(pages);
  touched_ = pages;
  if (pages <= Leaves()) return;
  // New leaves, and all that is above them.
  const auto leaves = std::bit_ceil(pages);
  std::vector<uint32_t> longest(2 * size_t{leaves});
  std::copy(longest_.begin() + Leaves(), longest_.end(), longest.begin() + leaves);
  for (size_t node = leaves - 1; node > 0; --node) longest[node] = std::max(longest[2 * node], longest[2 * node + 1]);
  longest_ = std::move(longest);
}

}  // namespace mindserve::link
