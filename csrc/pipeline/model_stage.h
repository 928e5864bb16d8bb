// A model and its queue: admits instances, runs batches, knows whose turn it is to run them.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/stage_stats.h"
#include "base/status.h"
#include "batching/gather.h"
#include "batching/queue.h"
#include "device/device.h"
#include "pipeline/engine.h"
#include "pipeline/mailbox.h"

namespace mindserve::pipeline {

// A model runs on the runtime thread while its runs take less than the first of these, and moves to a thread of its own
// above; there it stays until they take less than the second.
inline constexpr Duration kLongRun = std::chrono::microseconds(200);
inline constexpr Duration kShortRun = std::chrono::microseconds(100);

// How instances make a batch for this model, from its signature and the options. INVALID_ARGUMENT says what doesn't
// agree.
Result<batching::BatchLayout> FindLayout(const device::Model& model, const ModelOptions& options);

// At any time either the runtime thread or the stage's own has the turn to take from the queue and to run. The runtime
// thread gives it away with HandOver and gets it back by a Run that says so.
class ModelStage {
 public:
  // `time` and `mailbox` outlive the stage.
  static Result<std::unique_ptr<ModelStage>> Create(std::shared_ptr<device::Model> model, ModelOptions options,
                                                    const TimeSource& time, Mailbox& mailbox);
  ~ModelStage();  // ends the thread, after what it runs
  ModelStage(const ModelStage&) = delete;
  ModelStage& operator=(const ModelStage&) = delete;

  const std::string& name() const { return options_.name; }
  Duration timeout() const { return options_.timeout; }
  const device::Model& model() const { return *model_; }
  batching::Queue& queue() { return queue_; }
  // Where it counts. Changes only while nothing is queued.
  StageStats& stats() { return *stats_; }
  void CountIn(StageStats& stats) { stats_ = &stats; }

  // Checks one instance's inputs, and gives them the shapes that the model knows. As many as the model has inputs.
  Status Admit(std::span<Tensor> tensors) const;

  // Runs once on zeros, and a second time to measure if the first took long. FAILED_PRECONDITION: it has dynamic
  // dimensions, or failed in a way that other data may not. Other errors no data can mend.
  Status WarmUp();

  // Runs a batch: outputs take the place of the items' tensors. If that fails and it may be for one instance's sake, it
  // runs the halves, and their halves, until it is known whose: a model has no effect but its outputs, so that running
  // it again does no harm. At most twice as many runs as there are instances. OK: `failures` is empty, or has what
  // became of each. For who has the turn.
  Status RunBatch(std::span<batching::Item* const> items, std::vector<Status>* failures) noexcept;
  // Whether a run was measured and takes no longer than that on average. Never with a timeout, which the runtime thread
  // is to keep. For who has the turn.
  bool RunsWithin(Duration limit) const;

  // The rest is the runtime thread's.
  bool has_turn() const { return has_turn_; }
  // False if there can be no thread: the turn stays.
  bool HandOver();
  void TakeBack() { has_turn_ = true; }

 private:
  ModelStage(std::shared_ptr<device::Model> model, ModelOptions options, batching::BatchLayout layout,
             std::vector<device::TensorSpec> rows, batching::QueueOptions queue, const TimeSource& time,
             Mailbox& mailbox);

  Status RunCounted(std::span<batching::Item* const> items, TimePoint start) noexcept;
  void RunHalves(std::span<batching::Item* const> items, std::span<Status> failures) noexcept;
  Status Named(Status status) const noexcept;
  Status RunTimed(std::span<batching::Item* const> items, TimePoint start, Duration* took) noexcept;
  Status TryRun(std::span<batching::Item* const> items);
  bool ShapesAreTheInstances() const;
  void Measure(Duration run);
  void ThreadMain();
  // False: the stage ends.
  bool WaitForTurn();
  bool TakeAndRun();

  const std::shared_ptr<device::Model> model_;  // shared with whoever added it
  const ModelOptions options_;
  const batching::BatchLayout layout_;
  const std::vector<device::TensorSpec> rows_;  // what one instance gives for each input
  const TimeSource& time_;
  Mailbox& mailbox_;
  batching::Queue queue_;

  StageStats unread_;
  StageStats* stats_ = &unread_;

  // Of who has the turn.
  batching::BufferPool pool_;
  std::vector<Tensor> inputs_;
  Duration average_{0};
  bool measured_ = false;
  bool gave_outputs_ = false;  // the last run, whatever became of it: the model itself did its part

  // Of the runtime thread.
  bool has_turn_ = true;
  bool no_thread_ = false;  // one could not be started

  std::mutex mutex_;
  std::condition_variable changed_;
  bool thread_has_turn_ = false;  // guarded by mutex_
  bool stopping_ = false;         // guarded by mutex_
  std::thread thread_;            // started by the first HandOver
};

}  // namespace mindserve::pipeline
