#include "gateway/direct_calls.h"

#include <algorithm>
#include <utility>

#include "gateway/direct_thread.h"

namespace mindserve::gateway {

Result<std::unique_ptr<DirectCalls>> DirectCalls::Create(std::vector<std::shared_ptr<DirectDoor>> doors) {
  auto events = DirectEvents::Create();
  if (!events.ok()) return events.status();
  return std::unique_ptr<DirectCalls>(new DirectCalls(std::move(doors), *std::move(events)));
}

DirectCalls::~DirectCalls() {
  EndCalls(events_->Close(), {Code::kCancelled, "the call was given up"});
}

uint64_t DirectCalls::Start(DirectRequest request) {
  const size_t thread = request.client % doors_.size();
  const uint64_t number = events_->NextNumber();
  auto call = std::make_shared<DirectCall>(std::move(request), number, thread, events_);
  events_->Add(number, call, thread);
  // If the thread has ended, the call ends with the task.
  doors_[thread]->Post([call = std::move(call)](DirectThread& io) { io.Begin(call); });
  return number;
}

void DirectCalls::GiveBack(std::vector<DirectEvent> events) {
  const auto lent = [](const DirectEvent& event) { return std::ranges::any_of(event.message, &ReplyPart::lent); };
  for (size_t thread = 0; thread < doors_.size(); ++thread) {
    const auto parts = std::make_shared<std::vector<Reply>>();  // with the task, which has to be copyable
    for (DirectEvent& event : events) {
      if (event.thread == thread && lent(event)) parts->push_back(std::move(event.message));
    }
    if (parts->empty()) continue;
    // Once the thread has ended nobody else has to do with its lenders, and any thread may give back.
    doors_[thread]->Post([parts](DirectThread&) { parts->clear(); });
  }
}

void DirectCalls::Cancel(uint64_t call, Status status) {
  EndCalls(events_->GiveUp(call, status), status);
}

void DirectCalls::EndCalls(DirectEvents::GivenUp given_up, const Status& status) {
  for (auto& [thread, call] : given_up.going_on) {
    doors_[thread]->Post([call = std::move(call), status](DirectThread&) { call->Abort(status); });
  }
  GiveBack(std::move(given_up.dropped));
}

}  // namespace mindserve::gateway
