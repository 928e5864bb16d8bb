// A Predict request in JSON: {"instances": [{input: value, …}, …]}. docs/rest_values.md has what values become.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace mindserve::wire {

// Where the URL says that a request goes.
struct JsonRoute {
  std::string_view servable;
  std::string_view method;
  uint64_t version = 0;  // 0: the newest
};

// A PredictRequest (wire/predict.h) of what stands in `body`. Memory: at most about ten times the body, for a body of
// numbers of one digit; two to three times for other numbers. Where it is not one:
// INVALID_ARGUMENT with a text that MindSpore Serving's users know;
// OUT_OF_RANGE where MindSpore Serving has none: numbers that don't fit their type, too deep nesting, a name twice;
// RESOURCE_EXHAUSTED if there is no memory.
Result<std::string> PredictRequestFromJson(std::string_view body, const JsonRoute& route);

}  // namespace mindserve::wire
