#include "gateway/admission.h"

namespace mindserve::gateway {

Admission::StreamPlace Admission::AddStream(uint64_t client) {
  const std::lock_guard lock(mutex_);
  const size_t max = max_streams();
  if (streams_ >= max) return StreamPlace::kNone;
  const size_t left = max - streams_;
  const auto its = streams_of_.try_emplace(client, 0).first;
  if (left <= max / 4 && its->second > left) return StreamPlace::kOverShare;
  ++streams_;
  ++its->second;
  return StreamPlace::kGiven;
}

void Admission::RemoveStream(uint64_t client) {
  const std::lock_guard lock(mutex_);
  --streams_;
  const auto found = streams_of_.find(client);
  if (--found->second == 0) streams_of_.erase(found);
}

}  // namespace mindserve::gateway
