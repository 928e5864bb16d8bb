// Values of JSON that are no array, as tensors: numbers, bools, strings, and objects that hold base64.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/status.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"
#include "wire/json_syntax.h"

namespace mindserve::wire {

// The dimensions that numpy can hold.
inline constexpr size_t kMaxJsonRank = 32;

// What a value became. Its bytes are those of Tensor.data, or, of the types with elements of their own length, the one
// element there may be.
struct JsonTensor {
  DType dtype = DType::kUnknown;
  Shape shape;
  std::string bytes;
};

// The type that a number, bool or string becomes; kUnknown for all else.
DType TypeOf(JsonKind kind);
// A type that such values become, as users name it: "int32".
std::string_view NameOf(DType dtype);

// Fills `tensor` from anything but an array. Texts of MindSpore Serving are INVALID_ARGUMENT.
Status ReadScalar(ondemand::value& value, JsonTensor* tensor);

// That a text's shape, which has one element, is one that texts may have.
Status CheckTextShape(const Shape& shape);

}  // namespace mindserve::wire
