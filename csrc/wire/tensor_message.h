// The Tensor message of protos/ms_service.proto, read without copies.
#pragma once

#include <string_view>

#include "base/status.h"
#include "tensor/tensor.h"

namespace mindserve::wire {

// A view of the tensor that `message` is; it holds `owner`. INVALID_ARGUMENT for an unknown data type, or a shape that
// the bytes don't fit. Throws protozero::exception if the bytes don't parse.
Result<Tensor> ReadTensor(std::string_view message, const TensorOwner& owner);

}  // namespace mindserve::wire
