// A method's wiring, checked and made ready to be walked.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/status.h"
#include "pipeline/method.h"

namespace mindserve::pipeline {

// What a stage may name, for checking: by index, the inputs and outputs that each model has, and how many functions
// there are.
struct ModelArity {
  size_t inputs;
  size_t outputs;
};
struct StageTargets {
  std::span<const ModelArity> models;
  size_t functions;
};

// A value's place in an instance: the method's inputs come first, then each stage's outputs in the order of stages.
struct ValueUse {
  size_t value;
  bool last;  // nobody after this one: it may be moved out
};

struct StagePlan {
  std::vector<ValueUse> inputs;
  size_t first_output;            // the place of output 0
  std::vector<bool> output_used;  // by somebody; as many as the stage gives
};

// A value; immutable once made.
struct MethodPlan {
  MethodSpec spec;
  std::vector<StagePlan> stages;
  std::vector<ValueUse> results;
  size_t values;  // how many places
};

// INVALID_ARGUMENT says the method, the stage, and what is wrong with which reference. Texts count from 0.
Result<MethodPlan> PlanMethod(MethodSpec spec, const StageTargets& targets);

}  // namespace mindserve::pipeline
