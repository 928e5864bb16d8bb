// What is served besides Predict's servables, as the gateway's threads share it.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "gateway/gateway.h"
#include "wire/descriptors.h"

namespace mindserve::gateway {

// Never changed once made.
struct Served {
  std::vector<ServiceSpec> services;  // the users'
  std::vector<std::string> names;     // of all services, the built-in ones too, sorted
  wire::DescriptorIndex descriptors;  // of both

  // Both descriptors: serialized FileDescriptorSets. INVALID_ARGUMENT as Gateway::SetServices says.
  static Result<std::shared_ptr<const Served>> Create(std::vector<ServiceSpec> services, std::string_view descriptors,
                                                      std::string_view built_in);
};

}  // namespace mindserve::gateway
