// What of an HTTP/2 stream's window is withheld from a client whose messages are taken slowly.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "gateway/admission.h"

namespace mindserve::gateway {

// Withheld are the bytes of whole messages that wait to be taken, and what came behind the last that may wait. A
// message that is coming withholds nothing, whatever its size: it could never be completed otherwise. So besides the
// window one message at most is held.
class StreamWindow {
 public:
  // So many messages wait at most; what comes behind them is kept as it came.
  static constexpr size_t kMostHeld = 128;

  explicit StreamWindow(Admission& admission) : kept_bytes_(admission) {}

  void Received(size_t bytes) { received_ += bytes; }
  // A message that took so many bytes is complete, and waits.
  void Hold(size_t bytes) {
    held_.push_back(bytes);
    held_bytes_ += bytes;
  }
  // The oldest does not wait any more. False: none did.
  bool Take() {
    if (holds() == 0) return false;
    held_bytes_ -= held_[first_++];
    if (first_ == held_.size()) {
      held_.clear();
      first_ = 0;
    } else if (first_ == kMostHeld) {
      held_.erase(held_.begin(), held_.begin() + static_cast<ptrdiff_t>(first_));
      first_ = 0;
    }
    return true;
  }
  size_t holds() const { return held_.size() - first_; }
  bool full() const { return holds() >= kMostHeld; }

  // Bytes behind the last message that may wait; counted against max_enqueued_bytes. False: there is no room.
  bool Keep(std::span<const std::byte> bytes) {
    if (!kept_bytes_.GrowTo(kept_.size() + bytes.size())) return false;
    kept_.insert(kept_.end(), bytes.begin(), bytes.end());
    return true;
  }
  std::span<const std::byte> kept() const { return std::span(kept_).subspan(dropped_); }
  // That many of the first kept bytes are kept no more.
  void Drop(size_t bytes, Admission& admission) {
    dropped_ += bytes;
    if (dropped_ < kept_.size()) return;
    kept_ = {};
    dropped_ = 0;
    kept_bytes_ = BytesTicket(admission);
  }

  // How much the client may send more, beyond what it was told before.
  size_t Grant() {
    const size_t open = received_ - held_bytes_ - kept().size();
    const size_t more = open - std::min(open, granted_);
    granted_ += more;
    return more;
  }

 private:
  size_t received_ = 0;
  size_t granted_ = 0;
  std::vector<size_t> held_;  // from first_: the sizes of those that wait
  size_t first_ = 0;
  size_t held_bytes_ = 0;
  std::vector<std::byte> kept_;
  size_t dropped_ = 0;
  BytesTicket kept_bytes_;
};

}  // namespace mindserve::gateway
