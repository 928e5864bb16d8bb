#include "pipeline/engine.h"

#include <algorithm>
#include <new>
#include <utility>

#include "pipeline/engine_state.h"
#include "pipeline/function_batch.h"

namespace mindserve::pipeline {
namespace {

using batching::Item;
using batching::ItemList;
using batching::Taken;

// How long one Poll goes on running models before the caller, which has sockets and rings to look at, gets its turn.
constexpr Duration kPollSlice = std::chrono::microseconds(500);

}  // namespace

TimePoint Engine::State::Poll() {
  now = time.Now();
  CollectMail();
  if (stopped.load(std::memory_order_acquire)) {
    calls.FailWaiting(Stopping());
    FailAll();
    Deliver();
    return has_more() ? now : kNever;
  }
  SubmitCalls();
  StepAlone();
  Announce();
  Deliver();
  TimePoint next = RunModels();
  next = std::min(next, DropExpired());
  Deliver();
  Announce();
  return has_more() ? now : std::min(next, PatienceEnds());
}

// Runs what may run on this thread, one batch a model in turn, for about a slice of time.
TimePoint Engine::State::RunModels() {
  const TimePoint until = now + kPollSlice;
  for (;;) {
    TimePoint next = kNever;
    bool ran = false;
    for (ModelSlot& model : models) {
      ModelStage& stage = *model.stage;
      if (!stage.has_turn()) continue;
      if (!model.pushed && model.look_again > now) {
        next = std::min(next, model.look_again);
        continue;
      }
      if (!stage.RunsWithin(kLongRun) && stage.queue().size() > 0 && stage.HandOver()) {
        model.pushed = false;
        model.look_again = kNever;
        continue;
      }
      Taken taken = stage.queue().TryTake();
      model.pushed = taken.left > 0;
      model.look_again = taken.again;
      Expire(std::move(taken.expired));
      next = std::min(next, taken.again);
      if (taken.batch.empty()) continue;
      RunHere(stage, std::move(taken.batch));
      now = time.Now();
      ran = true;
    }
    if (!ran) return next;
    if (now >= until) return now;
  }
}

void Engine::State::RunHere(ModelStage& stage, ItemList batch) {
  try {
    run_here.items.clear();
    run_here.items.reserve(batch.size());
  } catch (const std::bad_alloc&) {
    return FailTaken(std::move(batch), OutOfMemory());
  }
  while (Item* item = batch.Pop()) run_here.items.push_back(item);
  run_here.status = stage.RunBatch(run_here.items, &run_here.failures);
  Finish(run_here);
}

// For queues whose takers are busy, or are none: nobody should wait for an answer that is known.
TimePoint Engine::State::DropExpired() {
  if (now < may_expire) return may_expire;
  TimePoint next = kNever;
  const auto sweep = [&](batching::Queue& queue) {
    TimePoint again = kNever;
    Expire(queue.DropExpired(&again));
    next = std::min(next, again);
  };
  for (ModelSlot& model : models) sweep(model.stage->queue());
  for (auto& function : functions) sweep(function->queue);
  next = std::min(next, ExpireAlone());
  may_expire = next;
  return next;
}

void Engine::State::Announce() {
  for (ModelSlot& model : models) {
    if (model.pushed && !model.stage->has_turn()) {
      model.pushed = false;
      model.stage->queue().Announce();
    }
  }
  for (auto& function : functions) {
    if (std::exchange(function->pushed, false)) function->queue.Announce();
  }
}

bool Engine::State::has_more() const {
  return first_done != nullptr || calls.has_more() ||
         std::ranges::any_of(models, [](const ModelSlot& model) { return model.pushed; }) ||
         (alone_phase != Alone::kNone && alone_phase != Alone::kWaiting && Quiet());
}

void Engine::State::Stop() {
  {
    const std::lock_guard lock(set_up);
    stopped.store(true, std::memory_order_release);
    for (ModelSlot& model : models) model.stage->queue().Close();
    for (auto& function : functions) function->queue.Close();
  }
  shared->mailbox.RefuseCalls();
  shared->mailbox.Nudge();
}

Engine::Engine(const TimeSource& time, std::function<void()> wake)
    : state_(std::make_unique<State>(time, std::move(wake))) {}

Engine::~Engine() {
  State& state = *state_;
  state.Stop();
  do {
    state.Poll();
  } while (state.first_done != nullptr);
  state.models.clear();  // joins their threads, which post to the mailbox
  state.shared->mailbox.Close();
  state.shared->engine_lives.End();
}

Result<int> Engine::AddModel(std::shared_ptr<device::Model> model, ModelOptions options) {
  State& state = *state_;
  auto stage = ModelStage::Create(std::move(model), std::move(options), state.time, state.shared->mailbox);
  if (!stage.ok()) return stage.status();
  state.arities.push_back({(*stage)->model().inputs().size(), (*stage)->model().outputs().size()});
  const std::lock_guard lock(state.set_up);
  if (state.stopped) (*stage)->queue().Close();
  state.models.push_back({.stage = *std::move(stage)});
  return static_cast<int>(state.models.size() - 1);
}

int Engine::AddFunction(FunctionOptions options) {
  State& state = *state_;
  auto function = std::make_unique<FunctionStage>(state.time, std::move(options));
  const std::lock_guard lock(state.set_up);
  if (state.stopped) function->queue.Close();
  state.functions.push_back(std::move(function));
  return static_cast<int>(state.functions.size() - 1);
}

Result<int> Engine::AddMethod(MethodSpec spec) {
  if (state_->first_local) {
    return Status(Code::kFailedPrecondition,
                  "method '" + spec.name + "' comes after one that only local calls are made of");
  }
  return state_->Add(std::move(spec));
}

Result<int> Engine::AddLocalMethod(MethodSpec spec) {
  auto index = state_->Add(std::move(spec));
  if (index.ok() && !state_->first_local) state_->first_local = static_cast<size_t>(*index);
  return index;
}

Result<int> Engine::State::Add(MethodSpec spec) {
  auto plan = PlanMethod(std::move(spec), {.models = arities, .functions = functions.size()});
  if (!plan.ok()) return plan.status();
  methods.push_back(*std::move(plan));
  return static_cast<int>(methods.size() - 1);
}

const MethodSpec& Engine::method(int index) const {
  return state_->methods.at(static_cast<size_t>(index)).spec;
}

size_t Engine::methods() const {
  return state_->first_local.value_or(state_->methods.size());
}

Status Engine::WarmUp(int model) {
  if (model < 0 || static_cast<size_t>(model) >= state_->models.size()) {
    return {Code::kInvalidArgument, "there is no model number " + std::to_string(model)};
  }
  try {
    return state_->models[static_cast<size_t>(model)].stage->WarmUp();
  } catch (const std::bad_alloc&) {
    return OutOfMemory();
  }
}

std::vector<Engine::StageName> Engine::stages() const {
  std::vector<StageName> stages;
  for (const ModelSlot& model : state_->models) {
    stages.push_back({StageSpec::Kind::kModel, model.stage->name(), model.stage->timeout()});
  }
  for (const auto& function : state_->functions) {
    stages.push_back({StageSpec::Kind::kFunction, function->options.name, function->options.timeout});
  }
  return stages;
}

void Engine::CountIn(std::span<StageStats* const> stats) {
  State& state = *state_;
  for (size_t i = 0; i < stats.size(); ++i) {
    if (i < state.models.size()) {
      state.models[i].stage->CountIn(*stats[i]);
    } else {
      state.functions.at(i - state.models.size())->stats = stats[i];
    }
  }
}

void Engine::Submit(int method, std::shared_ptr<RequestContext> request, uint32_t index, std::span<Tensor> inputs,
                    TimePoint now) {
  state_->now = now;
  state_->Submit(method, std::move(request), index, inputs);
}

Engine::Estimate Engine::EstimateWait(int method, uint64_t client, size_t instances) const {
  Estimate estimate;
  Duration longest{0};
  for (const StageSpec& stage : this->method(method).stages) {
    const batching::Queue& queue = state_->QueueOf(stage);
    if (queue.size() == 0 && state_->StatsOf(stage).execution.since_ns() == 0) continue;
    const Duration wait = queue.EstimateWait(client, instances);
    estimate.wait += wait;
    if (wait <= longest) continue;
    longest = wait;
    estimate.longest = stage;
  }
  return estimate;
}

void Engine::CountRefused(const StageSpec& stage, size_t instances) {
  state_->StatsOf(stage).expired.Add(instances);
}

std::string Engine::NameOf(const StageSpec& stage) const {
  return state_->NameOf(stage);
}

void Engine::Cancel(RequestContext& request) {
  state_->Cancel(request);
}

TimePoint Engine::Poll() {
  return state_->Poll();
}

Status Engine::Start(std::shared_ptr<LocalCall> call) {
  const std::shared_ptr<DoneCalls> done = call->terms_.done;
  if (done != nullptr) done->Expect();
  Status status;
  try {
    status = state_->shared->mailbox.PostCall(std::move(call));
  } catch (const std::bad_alloc&) {
    status = OutOfMemory();
  }
  if (!status.ok() && done != nullptr) done->ExpectNoMore();
  return status;
}

void Engine::CancelCall(std::shared_ptr<LocalCall> call) {
  state_->shared->mailbox.PostCancel(std::move(call));
}

size_t Engine::in_flight() const {
  return state_->in_flight.load(std::memory_order_relaxed);
}

std::unique_ptr<FunctionBatch> Engine::NextBatch(int function) {
  FunctionStage* stage = nullptr;
  {
    const std::lock_guard lock(state_->set_up);
    if (function < 0 || static_cast<size_t>(function) >= state_->functions.size()) return nullptr;
    stage = state_->functions[static_cast<size_t>(function)].get();
  }
  for (;;) {
    Taken taken = stage->queue.Take();
    if (taken.closed) return nullptr;
    state_->shared->mailbox.PostExpired(std::move(taken.expired));
    if (taken.batch.empty()) continue;
    try {
      const TimePoint now = state_->time.Now();
      auto inside = std::make_unique<FunctionBatch::State>(state_->shared, *stage, now);
      FunctionBatch::State& batch_state = *inside;
      std::unique_ptr<FunctionBatch> batch(new FunctionBatch(std::move(inside)));
      auto run = std::make_unique<Run>();
      run->items.reserve(taken.batch.size());
      while (Item* item = taken.batch.Pop()) {
        stage->stats->queue_ns.AddTime(now - item->arrival());
        run->items.push_back(item);
      }
      stage->stats->batch_sizes.Add(run->items.size());
      stage->stats->execution.Begin(now.time_since_epoch().count());
      for (const Item* item : run->items) stage->stats->execution.Add(item->mark);
      batch_state.run = std::move(run);
      return batch;
    } catch (const std::bad_alloc&) {
      state_->shared->mailbox.PostOutOfMemory(std::move(taken.batch));
    }
  }
}

void Engine::Complete(std::unique_ptr<FunctionBatch> batch, std::vector<FunctionResult> results) {
  if (batch == nullptr) return;
  const Duration took = state_->time.Now() - batch->state_->taken_at;
  batch->state_->stats.run_ns.AddTime(took);
  batch->state_->queue.NoteRun(took, batch->state_->run->items.size());
  batch->state_->stats.execution.End();
  std::unique_ptr<Run> run = std::move(batch->state_->run);
  run->results = std::move(results);
  state_->shared->mailbox.PostRun(std::move(run));
}

void Engine::Stop() {
  state_->Stop();
}

}  // namespace mindserve::pipeline
