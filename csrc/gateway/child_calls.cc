#include "gateway/child_calls.h"

#include <vector>

namespace mindserve::gateway {

ChildCalls::Place ChildCalls::Enter(ExecutionTag parent, std::function<void()> give_up) {
  const std::lock_guard lock(mutex_);
  const uint64_t number = next_++;
  children_.emplace(parent, std::pair(number, std::move(give_up)));
  size_.store(children_.size(), std::memory_order_relaxed);
  return {this, parent, number};
}

void ChildCalls::Place::Leave() {
  ChildCalls* calls = std::exchange(calls_, nullptr);
  if (calls == nullptr) return;
  const std::lock_guard lock(calls->mutex_);
  const auto [begin, end] = calls->children_.equal_range(parent_);
  for (auto child = begin; child != end; ++child) {
    if (child->second.first != number_) continue;
    calls->children_.erase(child);
    break;
  }
  calls->size_.store(calls->children_.size(), std::memory_order_relaxed);
}

void ChildCalls::GiveUp(ExecutionTag parent) {
  if (size() == 0) return;
  std::vector<std::function<void()>> given_up;
  {
    const std::lock_guard lock(mutex_);
    const auto [begin, end] = children_.equal_range(parent);
    for (auto child = begin; child != end; ++child) given_up.push_back(std::move(child->second.second));
    children_.erase(begin, end);
    size_.store(children_.size(), std::memory_order_relaxed);
  }
  for (const auto& give_up : given_up) give_up();
}

}  // namespace mindserve::gateway
