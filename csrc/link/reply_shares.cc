#include "link/reply_shares.h"

namespace mindserve::link {

void ReplyShares::Add(uint64_t offset, uint64_t client, size_t bytes) {
  parts_[offset] = {client, bytes};
  held_[client] += bytes;
}

void ReplyShares::Remove(uint64_t offset) {
  if (parts_.empty()) return;  // as where all answers are small: each that comes back asks
  const auto part = parts_.find(offset);
  if (part == parts_.end()) return;
  const auto held = held_.find(part->second.client);
  held->second -= part->second.bytes;
  if (held->second == 0) held_.erase(held);
  parts_.erase(part);
}

size_t ReplyShares::Held(uint64_t client) const {
  const auto held = held_.find(client);
  return held == held_.end() ? 0 : held->second;
}

}  // namespace mindserve::link
