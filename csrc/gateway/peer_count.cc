#include "gateway/peer_count.h"

namespace mindserve::gateway {
namespace {

// "ipv4:127.0.0.1:4711" without the port. Clients of a Unix socket are all one peer.
std::string Host(std::string_view address) {
  return std::string(address.starts_with("ip") ? address.substr(0, address.rfind(':')) : address);
}

}  // namespace

std::optional<PeerCount::Place> PeerCount::Enter(std::string_view address, size_t max_all, size_t max_per_peer) {
  std::string host = Host(address);
  std::lock_guard lock(mutex_);
  if (all_ >= max_all) return std::nullopt;
  size_t& count = peers_[host];
  if (max_per_peer != 0 && count >= max_per_peer) return std::nullopt;
  ++count;
  ++all_;
  return Place(this, std::move(host));
}

void PeerCount::Leave(const std::string& peer) {
  std::lock_guard lock(mutex_);
  --all_;
  const auto found = peers_.find(peer);
  if (--found->second == 0) peers_.erase(found);
}

size_t PeerCount::size() const {
  std::lock_guard lock(mutex_);
  return all_;
}

}  // namespace mindserve::gateway
