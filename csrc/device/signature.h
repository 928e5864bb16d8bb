// Holding what a client gave against what a model takes, before it enters a batch.
#pragma once

#include <cstddef>

#include "base/status.h"
#include "device/device.h"

namespace mindserve::device {

// Checks input `index` (0-based, also in the texts) of one instance against `spec`, from which the batch dimension has
// been taken where there is one. Static shape: type and byte size only, so that (1, 2) feeds (2,). Dynamic: rank and
// every fixed dimension. INVALID_ARGUMENT with the texts that MindSpore Serving's users match on:
//   "Given model input 1 data type kMSI_Int32 not match the data type kMSI_Float32 defined in model"
//   "Given model input 1 size 12 not match the size 8 defined in model"
//   "Given model input 1 shape (3, 4) not match the shape (-1, 2) defined in model"
Status CheckInput(const TensorSpec& spec, size_t index, const Tensor& value);

}  // namespace mindserve::device
