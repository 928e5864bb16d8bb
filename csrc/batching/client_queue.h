// What one client has in a queue, earliest deadline first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "batching/item.h"

namespace mindserve::batching {

class ClientQueue;

// Clients in a line.
class ClientList {
 public:
  bool empty() const { return first_ == nullptr; }
  size_t size() const { return size_; }
  ClientQueue* front() const { return first_; }
  void PushBack(ClientQueue& client);
  void Remove(ClientQueue& client);

 private:
  ClientQueue* first_ = nullptr;
  ClientQueue* last_ = nullptr;
  size_t size_ = 0;
};

// Items mostly arrive in the order of their deadlines: those are a list, into and out of which an item goes in constant
// time. Only what arrives with an earlier deadline than the list's last goes to a heap. Not thread-safe: guarded by its
// Queue.
class ClientQueue {
 public:
  uint64_t id = 0;
  ClientQueue* next = nullptr;  // in the list where it is

  bool empty() const { return size_ == 0; }
  size_t size() const { return size_; }

  // To the end of `list`, out of the list where it is.
  void MoveTo(ClientList& list);

  // Makes room for one more Push, which then can't fail. Throws std::bad_alloc.
  void Reserve();
  // `item.due_` and `item.sequence_` are set.
  void Push(Item& item);
  void Remove(Item& item);

  // The item whose deadline is the earliest; null if there is none.
  Item* Front() const;

  // The earliest item of `group`, looking at no more than `*budget` items, which it counts down. Null: none found.
  Item* FindMember(const Group* group, size_t* budget) const;

  // Removes what is past its deadline at `now`, calls `forget` with each, and returns a time before which nothing more
  // will be.
  template <typename Forget>
  TimePoint RemoveExpired(TimePoint now, Forget forget);

  // Gives back memory that is more than a client without work should hold.
  void Shrink();

 private:
  friend class ClientList;

  static bool Before(const Item& a, const Item& b) {
    return a.due_ != b.due_ ? a.due_ < b.due_ : a.sequence_ < b.sequence_;
  }
  void Place(Item& item, size_t index);
  void SiftUp(Item& item, size_t index);
  void SiftDown(Item& item, size_t index);

  ClientList* list_ = nullptr;
  ClientQueue* previous_ = nullptr;
  size_t size_ = 0;
  Item* first_ = nullptr;
  Item* last_ = nullptr;
  std::vector<Item*> heap_;
};

template <typename Forget>
TimePoint ClientQueue::RemoveExpired(TimePoint now, Forget forget) {
  // Whatever has expired is due, so it is among the first of the list; what has no deadline may be due as well and
  // stays.
  Item* item = first_;
  while (item != nullptr && item->due_ <= now) {
    Item* following = item->next_;
    if (item->deadline <= now) {
      Remove(*item);
      forget(*item);
    }
    item = following;
  }
  TimePoint again = item == nullptr ? kNever : item->due_;
  if (heap_.empty()) return again;

  size_t kept = 0;
  for (Item* candidate : heap_) {
    if (candidate->deadline <= now) {
      candidate->heap_index_ = Item::kNotInHeap;
      --size_;
      forget(*candidate);
    } else {
      if (candidate->due_ > now && candidate->due_ < again) again = candidate->due_;
      Place(*candidate, kept++);
    }
  }
  if (kept != heap_.size()) {
    heap_.resize(kept);
    for (size_t i = kept / 2; i-- > 0;) SiftDown(*heap_[i], i);
  }
  return again;
}

}  // namespace mindserve::batching
