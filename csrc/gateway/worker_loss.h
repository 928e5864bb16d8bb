// That a worker is there no more: why, and what it was executing.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_set>

#include "base/execution.h"
#include "link/stats_region.h"

namespace mindserve::gateway {

// Read once for all I/O threads, when the loss is noticed.
struct WorkerLoss {
  // `stats`: the worker's.
  static WorkerLoss Of(std::string why, bool dead, const link::StatsReader& stats) {
    WorkerLoss loss{.why = std::move(why), .dead = dead, .executing = {}, .more = false};
    if (const auto hung = stats.HungStage()) loss.why = "stage '" + hung->name + "' did not finish within its timeout";
    for (const auto& stage : stats.Executing()) {
      if (!stage) {
        loss.more = true;
      } else {
        loss.executing.insert(stage->begin(), stage->end());
      }
    }
    return loss;
  }

  // Whether the worker was executing the call; `begun`: it is marked as begun.
  bool Executing(ExecutionTag tag, bool begun) const { return executing.contains(tag) || (more && begun); }

  std::string why = {};  // "its process ended"
  // Its process is surely over, so that what it had not begun it never will. Else it may go on for a while: it is
  // stopped, or about to be ended.
  bool dead = false;
  std::unordered_set<ExecutionTag> executing = {};  // empty for one that was detached in order: no request did that
  bool more = false;                                // it executed more than it could name
};

// What a call's listener is told.
struct LostCall {
  uint64_t worker = 0;
  bool begun = false;      // a stage may have begun with it
  bool executing = false;  // a stage was at it when the worker died
  const WorkerLoss& loss;
};

}  // namespace mindserve::gateway
