#include "gateway/child_calls.h"

#include <algorithm>
#include <span>

namespace mindserve::gateway {

std::optional<ChildCalls::Place> ChildCalls::Enter(ExecutionTag parent, const ChildCall& child) {
  const std::lock_guard lock(mutex_);
  const auto given_up = std::span(given_up_).first(std::min(times_given_up_, kRemembered));
  if (std::ranges::find(given_up, parent) != given_up.end()) return std::nullopt;
  const uint64_t number = next_++;
  children_.emplace(parent, std::pair(number, child));
  return Place(this, parent, number);
}

void ChildCalls::Place::Leave() {
  ChildCalls* calls = std::exchange(calls_, nullptr);
  if (calls == nullptr) return;
  const std::lock_guard lock(calls->mutex_);
  const auto [begin, end] = calls->children_.equal_range(parent_);
  for (auto child = begin; child != end; ++child) {
    if (child->second.first != number_) continue;
    calls->children_.erase(child);
    return;
  }
}

std::vector<ChildCall> ChildCalls::GiveUp(ExecutionTag parent) {
  std::vector<ChildCall> children;
  if (!expected_.load(std::memory_order_relaxed)) return children;
  const std::lock_guard lock(mutex_);
  given_up_[times_given_up_++ % kRemembered] = parent;
  const auto [begin, end] = children_.equal_range(parent);
  for (auto child = begin; child != end; ++child) children.push_back(child->second.second);
  children_.erase(begin, end);
  return children;
}

size_t ChildCalls::size() const {
  const std::lock_guard lock(mutex_);
  return children_.size();
}

}  // namespace mindserve::gateway
