// Path of an RPC -> the service that answers it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "gateway/call.h"

namespace mindserve::gateway {

// Looks strings up without making one.
struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};

template <typename T>
using StringMap = std::unordered_map<std::string, T, StringHash, std::equal_to<>>;

using ServiceTable = StringMap<std::unique_ptr<Service>>;

}  // namespace mindserve::gateway
