// A method: a small graph of stages, as a value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace mindserve::pipeline {

// A value that flows in a method: one of the method's inputs, or an output of an earlier stage.
struct ValueRef {
  static constexpr int kMethodInput = -1;
  int stage = kMethodInput;  // index of the stage that made it
  int index = 0;             // which of its outputs, or which method input
  friend bool operator==(const ValueRef&, const ValueRef&) = default;
};

struct StageSpec {
  enum class Kind : uint8_t { kFunction, kModel };
  Kind kind = Kind::kFunction;
  int target = 0;  // what Engine::AddFunction or Engine::AddModel returned
  std::vector<ValueRef> inputs;
  int outputs_count = 1;
  std::string tag;  // put before the errors of this stage: "Preprocess Failed"; may be empty
};

struct MethodSpec {
  std::string name;
  std::vector<std::string> inputs;   // names, in slot order
  std::vector<std::string> outputs;  // names, in the order of results
  std::vector<StageSpec> stages;     // run in this order, for each instance by itself
  std::vector<ValueRef> results;     // a result may be a method input
  bool idempotent = true;            // an instance's functions may be called again for it
};

}  // namespace mindserve::pipeline
