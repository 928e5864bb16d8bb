// The inside of FunctionBatch.
#pragma once

#include <memory>
#include <string>

#include "pipeline/engine.h"
#include "pipeline/mailbox.h"

namespace mindserve::pipeline {

// Whoever holds it has the batch; what becomes of it is posted at the latest when it goes.
struct FunctionBatch::State {
  State(std::shared_ptr<Shared> engine, std::string function) : shared(std::move(engine)), name(std::move(function)) {}
  ~State();

  const std::shared_ptr<Shared> shared;  // see Shared
  const std::string name;
  std::unique_ptr<Run> run;  // null: posted
};

}  // namespace mindserve::pipeline
