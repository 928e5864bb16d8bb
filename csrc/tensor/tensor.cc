#include "tensor/tensor.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>

namespace mindserve {
namespace {

Status SizeMismatch(DType dtype, const Shape& shape, size_t given, size_t expected, std::string_view unit) {
  return {Code::kInvalidArgument, "a " + std::string(Info(dtype).name) + " tensor of shape " + shape.ToString() +
                                      " needs " + std::to_string(expected) + " " + std::string(unit) + ", given " +
                                      std::to_string(given)};
}

}  // namespace

Result<size_t> ByteSize(DType dtype, const Shape& shape) {
  const size_t element = Info(dtype).size;
  if (element == 0) {
    return Status(Code::kInvalidArgument, std::string(Info(dtype).name) + " has no fixed element size");
  }
  const auto elements = shape.Elements();
  uint64_t bytes = 0;
  if (!elements || __builtin_mul_overflow(*elements, static_cast<uint64_t>(element), &bytes) ||
      bytes > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return Status(Code::kInvalidArgument, "the shape " + shape.ToString() + " is not one that a tensor can have");
  }
  return static_cast<size_t>(bytes);
}

Result<Tensor> Tensor::View(DType dtype, Shape shape, std::span<const std::byte> data, TensorOwner owner) {
  auto bytes = ByteSize(dtype, shape);
  if (!bytes.ok()) return bytes.status();
  if (*bytes != data.size()) return SizeMismatch(dtype, shape, data.size(), *bytes, "bytes");
  Tensor tensor;
  tensor.dtype_ = dtype;
  tensor.shape_ = std::move(shape);
  tensor.data_ = data;
  tensor.owner_ = std::move(owner);
  return tensor;
}

Status Tensor::CheckElements(DType dtype, const Shape& shape, size_t elements) {
  if (!IsText(dtype)) {
    return Status(Code::kInvalidArgument, std::string(Info(dtype).name) + " has no text elements");
  }
  const auto count = shape.Elements();
  if (!count) {
    return Status(Code::kInvalidArgument, "the shape " + shape.ToString() + " is not one that a tensor can have");
  }
  if (*count != elements) return SizeMismatch(dtype, shape, elements, *count, "elements");
  return {};
}

Result<Tensor> Tensor::TextView(DType dtype, Shape shape, std::vector<std::string_view> elements, TensorOwner owner) {
  MS_RETURN_IF_ERROR(CheckElements(dtype, shape, elements.size()));
  Tensor tensor;
  tensor.dtype_ = dtype;
  tensor.shape_ = std::move(shape);
  tensor.elements_ = std::move(elements);
  tensor.owner_ = std::move(owner);
  return tensor;
}

Result<Tensor> Tensor::Allocate(DType dtype, Shape shape, std::span<std::byte>* bytes) {
  auto size = ByteSize(dtype, shape);
  if (!size.ok()) return size.status();
  void* memory = ::operator new(std::max<size_t>(*size, 1), std::align_val_t(kBufferAlignment), std::nothrow);
  if (memory == nullptr) {
    return Status(Code::kResourceExhausted, "no memory for a tensor of " + std::to_string(*size) + " bytes");
  }
  TensorOwner owner(memory, [](void* p) { ::operator delete(p, std::align_val_t(kBufferAlignment)); });
  *bytes = {static_cast<std::byte*>(memory), *size};
  return View(dtype, std::move(shape), *bytes, std::move(owner));
}

Tensor Tensor::Text(DType dtype, std::string value) {
  auto text = std::make_shared<const std::string>(std::move(value));
  Tensor tensor;
  tensor.dtype_ = dtype;
  tensor.shape_ = Shape{1};
  tensor.elements_ = {std::string_view(*text)};
  tensor.owner_ = std::move(text);
  return tensor;
}

bool Tensor::aligned() const {
  const size_t size = Info(dtype_).size;
  return size <= 1 || reinterpret_cast<uintptr_t>(data_.data()) % size == 0;
}

Tensor Tensor::Aligned() const {
  if (aligned()) return *this;
  std::span<std::byte> bytes;
  auto copy = Allocate(dtype_, shape_, &bytes);
  if (!copy.ok()) throw std::bad_alloc();
  std::memcpy(bytes.data(), data_.data(), data_.size());
  return *std::move(copy);
}

Result<Tensor> Tensor::Reshaped(Shape shape) const {
  if (IsText(dtype_)) return TextView(dtype_, std::move(shape), elements_, owner_);
  return View(dtype_, std::move(shape), data_, owner_);
}

Tensor Tensor::Rows(int64_t begin, int64_t count) const {
  Tensor rows = *this;
  const auto total = static_cast<size_t>(shape_[0]);
  const auto first = static_cast<size_t>(begin);
  const auto wanted = static_cast<size_t>(count);
  rows.shape_.set(0, count);
  if (IsText(dtype_)) {
    const size_t row = total == 0 ? 0 : elements_.size() / total;
    rows.elements_.assign(elements_.begin() + static_cast<ptrdiff_t>(first * row),
                          elements_.begin() + static_cast<ptrdiff_t>((first + wanted) * row));
  } else {
    const size_t row = total == 0 ? 0 : data_.size() / total;
    rows.data_ = data_.subspan(first * row, wanted * row);
  }
  return rows;
}

std::string Tensor::Describe() const {
  return std::string(Info(dtype_).name) + " " + shape_.ToString();
}

}  // namespace mindserve
