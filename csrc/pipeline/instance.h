// An instance on its way through a method, and the memory of all such.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "base/status.h"
#include "batching/item.h"
#include "batching/queue.h"
#include "pipeline/engine.h"
#include "pipeline/method_plan.h"

namespace mindserve::pipeline {

// Belongs to the runtime thread. While it is with a taker (a function or model thread), the taker has what it is as an
// Item, what the stage wants and whose it is, and the runtime thread leaves those alone.
struct Instance : batching::Item {
  size_t outputs_wanted = 0;  // of the stage it is in
  bool repeatable = true;     // as its method is idempotent

  std::shared_ptr<RequestContext> request;  // shared with the submitter and the request's other instances
  uint32_t index = 0;
  const MethodPlan* method = nullptr;
  size_t stage = 0;
  std::vector<Tensor> values;        // by place: see MethodPlan
  batching::Queue* queue = nullptr;  // where it waits, or out of which a taker has it

  // Its answer: once `done` nothing changes it, whatever a taker still brings.
  bool live = false;
  bool done = false;
  bool answered = false;
  Status status;
  std::vector<Tensor> outputs;
  Instance* next_done = nullptr;

  // The others of its request that are not answered.
  Instance* previous_sibling = nullptr;
  Instance* next_sibling = nullptr;
};

// Not thread-safe: the runtime thread's. What it gave out is alive as long as it is.
class InstancePool {
 public:
  // Blank, but with the memory that its vectors had. Throws std::bad_alloc.
  Instance& Get();
  void Put(Instance& instance);

  template <typename Visit>
  void ForEachLive(Visit visit) {
    for (Instance& instance : all_) {
      if (instance.live) visit(instance);
    }
  }

 private:
  std::deque<Instance> all_;
  Instance* free_ = nullptr;  // through next_done
};

}  // namespace mindserve::pipeline
