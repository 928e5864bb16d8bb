// The dimensions of a tensor.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace mindserve {

// A value; up to six dimensions without an allocation. Dimensions are >= 0 in a tensor; in a model's signature -1 is a
// dynamic one. An empty shape is a scalar.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) : Shape(std::span<const int64_t>(dims.begin(), dims.size())) {}
  explicit Shape(std::span<const int64_t> dims);

  size_t rank() const { return rank_; }
  std::span<const int64_t> dims() const { return {data(), rank_}; }
  int64_t operator[](size_t i) const { return data()[i]; }
  void set(size_t i, int64_t dim) { data()[i] = dim; }
  void push_back(int64_t dim);

  // The product of the dimensions (1 for a scalar, 0 if one is 0); nothing if a dimension is negative, or if the
  // product of those that aren't 0 overflows.
  std::optional<uint64_t> Elements() const;

  // The shape of a batch of `n` of these, and of one row of such a batch. WithoutFirst() needs rank() >= 1.
  Shape WithBatch(int64_t n) const;
  Shape WithoutFirst() const;

  // "(2, 2)", "(3,)", "()" - as numpy writes it.
  std::string ToString() const;

  friend bool operator==(const Shape& a, const Shape& b);

 private:
  static constexpr size_t kInline = 6;
  int64_t* data() { return rank_ <= kInline ? inline_.data() : more_.data(); }
  const int64_t* data() const { return rank_ <= kInline ? inline_.data() : more_.data(); }

  size_t rank_ = 0;
  std::array<int64_t, kInline> inline_{};
  std::vector<int64_t> more_;  // all dimensions, when there are more than kInline
};

}  // namespace mindserve
