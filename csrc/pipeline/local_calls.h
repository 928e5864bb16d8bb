// The calls from inside the process that are under way.
#pragma once

#include <algorithm>
#include <cstddef>
#include <deque>
#include <memory>
#include <vector>

#include "pipeline/local_call.h"

namespace mindserve::pipeline {

// Of a call so many instances are submitted before the runtime thread looks at anything else.
inline constexpr size_t kSubmitInstances = 1024;

// The runtime thread's.
class LocalCalls {
 public:
  LocalCalls() = default;
  LocalCalls(const LocalCalls&) = delete;
  LocalCalls& operator=(const LocalCalls&) = delete;

  // Calls that came. What there is no memory for fails.
  void Add(std::vector<std::shared_ptr<LocalCall>> calls, TimePoint now);
  // Whether there are instances that are not submitted.
  bool has_more() const { return !waiting_.empty(); }
  // Calls `submit(method, context, index, inputs)` for instances that are not submitted, for about as many as have a
  // turn.
  template <typename Submit>
  void SubmitSome(Submit submit);
  // Answers all instances that are not submitted with `status`.
  void FailWaiting(const Status& status);

  // Calls `visit(context, began)` for each call under way.
  template <typename Visit>
  void ForEach(Visit visit) const {
    for (LocalCall* call : live_) visit(call->context_, call->began_);
  }
  // The context of a call that is under way; null if it isn't any more.
  RequestContext* Find(LocalCall& call) const { return call.calls_ == this ? &call.context_ : nullptr; }

 private:
  friend class LocalCall;
  void Add(std::shared_ptr<LocalCall> call, TimePoint now);
  void Forget(LocalCall& call);

  std::vector<LocalCall*> live_;
  std::deque<std::shared_ptr<LocalCall>> waiting_;  // whose turn it is to be submitted first
};

template <typename Submit>
void LocalCalls::SubmitSome(Submit submit) {
  for (size_t budget = kSubmitInstances; budget > 0 && !waiting_.empty();) {
    const std::shared_ptr<LocalCall> call = waiting_.front();
    const size_t count = call->instances();
    const size_t inputs = call->inputs_.size() / count;
    const std::shared_ptr<RequestContext> context(call, &call->context_);
    for (; call->submitted_ < count && budget > 0; --budget) {
      const size_t index = call->submitted_++;
      submit(call->terms_.method, context, static_cast<uint32_t>(index),
             std::span(call->inputs_).subspan(index * inputs, inputs));
    }
    if (call->submitted_ == count) {
      waiting_.pop_front();
    } else {
      std::rotate(waiting_.begin(), waiting_.begin() + 1, waiting_.end());
    }
  }
}

}  // namespace mindserve::pipeline
