// Calls from inside the process, and how they get along with requests that are executed alone.
//
// A stage's function that calls waits for the call, and whoever waits for the stage to be done waits for both: while
// queues are paused, what such a call wants is executed all the same, on its own. Nobody knows which other threads a
// function waits for; so a call that somebody else makes while a request is executed alone, and that has waited for a
// while, is let through as well. Else two could wait for each other for ever.
#include <algorithm>

#include "pipeline/engine_state.h"

namespace mindserve::pipeline {

void Engine::State::TakeCalls(Mailbox::Mail& mail) {
  if (!takes_calls) {
    takes_calls = true;
    shared->mailbox.AcceptCalls();
  }
  if (!mail.calls.empty()) calls.Add(std::move(mail.calls), now);
  for (const std::shared_ptr<LocalCall>& call : mail.cancelled) {
    if (RequestContext* context = calls.Find(*call)) Cancel(*context);
  }
}

void Engine::State::SubmitCalls() {
  calls.SubmitSome([this](int method, std::shared_ptr<RequestContext> context, uint32_t index,
                          std::span<Tensor> inputs) { Submit(method, std::move(context), index, inputs); });
}

bool Engine::State::Passes(const RequestContext& request) const {
  return request.passes_pauses &&
         (alone_phase == Alone::kClosing || alone_phase == Alone::kRunning || alone_phase == Alone::kEnding);
}

// What of the request waits in a queue goes before what is paused.
void Engine::State::PassPauses(const RequestContext& request) {
  for (Instance* instance = request.instances; instance != nullptr; instance = instance->next_sibling) {
    batching::Queue* queue = instance->queue;
    if (queue != nullptr && queue->Remove(*instance)) queue->PushAlone(*instance, instance->arrival());
  }
}

void Engine::State::PassAllPauses() {
  calls.ForEach([this](RequestContext& request, TimePoint) {
    if (request.passes_pauses) PassPauses(request);
  });
  for (ModelSlot& model : models) model.pushed = true;
  for (auto& function : functions) function->pushed = true;
}

// In kRunning: when the first of the calls that nothing is known of may pass.
TimePoint Engine::State::CallsPatienceEnds() const {
  TimePoint first = kNever;
  calls.ForEach([&](const RequestContext& request, TimePoint began) {
    if (!request.passes_pauses) first = std::min(first, std::max(began, waits_since) + kAlonePatience);
  });
  return first;
}

void Engine::State::LetCallsPass() {
  calls.ForEach([this](RequestContext& request, TimePoint began) {
    if (std::max(began, waits_since) + kAlonePatience <= now) request.passes_pauses = true;
  });
  PassAllPauses();
}

}  // namespace mindserve::pipeline
