#include "batching/client_queue.h"

namespace mindserve::batching {

void ClientQueue::Reserve() {
  if (heap_.size() == heap_.capacity()) heap_.reserve(heap_.size() * 2 + 4);
}

void ClientQueue::Push(Item& item) {
  ++size_;
  if (last_ == nullptr || !Before(item, *last_)) {
    item.previous_ = last_;
    item.next_ = nullptr;
    (last_ == nullptr ? first_ : last_->next_) = &item;
    last_ = &item;
    return;
  }
  heap_.push_back(&item);
  SiftUp(item, heap_.size() - 1);
}

void ClientQueue::Remove(Item& item) {
  --size_;
  if (item.heap_index_ == Item::kNotInHeap) {
    (item.previous_ == nullptr ? first_ : item.previous_->next_) = item.next_;
    (item.next_ == nullptr ? last_ : item.next_->previous_) = item.previous_;
    item.previous_ = item.next_ = nullptr;
    return;
  }
  const size_t hole = item.heap_index_;
  item.heap_index_ = Item::kNotInHeap;
  Item& moved = *heap_.back();
  heap_.pop_back();
  if (&moved == &item) return;
  if (hole > 0 && Before(moved, *heap_[(hole - 1) / 2])) {
    SiftUp(moved, hole);
  } else {
    SiftDown(moved, hole);
  }
}

Item* ClientQueue::Front() const {
  if (heap_.empty()) return first_;
  if (first_ == nullptr) return heap_.front();
  return Before(*heap_.front(), *first_) ? heap_.front() : first_;
}

Item* ClientQueue::FindMember(const Group* group, size_t* budget) const {
  if (*budget == 0) return nullptr;
  Item* top = heap_.empty() ? nullptr : heap_.front();
  if (top != nullptr && top->group_ != group) {
    top = nullptr;
    --*budget;
  }
  for (Item* item = first_; item != nullptr && *budget > 0; item = item->next_) {
    if (top != nullptr && Before(*top, *item)) return top;
    if (item->group_ == group) return item;
    --*budget;
  }
  return top;
}

void ClientQueue::Shrink() {
  constexpr size_t kKept = 64;
  if (heap_.empty() && heap_.capacity() > kKept) std::vector<Item*>().swap(heap_);
}

void ClientQueue::Place(Item& item, size_t index) {
  heap_[index] = &item;
  item.heap_index_ = index;
}

void ClientQueue::SiftUp(Item& item, size_t index) {
  while (index > 0) {
    const size_t parent = (index - 1) / 2;
    if (!Before(item, *heap_[parent])) break;
    Place(*heap_[parent], index);
    index = parent;
  }
  Place(item, index);
}

void ClientQueue::SiftDown(Item& item, size_t index) {
  for (;;) {
    size_t child = 2 * index + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && Before(*heap_[child + 1], *heap_[child])) ++child;
    if (!Before(*heap_[child], item)) break;
    Place(*heap_[child], index);
    index = child;
  }
  Place(item, index);
}

void ClientQueue::MoveTo(ClientList& list) {
  if (list_ != nullptr) list_->Remove(*this);
  list.PushBack(*this);
}

void ClientList::PushBack(ClientQueue& client) {
  client.list_ = this;
  client.previous_ = last_;
  client.next = nullptr;
  (last_ == nullptr ? first_ : last_->next) = &client;
  last_ = &client;
  ++size_;
}

void ClientList::Remove(ClientQueue& client) {
  (client.previous_ == nullptr ? first_ : client.previous_->next) = client.next;
  (client.next == nullptr ? last_ : client.next->previous_) = client.previous_;
  client.list_ = nullptr;
  client.previous_ = client.next = nullptr;
  --size_;
}

}  // namespace mindserve::batching
