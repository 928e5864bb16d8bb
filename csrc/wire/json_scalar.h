// Values of JSON that are no array, as tensors: numbers, bools, strings, and objects that hold base64.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "base/status.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"
#include "wire/json_syntax.h"

namespace mindserve::wire {

// What a value became. Its bytes are those of Tensor.data, or, of the types with elements of their own length, the one
// element there may be.
struct JsonTensor {
  DType dtype = DType::kUnknown;
  Shape shape;
  std::string bytes;
};

// A number without fraction that fits; what else fails is for Mismatch to tell.
inline bool ReadInt32(ondemand::value& value, int32_t* number) {
  int64_t wide;
  if (value.get_int64().get(wide) != simdjson::SUCCESS) return false;
  *number = static_cast<int32_t>(wide);
  return *number == wide;
}

// A number with a fraction or an exponent whose nearest float is finite.
inline bool ReadFloat32(ondemand::value& value, float* number) {
  ondemand::number wide;
  if (value.get_number().get(wide) != simdjson::SUCCESS) return false;
  if (wide.get_number_type() != ondemand::number_type::floating_point_number) return false;
  *number = static_cast<float>(wide.get_double());
  return std::isfinite(*number);
}

// The type that a number, bool or string becomes; kUnknown for all else.
DType TypeOf(JsonKind kind);
// A type that such values become, as users name it: "int32".
std::string_view NameOf(DType dtype);

// Fills `tensor` from anything but an array. Texts of MindSpore Serving are INVALID_ARGUMENT.
Status ReadScalar(ondemand::value& value, JsonTensor* tensor);

// That a text's shape, which has one element, is one that texts may have.
Status CheckTextShape(const Shape& shape);

}  // namespace mindserve::wire
