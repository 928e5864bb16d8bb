// Walks instances through their methods' stages, batching where stages want batches.
//
// Threads. The runtime thread adds models, functions and methods, then calls Submit, Cancel and Poll; everything about
// an instance's way through its graph happens there. Function threads call NextBatch and Complete. Any thread calls
// Start, for instances of its own. A model runs on the runtime thread inside Poll while its runs are short, else on a
// thread of its own: a handoff costs more than a small model.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/execution.h"
#include "base/request_key.h"
#include "base/stage_stats.h"
#include "base/status.h"
#include "device/device.h"
#include "pipeline/method.h"
#include "tensor/tensor.h"

namespace mindserve::pipeline {

struct ModelOptions {
  std::string name = {};       // for messages: the file's name
  bool with_batch_dim = true;  // the first dimension of inputs and outputs is the batch's
  std::vector<size_t> without_batch_dim_inputs =
      {};                       // inputs that have none all the same; their values must be equal to share a batch
  size_t max_batch_size = 32;   // for a dynamic first dimension; a fixed one says it itself
  Duration max_queue_delay{0};  // how long the oldest may wait for a fuller batch; 0: batch what is there
  Duration timeout{0};          // a run that takes longer hangs; 0: none does. With one, it runs on its own thread
};

struct FunctionOptions {
  std::string name = {};       // for messages: "servable.func"
  size_t max_batch_size = 32;  // instances handed over at a time
  Duration max_queue_delay{0};
  bool same_shapes = false;  // those handed over together have inputs of the same types and shapes
  Duration turn{0};          // hand over as many as about this suffices for, at least one; 0: max_batch_size
  Duration timeout{0};       // a call that takes longer hangs; 0: none does
};

// Instances for a function stage, handed to the function thread that runs them. Must be given back to Complete,
// whatever happens; destroyed without that, its instances fail.
class FunctionBatch;

// The outcome of one instance in a function stage: outputs, or what went wrong.
using FunctionResult = Result<std::vector<Tensor>>;

// Where the results of a request's instances go. Called on the runtime thread, once for each instance.
class ResultSink {
 public:
  virtual ~ResultSink() = default;
  // `status` OK: `outputs` are the method's results in order. Otherwise what was wrong: INVALID_ARGUMENT for the
  // instance's own fault, DEADLINE_EXCEEDED, CANCELLED, INTERNAL for a stage or model that failed.
  // The outputs are the sink's to move from, until it returns.
  virtual void InstanceDone(uint32_t index, Status status, std::span<Tensor> outputs) = 0;
};

struct Instance;
class LocalCall;

// What stage functions that call other servables, and log lines, tell of a request.
struct RequestOrigin {
  std::string request_id = {};
  uint32_t depth = 0;                      // of how many calls within calls of servables it is the innermost
  std::vector<ExecutionTag> callers = {};  // the calls that wait for it, the innermost first
  ExecutionTag call = 0;                   // of a local call: what it is made for; 0: nothing that is known
};

// What is the same for all instances of a request.
struct RequestContext {
  uint64_t client = 0;          // whose turn it takes in the queues: the connection
  TimePoint deadline = kNever;  // expired instances are dropped before they cost
  ResultSink* sink = nullptr;   // lives until each of its instances is done
  ExecutionMark mark;           // by which stages note that they execute it; valid as long as what they count in
  bool alone = false;           // nothing else is executed while its instances are, one after the other
  bool passes_pauses = false;   // what is paused waits for it: it is executed all the same
  // Nobody waits for it: set by the runtime thread through Engine::Cancel. Others may look.
  std::atomic<bool> cancelled{false};
  std::shared_ptr<const RequestOrigin> origin;  // null: nothing is known; shared with whoever speaks of the request
  RequestKey key;                               // its id is made of this if `origin` has none
  Instance* instances = nullptr;                // the engine's: those not done yet
};

class Engine {
 public:
  // `wake` is called, from any thread, when Poll has something to do; `time` outlives the engine.
  Engine(const TimeSource& time, std::function<void()> wake);
  // Stops; what is in flight fails on the way. Function threads have left NextBatch and Complete by then; a
  // FunctionBatch that one still holds may outlive the engine.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Set-up, before the first Submit. Each returns the index by which stages name it.
  // A model's fixed batch size, or its lack of a batch dimension, is found from its signature and checked against the
  // options.
  Result<int> AddModel(std::shared_ptr<device::Model> model, ModelOptions options);
  int AddFunction(FunctionOptions options);
  // Checks the wiring: targets, counts, that every value is made before it is used, and each model stage's count of
  // inputs.
  Result<int> AddMethod(MethodSpec spec);
  // The same for a method that only local calls are made of; after all others.
  Result<int> AddLocalMethod(MethodSpec spec);
  const MethodSpec& method(int index) const;
  size_t methods() const;  // how many AddMethod has added

  // Runs the model on zeros, which also measures it. FAILED_PRECONDITION: it has dynamic dimensions besides the batch,
  // or failed on zeros as it may not on other data; the caller warns. Other errors no data can mend.
  Status WarmUp(int model);

  // The stages, models before functions, and where each counts what it does. Before the first Submit; by default they
  // count where nobody looks. What is given outlives the engine, or the next call of this.
  struct StageName {
    StageSpec::Kind kind = StageSpec::Kind::kModel;
    std::string name;
    Duration timeout{0};
  };
  std::vector<StageName> stages() const;
  void CountIn(std::span<StageStats* const> stats);

  // One instance of a request, with its method inputs in slot order, which are moved from; it has arrived `now`.
  // `request` outlives it. Results come through the sink, at the earliest in the next Poll.
  void Submit(int method, std::shared_ptr<RequestContext> request, uint32_t index, std::span<Tensor> inputs,
              TimePoint now);

  // How long a request of `client` with so many instances, should it come now, takes about until it is done, and the
  // stage that it waits for longest. A stage that has nothing to do counts as none, whatever its runs took.
  struct Estimate {
    Duration wait{0};
    std::optional<StageSpec> longest;
  };
  Estimate EstimateWait(int method, uint64_t client, size_t instances) const;
  // That so many instances of a request were refused since they could not be done in time.
  void CountRefused(const StageSpec& stage, size_t instances);
  std::string NameOf(const StageSpec& stage) const;  // for messages: "model 'net.onnx'"

  // Drops what of `request` is queued (done with CANCELLED at the next Poll) and ignores the results of what runs.
  void Cancel(RequestContext& request);

  // Moves everything that can move: takes in what function and model threads have finished, runs short models, hands
  // out results. Short of work it would run for long: it then asks to be called again at once, so that the caller gets
  // its turn. Returns when it wants to be called again at the latest without a wake (kNever: no time).
  TimePoint Poll();

  // Any thread. The call is done once the runtime thread has seen all its instances through. FAILED_PRECONDITION before
  // the first Poll, UNAVAILABLE after Stop: then the call never is.
  Status Start(std::shared_ptr<LocalCall> call);
  // Ends the call if it is still under way, as Cancel does a request. Any thread.
  void CancelCall(std::shared_ptr<LocalCall> call);

  // How many instances are somewhere between Submit and InstanceDone.
  size_t in_flight() const;

  // Function threads: the next batch of function `function`, waiting for it; nothing after Stop.
  std::unique_ptr<FunctionBatch> NextBatch(int function);
  void Complete(std::unique_ptr<FunctionBatch> batch, std::vector<FunctionResult> results);

  // Wakes and ends every waiting NextBatch and the model threads; what is in flight fails with UNAVAILABLE. Any thread.
  void Stop();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

class FunctionBatch {
 public:
  ~FunctionBatch();
  size_t size() const;
  // The stage's inputs of instance `i` of the batch.
  std::span<const Tensor> inputs(size_t i) const;
  // How many outputs the stage that instance `i` is in must give.
  size_t outputs_count(size_t i) const;
  // Whose instance `i` is, and until when it is worth running.
  uint64_t client(size_t i) const;
  TimePoint deadline(size_t i) const;
  // Of what request it is. Whoever keeps a share may still read it when the request is over, but not its sink.
  const std::shared_ptr<RequestContext>& request(size_t i) const;
  // Whether the function may be called again for any of its instances.
  bool repeatable() const;
  // The function is called, maybe again: what it may take counts from here.
  void BeginCall() const;

 private:
  friend class Engine;
  struct State;
  explicit FunctionBatch(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace mindserve::pipeline
