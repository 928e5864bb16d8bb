// What a stage has done and does: a model, or a function with its batch size, in all methods that use it.
#pragma once

#include <cstdint>

#include "base/counter.h"
#include "base/execution.h"
#include "base/histogram.h"

namespace mindserve {

// Lies in memory that the master reads while the worker counts. The first group belongs to the thread that takes from
// the stage's queue, the second to the runtime's.
struct StageStats {
  Histogram batch_sizes;  // instances; its sum is how many were taken
  Histogram queue_ns;     // an instance's wait until it was taken
  Histogram run_ns;       // of a batch
  Execution execution;

  Counter failed;   // instances that the stage answered with an error
  Counter expired;  // instances whose deadline passed before they were taken
};

}  // namespace mindserve
