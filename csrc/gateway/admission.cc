#include "gateway/admission.h"

#include <algorithm>
#include <chrono>

#include "base/sharer.h"

namespace mindserve::gateway {

Admission::Place Admission::AddOf(uint64_t client, Kind kind, TimePoint now) {
  const std::lock_guard lock(mutex_);
  Counts& counts = counts_[static_cast<size_t>(kind)];
  const bool streams = kind == Kind::kStream;
  const size_t max = streams ? max_streams() : max_requests();
  // A request that is crowded is among all of them by now.
  const size_t others = streams ? counts.all : std::min(requests(), max) - 1;
  if (others >= max) return Place::kNone;
  const size_t left = max - others;
  const auto its = counts.of.try_emplace(client, 0).first;
  const bool shared = client != kNobody && (streams || now < shared_until_);
  if (shared && left <= max / 4 && its->second > left / 8) return Place::kOverShare;
  ++counts.all;
  ++its->second;
  return Place::kGiven;
}

void Admission::RemoveOf(uint64_t client, Kind kind) {
  const std::lock_guard lock(mutex_);
  Counts& counts = counts_[static_cast<size_t>(kind)];
  --counts.all;
  const auto its = counts.of.find(client);
  if (--its->second == 0) counts.of.erase(its);
}

void Admission::LackPlace(uint64_t client, TimePoint now) {
  LackRequests(now);
  const std::lock_guard lock(mutex_);
  const auto& of = counts_[static_cast<size_t>(Kind::kCrowded)].of;
  // Who has many of them lacks nothing but more.
  if (!of.contains(client)) shared_until_ = now + std::chrono::minutes(1);
}

}  // namespace mindserve::gateway
