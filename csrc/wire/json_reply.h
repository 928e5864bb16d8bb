// A Predict reply as JSON: {"instances": [{output: value, …}, {"error_msg": text}, …]}, or {"error_msg": text}.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "base/status.h"

namespace mindserve::wire {

// `reply` is a PredictReply (wire/predict.h). Values: wire/json_text.h; a result that can't be written becomes its
// instance's error. INTERNAL if the bytes are no such reply.
Result<std::string> PredictReplyToJson(std::span<const std::byte> reply);

}  // namespace mindserve::wire
