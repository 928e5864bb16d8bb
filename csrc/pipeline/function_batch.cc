#include "pipeline/function_batch.h"

#include <algorithm>
#include <utility>

namespace mindserve::pipeline {

FunctionBatch::State::~State() {
  if (run == nullptr) return;
  shared->engine_lives.While([&] { stats.execution.End(); });
  try {
    run->status = Status(Code::kInternal, "function '" + name + "' ended without giving results");
  } catch (...) {
    run->status = Status(Code::kInternal, "");
  }
  shared->mailbox.PostRun(std::move(run));
}

FunctionBatch::FunctionBatch(std::unique_ptr<State> state) : state_(std::move(state)) {}

FunctionBatch::~FunctionBatch() = default;

size_t FunctionBatch::size() const {
  return state_->run->items.size();
}

std::span<const Tensor> FunctionBatch::inputs(size_t i) const {
  return state_->run->items[i]->tensors;
}

size_t FunctionBatch::outputs_count(size_t i) const {
  return static_cast<const Instance*>(state_->run->items[i])->outputs_wanted;
}

uint64_t FunctionBatch::client(size_t i) const {
  return state_->run->items[i]->client;
}

TimePoint FunctionBatch::deadline(size_t i) const {
  return state_->run->items[i]->deadline;
}

const std::shared_ptr<RequestContext>& FunctionBatch::request(size_t i) const {
  return static_cast<const Instance*>(state_->run->items[i])->request;
}

bool FunctionBatch::repeatable() const {
  return std::ranges::all_of(state_->run->items,
                             [](const batching::Item* item) { return static_cast<const Instance*>(item)->repeatable; });
}

void FunctionBatch::BeginCall() const {
  state_->shared->engine_lives.While(
      [&] { state_->stats.execution.Begin(state_->time.Now().time_since_epoch().count()); });
}

}  // namespace mindserve::pipeline
