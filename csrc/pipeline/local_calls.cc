#include "pipeline/local_calls.h"

#include <new>
#include <utility>

#include "pipeline/engine_state.h"

namespace mindserve::pipeline {

void LocalCalls::Add(std::vector<std::shared_ptr<LocalCall>> calls, TimePoint now) {
  for (std::shared_ptr<LocalCall>& call : calls) Add(std::move(call), now);
}

void LocalCalls::Add(std::shared_ptr<LocalCall> call, TimePoint now) {
  LocalCall& added = *call;
  try {
    live_.push_back(&added);
    added.began_ = now;
    added.calls_ = this;
    added.place_ = live_.size() - 1;
    waiting_.push_back(call);
  } catch (const std::bad_alloc&) {
    for (size_t i = 0; i < added.instances(); ++i) added.InstanceDone(static_cast<uint32_t>(i), OutOfMemory(), {});
  }
}

void LocalCalls::FailWaiting(const Status& status) {
  while (!waiting_.empty()) {
    const std::shared_ptr<LocalCall> call = std::move(waiting_.front());
    waiting_.pop_front();
    while (call->submitted_ < call->instances()) {
      call->InstanceDone(static_cast<uint32_t>(call->submitted_++), status, {});
    }
  }
}

void LocalCalls::Forget(LocalCall& call) {
  live_.back()->place_ = call.place_;
  live_[call.place_] = live_.back();
  live_.pop_back();
  call.calls_ = nullptr;
}

}  // namespace mindserve::pipeline
