#include "device/ort_options.h"

#include <sched.h>

namespace mindserve::device::ort {

Result<std::string> AffinityText(const std::vector<int>& affinity, int threads) {
  cpu_set_t allowed;
  // Fails on machines with more cores than a cpu_set_t holds; then the engine judges.
  const bool known = sched_getaffinity(0, sizeof(allowed), &allowed) == 0;
  std::string cores;
  for (int core : affinity) {
    if (core < 0 || (known && (core >= CPU_SETSIZE || !CPU_ISSET(static_cast<size_t>(core), &allowed)))) {
      return Status(Code::kInvalidArgument,
                    "the thread affinity names core " + std::to_string(core) + ", which this process may not run on");
    }
    cores += (cores.empty() ? "" : ",") + std::to_string(core + 1);
  }
  std::string text;
  for (int i = 1; i < threads; ++i) text += (i > 1 ? ";" : "") + cores;
  return text;
}

std::map<std::string, std::string> ProviderOptions(const DeviceConfig& config) {
  std::map<std::string, std::string> options = config.provider_options;
  options["device_id"] = std::to_string(config.device_id);
  if (config.type == DeviceType::kGpu) {
    // The engine's default tries out every algorithm for each new shape: the first batch of each size would stall.
    options.try_emplace("cudnn_conv_algo_search", "HEURISTIC");
  }
  if (config.type == DeviceType::kAscend && config.fp16) options.try_emplace("precision_mode", "force_fp16");
  return options;
}

std::string_view InstallHint(DeviceType type) {
  switch (type) {
    case DeviceType::kGpu:
      return "GPU needs an NVIDIA driver, and `pip install onnxruntime-gpu[cuda,cudnn]` in place of any other "
             "onnxruntime";
    case DeviceType::kAscend:
      return "Ascend needs its driver, the CANN toolkit, and `pip install onnxruntime-cann` in place of any other "
             "onnxruntime";
    case DeviceType::kCpu:
      break;
  }
  return "CPU needs `pip install onnxruntime`";
}

std::string DeviceText(const DeviceConfig& config) {
  std::string text(DeviceTypeName(config.type));
  if (config.type != DeviceType::kCpu) text += " " + std::to_string(config.device_id);
  return text;
}

}  // namespace mindserve::device::ort
