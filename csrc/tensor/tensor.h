// A tensor: type, shape, and a view of the bytes somebody owns.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace mindserve {

// What keeps the bytes of a view alive: a request's slab in shared memory, a model's output, a numpy array, a Buffer.
// Shared by every tensor that looks at them; the last one frees. Dropping it may happen on any thread.
using TensorOwner = std::shared_ptr<const void>;

// Alignment of every buffer that MindServe allocates for elements (a cache line, and what AVX-512 loads like).
inline constexpr size_t kBufferAlignment = 64;

// A value, cheap to copy; its bytes are never written through it. Row-major, little-endian. Two forms:
//  - numeric and bool types: data() holds Elements() * Info(dtype()).size bytes. They may be unaligned when they are a
//    view into a protobuf message: see aligned();
//  - string and bytes: elements() holds one view an element; data() is empty.
class Tensor {
 public:
  Tensor() = default;  // dtype kUnknown: "no value"

  // A view of `data`, whose size must be what dtype and shape say (checked: INVALID_ARGUMENT).
  static Result<Tensor> View(DType dtype, Shape shape, std::span<const std::byte> data, TensorOwner owner);

  // Whether so many text elements are what dtype and shape say; else what is wrong (INVALID_ARGUMENT).
  static Status CheckElements(DType dtype, const Shape& shape, size_t elements);
  // A view of string or bytes elements, as many as the shape says (checked).
  static Result<Tensor> TextView(DType dtype, Shape shape, std::vector<std::string_view> elements, TensorOwner owner);

  // An owned tensor with aligned bytes for the caller to fill through `bytes`, which is valid as long as the tensor or
  // a copy of it lives. Numeric and bool types only. Not initialised.
  static Result<Tensor> Allocate(DType dtype, Shape shape, std::span<std::byte>* bytes);

  // An owned tensor of one string or bytes element, shape (1,).
  static Tensor Text(DType dtype, std::string value);

  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  std::span<const std::byte> data() const { return data_; }
  std::span<const std::string_view> elements() const { return elements_; }
  const TensorOwner& owner() const { return owner_; }
  explicit operator bool() const { return dtype_ != DType::kUnknown; }

  // Whether data() may be read as elements in place (always so for owned tensors and for types of one byte).
  bool aligned() const;

  // This tensor if it is aligned, else an owned copy that is.
  Tensor Aligned() const;

  // The same bytes under another shape of as many elements (checked).
  Result<Tensor> Reshaped(Shape shape) const;

  // Rows [begin, begin+count) of the first dimension, as a view with the same owner. Needs rank >= 1 and the rows to
  // exist.
  Tensor Rows(int64_t begin, int64_t count) const;

  // "kMSI_Float32 (2, 2)"
  std::string Describe() const;

 private:
  DType dtype_ = DType::kUnknown;
  Shape shape_;
  std::span<const std::byte> data_;
  std::vector<std::string_view> elements_;
  TensorOwner owner_;
};

// Elements * size without overflow; INVALID_ARGUMENT for negative dimensions, overflow, or a type without a fixed size.
Result<size_t> ByteSize(DType dtype, const Shape& shape);

}  // namespace mindserve
