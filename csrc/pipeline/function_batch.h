// The inside of FunctionBatch.
#pragma once

#include <memory>
#include <string>

#include "pipeline/engine_state.h"
#include "pipeline/mailbox.h"

namespace mindserve::pipeline {

// Whoever holds it has the batch; what becomes of it is posted at the latest when it goes.
struct FunctionBatch::State {
  State(std::shared_ptr<Shared> engine, FunctionStage& stage, TimePoint now)
      : shared(std::move(engine)),
        time(stage.time),
        name(stage.options.name),
        queue(stage.queue),
        stats(*stage.stats),
        taken_at(now) {}
  ~State();

  const std::shared_ptr<Shared> shared;  // see Shared
  const TimeSource& time;
  const std::string name;
  // Only while the engine lives.
  batching::Queue& queue;
  StageStats& stats;
  const TimePoint taken_at;
  std::unique_ptr<Run> run;  // null: posted
};

}  // namespace mindserve::pipeline
