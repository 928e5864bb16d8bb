// A nested array of JSON as a tensor: the shape from the nesting, the type from the first element.
#pragma once

#include "base/status.h"
#include "wire/json_scalar.h"
#include "wire/json_syntax.h"

namespace mindserve::wire {

// Fills `tensor` from an array. Every row has to be as long as the first, every element of the first's type. Texts of
// MindSpore Serving are INVALID_ARGUMENT; what else may be wrong with well-formed arrays is OUT_OF_RANGE.
Status ReadArray(ondemand::value& value, JsonTensor* tensor);

}  // namespace mindserve::wire
