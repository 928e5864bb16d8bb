// An instance as a queue sees it, and a chain of such.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "base/execution.h"
#include "tensor/tensor.h"

namespace mindserve::batching {

class ClientQueue;
class Queue;
struct Group;

// Something that waits for a stage. Owned by whoever pushed it, who keeps it alive and leaves it alone while it is in a
// queue or with a taker; the links make queueing it free of allocations. In one queue or chain at a time.
struct Item {
  uint64_t client = 0;                            // whose turn it takes
  TimePoint deadline = kNever;                    // not worth running from then on
  std::vector<Tensor> tensors;                    // what the stage takes; from the taker's return on, what it gave
  ExecutionMark mark;                             // by which a taker notes that it executes this
  TimePoint arrival() const { return arrival_; }  // of the last Push

 private:
  friend class ClientQueue;
  friend class ItemList;
  friend class Queue;
  friend struct Group;

  static constexpr size_t kNotInHeap = static_cast<size_t>(-1);

  uint64_t key_hash_ = 0;
  TimePoint arrival_;
  TimePoint due_;                    // the deadline, or what counts as one
  uint64_t sequence_ = 0;            // decides between equal ones
  ClientQueue* waits_in_ = nullptr;  // null: not in a queue
  Group* group_ = nullptr;
  Item* previous_ = nullptr;  // in the client's sorted list
  Item* next_ = nullptr;      // there, or in a chain
  Item* older_ = nullptr;     // in the group, by arrival
  Item* newer_ = nullptr;
  size_t heap_index_ = kNotInHeap;  // in the client's heap
};

// A chain of items, linked through themselves: appending can't fail.
class ItemList {
 public:
  ItemList() = default;
  ItemList(ItemList&& other) noexcept { *this = std::move(other); }
  ItemList& operator=(ItemList&& other) noexcept;

  bool empty() const { return first_ == nullptr; }
  size_t size() const { return size_; }
  void Append(Item& item);
  void Append(ItemList&& other);
  // The first item, taken off; null if there is none.
  Item* Pop();

 private:
  Item* first_ = nullptr;
  Item* last_ = nullptr;
  size_t size_ = 0;
};

}  // namespace mindserve::batching
