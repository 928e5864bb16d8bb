// What is served besides Predict's servables, as the gateway's threads share it.
#pragma once

#include <string>
#include <vector>

#include "gateway/gateway.h"

namespace mindserve::gateway {

// Never changed once made.
struct Served {
  std::vector<ServiceSpec> services;  // the users'
  std::string descriptors;
};

}  // namespace mindserve::gateway
