// Connections, counted in all and by peer.
#pragma once

#include <cstddef>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "gateway/service_table.h"

namespace mindserve::gateway {

// Thread-safe. Outlives its places.
class PeerCount {
 public:
  // A connection that is counted; not any more once this is gone.
  class Place {
   public:
    Place(Place&& other) noexcept : count_(std::exchange(other.count_, nullptr)), peer_(std::move(other.peer_)) {}
    Place& operator=(Place&& other) noexcept {
      std::swap(count_, other.count_);
      std::swap(peer_, other.peer_);
      return *this;
    }
    ~Place() {
      if (count_ != nullptr) count_->Leave(peer_);
    }

   private:
    friend class PeerCount;
    Place(PeerCount* count, std::string peer) : count_(count), peer_(std::move(peer)) {}
    PeerCount* count_;
    std::string peer_;
  };

  // `address` as in net::Peer. Nothing if there are `max_all` connections, or `max_per_peer` of its host (0: any
  // number).
  std::optional<Place> Enter(std::string_view address, size_t max_all, size_t max_per_peer);
  size_t size() const;

 private:
  void Leave(const std::string& peer);

  mutable std::mutex mutex_;
  size_t all_ = 0;           // guarded by mutex_
  StringMap<size_t> peers_;  // guarded by mutex_
};

}  // namespace mindserve::gateway
