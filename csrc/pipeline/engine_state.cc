#include "pipeline/engine_state.h"

#include <algorithm>
#include <exception>
#include <new>

#include "base/log.h"

namespace mindserve::pipeline {
namespace {

using batching::Item;
using batching::ItemList;

Instance& ToInstance(Item& item) {
  return static_cast<Instance&>(item);
}

Status Tagged(const StageSpec& stage, Status status) {
  if (stage.tag.empty()) return status;
  return {status.code(), stage.tag + ": " + status.message()};
}

}  // namespace

void Engine::State::Submit(int method, std::shared_ptr<RequestContext> request, uint32_t index,
                           std::span<Tensor> inputs) {
  Instance* instance = nullptr;
  try {
    instance = &shared->pool.Get();
  } catch (const std::bad_alloc&) {
    if (request->sink != nullptr) request->sink->InstanceDone(index, OutOfMemory(), {});
    return;
  }
  in_flight.fetch_add(1, std::memory_order_relaxed);
  instance->index = index;
  instance->client = request->client;
  instance->deadline = request->deadline;
  instance->mark = request->mark;
  instance->previous_sibling = nullptr;
  instance->next_sibling = std::exchange(request->instances, instance);
  if (instance->next_sibling != nullptr) instance->next_sibling->previous_sibling = instance;
  instance->request = std::move(request);
  try {
    Begin(*instance, method, inputs);
  } catch (const std::exception&) {
    Done(*instance, OutOfMemory());
  }
}

void Engine::State::Begin(Instance& instance, int method, std::span<Tensor> inputs) {
  if (instance.request->cancelled) return Done(instance, Cancelled());
  if (method < 0 || static_cast<size_t>(method) >= methods.size()) {
    return Done(instance, {Code::kInternal, "there is no method number " + std::to_string(method)});
  }
  const MethodPlan& plan = methods[static_cast<size_t>(method)];
  instance.method = &plan;
  if (inputs.size() != plan.spec.inputs.size()) {
    return Done(instance, {Code::kInvalidArgument, "method '" + plan.spec.name + "' takes " +
                                                       std::to_string(plan.spec.inputs.size()) + " inputs, given " +
                                                       std::to_string(inputs.size())});
  }
  instance.values.reserve(plan.values);
  for (Tensor& input : inputs) instance.values.push_back(std::move(input));
  instance.values.resize(plan.values);
  instance.repeatable = plan.spec.idempotent;
  if (instance.request->alone) return Hold(instance);
  Advance(instance);
}

// Into the next stage, or to the end. Whatever goes wrong is the instance's answer.
void Engine::State::Advance(Instance& instance) {
  try {
    if (instance.stage < instance.method->stages.size()) {
      EnterStage(instance);
    } else {
      FinishMethod(instance);
    }
  } catch (const std::exception&) {
    instance.queue = nullptr;  // a Push that throws has done nothing
    Done(instance, OutOfMemory());
  }
}

void Engine::State::EnterStage(Instance& instance) {
  const StageSpec& stage = StageOf(instance);
  instance.tensors.clear();
  for (const ValueUse& use : instance.method->stages[instance.stage].inputs) {
    Tensor& value = instance.values[use.value];
    if (use.last) {
      instance.tensors.push_back(std::move(value));
      value = Tensor();
    } else {
      instance.tensors.push_back(value);
    }
  }
  instance.outputs_wanted = static_cast<size_t>(stage.outputs_count);
  const auto target = static_cast<size_t>(stage.target);
  bool* pushed = nullptr;
  if (stage.kind == StageSpec::Kind::kModel) {
    ModelSlot& model = models[target];
    Status admitted = model.stage->Admit(instance.tensors);
    if (!admitted.ok()) return Done(instance, Tagged(stage, std::move(admitted)));
    instance.queue = &model.stage->queue();
    pushed = &model.pushed;
  } else {
    if (instance.request->origin != nullptr && !instance.request->origin->callers.empty()) [[unlikely]] {
      const auto executing = functions[target]->stats->execution.Read();
      if (executing && IsCalledBy(*instance.request, *executing)) {
        // It would wait for ever.
        Status status(Code::kFailedPrecondition,
                      NameOf(stage) +
                          " waits for this call, which would wait for it: a stage's function can't call "
                          "what needs that function itself");
        return Done(instance, Tagged(stage, std::move(status)));
      }
    }
    instance.queue = &functions[target]->queue;
    pushed = &functions[target]->pushed;
  }
  const bool in = instance.request->alone || Passes(*instance.request) ? instance.queue->PushAlone(instance, now)
                                                                       : instance.queue->Push(instance, now);
  if (!in) {
    instance.queue = nullptr;
    return Done(instance, Stopping());
  }
  ++instance.queue->inside;
  *pushed = true;
  may_expire = std::min(may_expire, instance.deadline);
}

bool Engine::State::IsCalledBy(const RequestContext& request, std::span<const ExecutionTag> calls) {
  if (request.origin == nullptr) return false;
  return std::ranges::any_of(request.origin->callers, [&](ExecutionTag caller) {
    return caller != 0 && std::ranges::find(calls, caller) != calls.end();
  });
}

void Engine::State::FinishMethod(Instance& instance) {
  instance.outputs.reserve(instance.method->results.size());
  for (const ValueUse& use : instance.method->results) {
    Tensor& value = instance.values[use.value];
    if (use.last) {
      instance.outputs.push_back(std::move(value));
    } else {
      instance.outputs.push_back(value);
    }
  }
  Done(instance, Status::Ok());
}

// Keeps what the stage gave, which is in `tensors`, and goes on.
void Engine::State::Accept(Instance& instance) {
  const StagePlan& plan = instance.method->stages[instance.stage];
  for (size_t i = 0; i < plan.output_used.size(); ++i) {
    if (plan.output_used[i]) instance.values[plan.first_output + i] = std::move(instance.tensors[i]);
  }
  instance.tensors.clear();
  ++instance.stage;
  Advance(instance);
}

void Engine::State::Done(Instance& instance, Status status) {
  if (instance.previous_sibling != nullptr) {
    instance.previous_sibling->next_sibling = instance.next_sibling;
  } else {
    instance.request->instances = instance.next_sibling;
  }
  if (instance.next_sibling != nullptr) instance.next_sibling->previous_sibling = instance.previous_sibling;
  instance.previous_sibling = instance.next_sibling = nullptr;

  instance.done = true;
  instance.status = std::move(status);
  if (!instance.status.ok()) instance.outputs.clear();
  // Whoever gets the answer may want the request's bytes to be free by then.
  instance.values.clear();
  if (instance.queue == nullptr) instance.tensors.clear();
  instance.next_done = nullptr;
  (last_done == nullptr ? first_done : last_done->next_done) = &instance;
  last_done = &instance;
}

// Sinks may submit and cancel: what that brings to an end is for the next time.
void Engine::State::Deliver() {
  Instance* next = std::exchange(first_done, nullptr);
  last_done = nullptr;
  while (next != nullptr) {
    Instance& instance = *next;
    next = std::exchange(instance.next_done, nullptr);
    // A taker that has it may look at the request.
    const std::shared_ptr<RequestContext> request =
        instance.queue == nullptr ? std::move(instance.request) : instance.request;
    in_flight.fetch_sub(1, std::memory_order_relaxed);
    if (request->sink != nullptr) {
      try {
        request->sink->InstanceDone(instance.index, std::move(instance.status), instance.outputs);
      } catch (const std::exception& e) {
        Log(LogLevel::kError, e.what());
      }
    }
    instance.outputs.clear();
    instance.answered = true;
    if (instance.queue == nullptr) shared->pool.Put(instance);
  }
}

void Engine::State::Cancel(RequestContext& request) {
  request.cancelled = true;
  if (request.alone) LeaveLine(request);
  for (Instance* instance = request.instances; instance != nullptr;) {
    Instance& cancelled = *instance;
    instance = instance->next_sibling;
    // If it isn't in its queue any more, a taker has it, and it is blank again when the taker brings it back.
    if (cancelled.queue != nullptr && cancelled.queue->Remove(cancelled)) {
      --std::exchange(cancelled.queue, nullptr)->inside;
    }
    Done(cancelled, Cancelled());
  }
}

// --- What comes back from takers ---

void Engine::State::CollectMail() {
  Mailbox::Mail mail = shared->mailbox.Collect();
  while (const std::unique_ptr<Run> run = mail.NextRun()) Finish(*run);
  Expire(std::move(mail.expired));
  FailTaken(std::move(mail.out_of_memory), OutOfMemory());
  TakeCalls(mail);
}

void Engine::State::Finish(Run& run) {
  if (run.hands_back != nullptr) {
    run.hands_back->TakeBack();
    // What its thread left in the queue is for this one to look at.
    std::ranges::find(models, run.hands_back, [](const ModelSlot& model) { return model.stage.get(); })->pushed = true;
  }
  for (size_t i = 0; i < run.items.size(); ++i) {
    Instance& instance = ToInstance(*run.items[i]);
    if (!Returned(instance)) continue;
    try {
      Status status = TakeResult(run, i, instance);
      if (status.ok()) {
        Accept(instance);
      } else {
        StatsOf(StageOf(instance)).failed.Add();
        Done(instance, Tagged(StageOf(instance), std::move(status)));
      }
    } catch (const std::exception&) {
      Done(instance, OutOfMemory());
    }
  }
}

// What the stage gave goes to the instance's tensors.
Status Engine::State::TakeResult(Run& run, size_t i, Instance& instance) {
  if (!run.status.ok()) return run.status;
  if (i < run.failures.size() && !run.failures[i].ok()) return std::move(run.failures[i]);
  const StageSpec& stage = StageOf(instance);
  if (stage.kind == StageSpec::Kind::kFunction) {
    if (i >= run.results.size()) {
      return {Code::kInternal, NameOf(stage) + " gave " + std::to_string(run.results.size()) + " results for " +
                                   std::to_string(run.items.size()) + " instances"};
    }
    if (!run.results[i].ok()) return run.results[i].status();
    instance.tensors = std::move(*run.results[i]);
  }
  if (instance.tensors.size() < instance.outputs_wanted) {
    return {Code::kInternal, NameOf(stage) + " gave " + std::to_string(instance.tensors.size()) +
                                 " outputs, expected " + std::to_string(instance.outputs_wanted)};
  }
  return Status::Ok();
}

// Takes note that no taker has it any more. False if its answer is fixed already: then there is nothing to do with it.
bool Engine::State::Returned(Instance& instance) {
  --std::exchange(instance.queue, nullptr)->inside;
  if (!instance.done) return true;
  instance.tensors.clear();
  if (instance.answered) shared->pool.Put(instance);
  return false;
}

void Engine::State::FailTaken(ItemList items, const Status& status) {
  while (Item* item = items.Pop()) {
    Instance& instance = ToInstance(*item);
    if (Returned(instance)) Done(instance, status);
  }
}

void Engine::State::Expire(ItemList items) {
  while (Item* item = items.Pop()) {
    Instance& instance = ToInstance(*item);
    if (Returned(instance)) DoneExpired(instance);
  }
}

void Engine::State::DoneExpired(Instance& instance) {
  Status status(Code::kDeadlineExceeded, "too late");
  if (instance.stage < instance.method->spec.stages.size()) {
    const StageSpec& stage = StageOf(instance);
    StatsOf(stage).expired.Add();
    try {
      status = {Code::kDeadlineExceeded, instance.deadline <= time.Now()
                                             ? "the deadline passed before " + NameOf(stage) + " could run"
                                             : "the deadline passes before " + NameOf(stage) + " can have run"};
    } catch (const std::exception&) {
    }
  }
  Done(instance, std::move(status));
}

void Engine::State::FailAll() {
  const auto drain = [](batching::Queue& queue) {
    ItemList items = queue.Drain();
    while (Item* item = items.Pop()) {
      --std::exchange(ToInstance(*item).queue, nullptr)->inside;
    }
  };
  alone.clear();
  alone_phase = Alone::kNone;
  for (ModelSlot& model : models) {
    drain(model.stage->queue());
    model.pushed = false;
  }
  for (auto& function : functions) drain(function->queue);
  shared->pool.ForEachLive([&](Instance& instance) {
    if (!instance.done) Done(instance, Stopping());
  });
}

StageStats& Engine::State::StatsOf(const StageSpec& stage) const {
  const auto target = static_cast<size_t>(stage.target);
  return stage.kind == StageSpec::Kind::kModel ? models[target].stage->stats() : *functions[target]->stats;
}

batching::Queue& Engine::State::QueueOf(const StageSpec& stage) const {
  const auto target = static_cast<size_t>(stage.target);
  return stage.kind == StageSpec::Kind::kModel ? models[target].stage->queue() : functions[target]->queue;
}

std::string Engine::State::NameOf(const StageSpec& stage) const {
  const auto target = static_cast<size_t>(stage.target);
  return stage.kind == StageSpec::Kind::kModel ? "model '" + models[target].stage->name() + "'"
                                               : "function '" + functions[target]->options.name + "'";
}

}  // namespace mindserve::pipeline
