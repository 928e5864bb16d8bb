// The inside of Engine.
#pragma once

#include <algorithm>
#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/stage_stats.h"
#include "batching/queue.h"
#include "pipeline/engine.h"
#include "pipeline/instance.h"
#include "pipeline/local_calls.h"
#include "pipeline/mailbox.h"
#include "pipeline/method_plan.h"
#include "pipeline/model_stage.h"

namespace mindserve::pipeline {

// Answers that are made when memory may be short: no text of theirs needs an allocation.
inline Status OutOfMemory() {
  return {Code::kResourceExhausted, "out of memory"};
}
inline Status Cancelled() {
  return {Code::kCancelled, "cancelled"};
}
inline Status Stopping() {
  return {Code::kUnavailable, "worker stopping"};
}

// While a request is executed alone, or is about to be: how long all stages wait for one, the first time; and calls
// that it may be waiting for.
inline constexpr Duration kAlonePatience = std::chrono::milliseconds(500);

struct FunctionStage {
  FunctionStage(const TimeSource& source, FunctionOptions given)
      : time(source),
        options(std::move(given)),
        queue(time, {.max_batch_size = std::max<size_t>(options.max_batch_size, 1),
                     .max_queue_delay = options.max_queue_delay,
                     .key = options.same_shapes ? std::optional(batching::BatchKey({})) : std::nullopt,
                     .turn = options.turn}) {}
  const TimeSource& time;
  const FunctionOptions options;
  batching::Queue queue;
  bool pushed = false;  // since takers were last told; the runtime thread's
  StageStats unread;
  StageStats* stats = &unread;  // changes only while nothing is submitted
};

struct ModelSlot {
  std::unique_ptr<ModelStage> stage;
  // The runtime thread's: whether there may be something to take, or its taker is to be told; and when to look although
  // nothing was pushed.
  bool pushed = false;
  TimePoint look_again = kNever;
};

// A request that is to be executed alone, and its instances that have not begun, the first first.
struct AloneRequest {
  std::shared_ptr<RequestContext> request;  // shared with its instances
  batching::ItemList held;
};

struct Engine::State {
  State(const TimeSource& source, std::function<void()> wake)
      : time(source), shared(std::make_shared<Shared>(std::move(wake))) {}

  Result<int> Add(MethodSpec spec);

  // The way of an instance.
  void Submit(int method, std::shared_ptr<RequestContext> request, uint32_t index, std::span<Tensor> inputs);
  void Begin(Instance& instance, int method, std::span<Tensor> inputs);
  void Advance(Instance& instance);
  void EnterStage(Instance& instance);
  // Whether the function is executing a request that waits for this one, which would wait for ever then.
  static bool WaitsForItself(const RequestContext& request, const FunctionStage& function);
  void FinishMethod(Instance& instance);
  void Accept(Instance& instance);
  void Done(Instance& instance, Status status);
  void Deliver();
  void Cancel(RequestContext& request);

  // What comes back from takers.
  void CollectMail();
  void Finish(Run& run);
  Status TakeResult(Run& run, size_t i, Instance& instance);
  bool Returned(Instance& instance);
  void FailTaken(batching::ItemList items, const Status& status);
  void Expire(batching::ItemList items);
  void DoneExpired(Instance& instance);

  void FailAll();

  // Calls from inside the process: engine_local.cc.
  void TakeCalls(Mailbox::Mail& mail);
  void SubmitCalls();
  bool Passes(const RequestContext& request) const;
  void PassPauses(const RequestContext& request);
  void PassAllPauses();
  TimePoint CallsPatienceEnds() const;
  void LetCallsPass();

  // Requests that are executed alone: engine_alone.cc.
  void Hold(Instance& instance);
  void StepAlone();
  void Open();
  batching::ItemList LeaveLine(const RequestContext& request);
  TimePoint ExpireAlone();
  void Close();
  void ResumeIdle();
  bool RoundOver() const;
  bool Quiet() const;
  bool PausedAreQuiet() const;
  TimePoint PatienceEnds() const;
  template <typename Visit>
  void ForEachQueue(Visit visit) const {
    for (const ModelSlot& model : models) visit(model.stage->queue());
    for (const auto& function : functions) visit(function->queue);
  }

  // What moves it all: engine.cc.
  TimePoint Poll();
  TimePoint RunModels();
  void RunHere(ModelStage& stage, batching::ItemList batch);
  TimePoint DropExpired();
  void Announce();
  void Stop();
  bool has_more() const;

  const StageSpec& StageOf(const Instance& instance) const { return instance.method->spec.stages[instance.stage]; }
  std::string NameOf(const StageSpec& stage) const;
  StageStats& StatsOf(const StageSpec& stage) const;
  batching::Queue& QueueOf(const StageSpec& stage) const;

  const TimeSource& time;
  const std::shared_ptr<Shared> shared;  // see Shared
  std::deque<MethodPlan> methods;
  std::optional<size_t> first_local;  // of the methods that only local calls are made of, which are the last
  std::vector<ModelArity> arities;

  // Guards the two lists against Stop and NextBatch while set-up adds to them; the runtime thread, which is the only
  // one that adds, reads them without it.
  std::mutex set_up;
  std::vector<ModelSlot> models;
  std::vector<std::unique_ptr<FunctionStage>> functions;
  std::atomic<bool> stopped{false};

  // The runtime thread's.
  Instance* first_done = nullptr;  // answers not yet handed out, oldest first
  Instance* last_done = nullptr;
  TimePoint now;                  // read now and then: close enough for arrivals
  TimePoint may_expire = kNever;  // nothing that is queued does before
  Run run_here;                   // for models that run on this thread

  // Of what goes alone: the line, how far its first is, and, by queue, the batches taken when others last went on.
  enum class Alone : uint8_t {
    kNone,
    kClosing,  // all queues are paused; takers are to bring back what they have
    kWaiting,  // some take long over that: only their queues are paused
    kRunning,
    kEnding,  // it was cancelled, or is late, and a taker still has one of its instances: for a while all wait for it
  };
  std::deque<AloneRequest> alone;
  Alone alone_phase = Alone::kNone;
  TimePoint waits_since;  // in kClosing, kRunning and kEnding: for a taker
  Duration patience{0};   // of the present kClosing
  std::vector<uint64_t> round_began;

  LocalCalls calls;
  bool takes_calls = false;

  std::atomic<size_t> in_flight{0};  // others may look
};

}  // namespace mindserve::pipeline
