// ONNX Runtime as an engine, through the C ABI of whichever wheel is installed (onnxruntime, onnxruntime-gpu,
// onnxruntime-cann): the library is opened with dlopen, no header of it is needed.
#pragma once

#include <memory>
#include <string>

#include "device/device.h"

namespace mindserve::device {

// Opens the shared library at `library` (…/onnxruntime/capi/libonnxruntime.so.*). Sets ORT_DISABLE_TELEMETRY=1 before
// it is loaded, so call it before other threads read the environment. The library stays loaded until the process ends.
// Errors: FAILED_PRECONDITION if it can't be loaded or is older than 1.16.
Result<std::unique_ptr<Engine>> OpenOnnxRuntime(const std::string& library);

}  // namespace mindserve::device
