#include "link/arena.h"

#include <bit>

namespace mindserve::link {

size_t Arena::ClassSize(size_t size_class) {
  if (size_class < 4) return kUnit * (size_class + 1);
  const size_t base = (4 * kUnit) << (size_class / 4 - 1);
  return base + base / 4 * (size_class % 4 + 1);
}

size_t Arena::ClassOf(size_t size) {
  if (size <= 4 * kUnit) return size == 0 ? 0 : (size - 1) / kUnit;
  // The power of two below it, and how many quarters of that are needed on top.
  const size_t base = std::bit_floor(size - 1);
  const size_t quarters = (size - base + base / 4 - 1) / (base / 4);
  return 4 * static_cast<size_t>(std::countr_zero(base) - std::countr_zero(4 * kUnit)) + 3 + quarters;
}

Arena::Arena(const Region& region, size_t begin) : region_(region), begin_(begin), next_(begin) {}

std::optional<Slab> Arena::Take(size_t size_class, size_t size) {
  auto& list = free_[size_class];
  const uint64_t offset = list.back();
  list.pop_back();
  out_[(offset - begin_) / kUnit] = static_cast<uint8_t>(size_class + 1);
  used_ += ClassSize(size_class);
  ++slabs_;
  return Slab{offset, {region_.data() + offset, size}};
}

std::optional<Slab> Arena::Allocate(size_t size) {
  if (size > region_.size() - begin_) return std::nullopt;
  const size_t wanted = ClassOf(size);
  if (!free_[wanted].empty()) return Take(wanted, size);
  const size_t bytes = ClassSize(wanted);
  if (bytes <= region_.size() - next_) {
    const uint64_t offset = next_;
    next_ += bytes;
    const size_t units = (next_ - begin_) / kUnit;
    if (out_.size() < units) out_.resize(units);
    free_[wanted].push_back(offset);
    return Take(wanted, size);
  }
  for (size_t larger = wanted + 1; larger < kClasses; ++larger) {
    if (!free_[larger].empty()) return Take(larger, size);
  }
  if (slabs_ == 0 && next_ != begin_) {
    // Nothing is out, yet every free piece is too small: cut afresh.
    for (auto& list : free_) list.clear();
    next_ = begin_;
    return Allocate(size);
  }
  return std::nullopt;
}

bool Arena::Free(uint64_t offset) {
  if (offset < begin_ || (offset - begin_) % kUnit != 0) return false;
  const size_t unit = (offset - begin_) / kUnit;
  if (unit >= out_.size() || out_[unit] == 0) return false;
  const size_t size_class = out_[unit] - 1u;
  out_[unit] = 0;
  used_ -= ClassSize(size_class);
  --slabs_;
  free_[size_class].push_back(offset);
  return true;
}

}  // namespace mindserve::link
