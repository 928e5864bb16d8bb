// Requests that may kill the worker: while one of their instances is executed, nothing else is.
//
// They stand in a line of their own. For the first of it the queues are paused, and once all that takers had is back,
// its instances go through their stages, one after the other. Then the queues go on, and the next one waits until each
// queue that had something has given a batch. While a stage takes long over what it has, or hangs, only that one's
// queue stays paused; once it is back, all are paused again, for twice as long as before: else stages that are slow by
// turns would keep the line waiting for ever.
#include <algorithm>

#include "pipeline/engine_state.h"

namespace mindserve::pipeline {
namespace {

bool IsQuiet(const batching::Queue& queue, const batching::Standing& standing) {
  return queue.inside == standing.waiting && !standing.alone;
}

Instance& ToInstance(batching::Item& item) {
  return static_cast<Instance&>(item);
}

}  // namespace

void Engine::State::Hold(Instance& instance) {
  if (alone.empty() || alone.back().request != instance.request) alone.push_back({instance.request, {}});
  alone.back().held.Append(instance);
  may_expire = std::min(may_expire, instance.deadline);
}

void Engine::State::StepAlone() {
  if (alone_phase == Alone::kNone) {
    if (alone.empty() || !RoundOver()) return;
    patience = kAlonePatience;
    Close();
  }
  if (alone_phase == Alone::kWaiting && !alone.empty()) {
    if (!PausedAreQuiet()) return;
    Close();
  }
  if ((alone_phase == Alone::kClosing || alone_phase == Alone::kWaiting) && alone.empty()) return Open();
  if (!Quiet()) {
    if (now < PatienceEnds()) return;
    if (alone_phase == Alone::kRunning) return LetCallsPass();
    // Nobody waits any more for what is ending: that it is executed among others is better than that nothing is.
    return alone_phase == Alone::kEnding ? Open() : ResumeIdle();
  }
  if (alone_phase == Alone::kEnding) return Open();
  alone_phase = Alone::kRunning;
  waits_since = now;
  batching::Item* next = alone.front().held.Pop();
  if (next != nullptr) return Advance(ToInstance(*next));
  alone.pop_front();
  Open();
}

void Engine::State::Close() {
  ForEachQueue([](batching::Queue& queue) { queue.Pause(); });
  alone_phase = Alone::kClosing;
  waits_since = now;
  PassAllPauses();
}

// What is executed takes long: who has nothing to do with it goes on meanwhile.
void Engine::State::ResumeIdle() {
  alone_phase = Alone::kWaiting;
  patience *= 2;
  ForEachQueue([](batching::Queue& queue) {
    if (IsQuiet(queue, queue.standing())) queue.Resume();
  });
  for (ModelSlot& model : models) model.pushed = true;
}

bool Engine::State::PausedAreQuiet() const {
  bool quiet = true;
  ForEachQueue([&](const batching::Queue& queue) {
    const batching::Standing standing = queue.standing();
    if (standing.paused && !IsQuiet(queue, standing)) quiet = false;
  });
  return quiet;
}

TimePoint Engine::State::PatienceEnds() const {
  if (alone_phase == Alone::kClosing) return waits_since + patience;
  if (alone_phase == Alone::kRunning) return CallsPatienceEnds();
  return alone_phase == Alone::kEnding ? waits_since + kAlonePatience : kNever;
}

// Everything goes on.
void Engine::State::Open() {
  alone_phase = Alone::kNone;
  round_began.clear();
  ForEachQueue([&](batching::Queue& queue) {
    round_began.push_back(queue.standing().batches);
    queue.Resume();
  });
  for (ModelSlot& model : models) model.pushed = true;
}

// Gives what of the request has not begun.
batching::ItemList Engine::State::LeaveLine(const RequestContext& request) {
  batching::ItemList held;
  if (alone.empty()) return held;
  if (alone_phase == Alone::kRunning && alone.front().request.get() == &request) {
    alone_phase = Alone::kEnding;
    waits_since = time.Now();
  }
  std::erase_if(alone, [&](AloneRequest& entry) {
    if (entry.request.get() != &request) return false;
    held.Append(std::move(entry.held));
    return true;
  });
  return held;
}

TimePoint Engine::State::ExpireAlone() {
  TimePoint next = kNever;
  for (size_t i = 0; i < alone.size();) {
    const std::shared_ptr<RequestContext> request = alone[i].request;
    if (request->deadline > now) {
      next = std::min(next, request->deadline);
      ++i;
      continue;
    }
    batching::ItemList late = LeaveLine(*request);
    while (batching::Item* item = late.Pop()) DoneExpired(ToInstance(*item));
  }
  return next;
}

bool Engine::State::RoundOver() const {
  size_t i = 0;
  bool over = true;
  ForEachQueue([&](const batching::Queue& queue) {
    const batching::Standing standing = queue.standing();
    if (i < round_began.size() && standing.waiting > 0 && standing.batches == round_began[i]) over = false;
    ++i;
  });
  return over;
}

// Whether no taker has anything, and nothing that goes alone waits for one.
bool Engine::State::Quiet() const {
  bool quiet = true;
  ForEachQueue([&](const batching::Queue& queue) { quiet = quiet && IsQuiet(queue, queue.standing()); });
  return quiet;
}

}  // namespace mindserve::pipeline
