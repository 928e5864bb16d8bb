// Values written as JSON.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "tensor/tensor.h"

namespace mindserve::wire {

// In quotes. Bytes that are no UTF-8 become U+FFFD.
void AppendJsonString(std::string_view text, std::string* json);

// A scalar, or arrays in each other as deep as the shape says. A number is written with the fewest digits that read
// back as the same, in the type's own precision, one of a float type with a point or an exponent; NaN and the
// infinities are null, as they are with MindSpore Serving. Strings are strings, those that are no UTF-8, and bytes,
// {"b64": …}; a lone one of shape (1,) is a scalar. INVALID_ARGUMENT for a shape of very many empty arrays.
Status AppendJsonTensor(const Tensor& tensor, std::string* json);

}  // namespace mindserve::wire
