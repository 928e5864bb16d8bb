// A request that was admitted, as its handler and the workers that read its bytes hold it.
#pragma once

#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include "gateway/admit.h"
#include "gateway/request_memory.h"

namespace mindserve::gateway {

// Messages of a stream that its worker may still read, the oldest first.
class HeldMessages {
 public:
  struct Held {
    Message message;
    BytesTicket servable_bytes;  // empty where the servable has no limit of its own
  };

  void Add(Message message, BytesTicket servable_bytes) {
    held_.push_back({std::move(message), std::move(servable_bytes)});
  }
  // Frees the oldest one; there is one.
  void DropOldest() {
    {
      const Held oldest = std::move(held_[first_++]);
    }
    constexpr size_t kWaste = 64;
    if (first_ == held_.size()) {
      held_.clear();
      first_ = 0;
    } else if (first_ >= kWaste && first_ * 2 >= held_.size()) {
      held_.erase(held_.begin(), held_.begin() + static_cast<ptrdiff_t>(first_));
      first_ = 0;
    }
  }
  // The oldest one counts no more, but stays where it is until all go.
  void KeepOldest() {
    Held& oldest = held_[first_++];
    oldest.message.StopCounting();
    oldest.servable_bytes = BytesTicket();
  }
  bool empty() const { return first_ == held_.size(); }
  auto begin() { return held_.begin() + static_cast<ptrdiff_t>(first_); }
  auto end() { return held_.end(); }

 private:
  std::vector<Held> held_;
  size_t first_ = 0;
};

// Shared by the call's handler and by the calls on workers that read its bytes. It counts against the limits until it
// is answered, or given up and no worker is at it. Its bytes stay as long as a worker has not released them, which may
// be long after: a function may keep its inputs.
struct Request {
  explicit Request(Message&& its_message) : message(std::move(its_message)) {}

  Message message;  // of a user's call the head, and the client's messages are these:
  HeldMessages stream;
  Admitted admitted;
  std::optional<Message> head;  // of a Predict call of which the worker is to know more
  bool half_closed = false;     // of a user's call: the client sends no more than these
  bool is_copied = false;       // copies refer to its bytes (mirrors.h), so that those of the messages stay, too
  size_t working = 0;           // calls on workers that are neither ended nor released
  bool given_up = false;        // the handler waits for no answer any more

  // Its worker needs the oldest message no more.
  void DropOldest() { is_copied ? stream.KeepOldest() : stream.DropOldest(); }
  void StopCounting() {
    admitted.Release();
    message.StopCounting();
    if (head) head->StopCounting();
    for (HeldMessages::Held& held : stream) {
      held.message.StopCounting();
      held.servable_bytes = BytesTicket();
    }
  }
  void GiveUp() {
    given_up = true;
    if (working == 0) StopCounting();
  }
  void WorkerIsDone() {
    if (--working == 0 && given_up) StopCounting();
  }
};

}  // namespace mindserve::gateway
