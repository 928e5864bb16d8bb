#include "tensor/shape.h"

#include <algorithm>

namespace mindserve {

Shape::Shape(std::span<const int64_t> dims) : rank_(dims.size()) {
  if (rank_ > kInline) {
    more_.assign(dims.begin(), dims.end());
  } else {
    std::copy(dims.begin(), dims.end(), inline_.begin());
  }
}

void Shape::push_back(int64_t dim) {
  if (rank_ == kInline) more_.assign(inline_.begin(), inline_.end());
  if (rank_ >= kInline) more_.push_back(dim);
  ++rank_;
  if (rank_ <= kInline) inline_[rank_ - 1] = dim;
}

std::optional<uint64_t> Shape::Elements() const {
  uint64_t product = 1;
  bool zero = false;
  for (int64_t dim : dims()) {
    if (dim < 0) return std::nullopt;
    // Zeros are left out of the product: a shape that overflows without them is none, wherever they stand (as in
    // numpy).
    if (dim == 0) {
      zero = true;
    } else if (__builtin_mul_overflow(product, static_cast<uint64_t>(dim), &product)) {
      return std::nullopt;
    }
  }
  return zero ? 0 : product;
}

Shape Shape::WithBatch(int64_t n) const {
  Shape batch;
  batch.push_back(n);
  for (int64_t dim : dims()) batch.push_back(dim);
  return batch;
}

Shape Shape::WithoutFirst() const {
  return Shape(dims().subspan(1));
}

std::string Shape::ToString() const {
  std::string text = "(";
  for (size_t i = 0; i < rank_; ++i) {
    if (i > 0) text += ", ";
    text += std::to_string((*this)[i]);
  }
  if (rank_ == 1) text += ",";
  return text + ")";
}

bool operator==(const Shape& a, const Shape& b) {
  return std::ranges::equal(a.dims(), b.dims());
}

}  // namespace mindserve
