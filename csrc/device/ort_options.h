// What a DeviceConfig means in ONNX Runtime's options, as text: nothing here calls the library.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "device/device.h"

namespace mindserve::device::ort {

// Where `threads` threads work on an operator, one of them Run's caller: the cores for each of the others, as
// session.intra_op_thread_affinities writes it (cores from 1, a comma between cores, a semicolon between threads).
// INVALID_ARGUMENT for a core that this process may not run on.
Result<std::string> AffinityText(const std::vector<int>& affinity, int threads);

// The options of the device's provider: the user's, the device id, and defaults of ours where the user gives none.
std::map<std::string, std::string> ProviderOptions(const DeviceConfig& config);

// What a device needs on the machine, and which package brings it.
std::string_view InstallHint(DeviceType type);

// "CPU", "GPU 0"
std::string DeviceText(const DeviceConfig& config);

}  // namespace mindserve::device::ort
