#include "device/signature.h"

#include <algorithm>
#include <optional>
#include <string>

namespace mindserve::device {
namespace {

Status Refused(size_t index, const std::string& what) {
  return {Code::kInvalidArgument, "Given model input " + std::to_string(index) + " " + what};
}

// Sizes are bytes, or elements for string and bytes.
std::optional<uint64_t> StaticSize(const TensorSpec& spec) {
  const auto elements = spec.shape.Elements();
  if (!elements || IsText(spec.dtype)) return elements;
  const auto bytes = ByteSize(spec.dtype, spec.shape);
  if (!bytes.ok()) return std::nullopt;
  return *bytes;
}

bool Fits(const Shape& given, const Shape& wanted) {
  return std::ranges::equal(given.dims(), wanted.dims(), [](int64_t a, int64_t b) { return b < 0 || a == b; });
}

// A byte that is neither 0 nor 1 is no C++ bool: what a kernel would do with it is undefined.
bool HasBadBool(std::span<const std::byte> bytes) {
  std::byte seen{0};
  for (std::byte b : bytes) seen |= b;
  return (seen & ~std::byte{1}) != std::byte{0};
}

}  // namespace

Status CheckInput(const TensorSpec& spec, size_t index, const Tensor& value) {
  if (value.dtype() != spec.dtype) {
    return Refused(index, "data type " + std::string(Info(value.dtype()).name) + " not match the data type " +
                              std::string(Info(spec.dtype).name) + " defined in model");
  }
  if (spec.ranked && value.shape() != spec.shape) {
    if (const auto size = StaticSize(spec)) {
      const uint64_t given = IsText(spec.dtype) ? value.elements().size() : value.data().size();
      if (given != *size) {
        return Refused(index, "size " + std::to_string(given) + " not match the size " + std::to_string(*size) +
                                  " defined in model");
      }
    } else if (!Fits(value.shape(), spec.shape)) {
      return Refused(index, "shape " + value.shape().ToString() + " not match the shape " + spec.shape.ToString() +
                                " defined in model");
    }
  }
  if (spec.dtype == DType::kBool && HasBadBool(value.data())) {
    return Refused(index, "has a bool that is neither 0 nor 1");
  }
  return {};
}

}  // namespace mindserve::device
