#include "device/device.h"

namespace mindserve::device {

std::string_view DeviceTypeName(DeviceType type) {
  switch (type) {
    case DeviceType::kCpu:
      return "CPU";
    case DeviceType::kGpu:
      return "GPU";
    case DeviceType::kAscend:
      return "Ascend";
  }
  return "unknown";
}

}  // namespace mindserve::device
