#include "batching/item.h"

#include <utility>

namespace mindserve::batching {

ItemList& ItemList::operator=(ItemList&& other) noexcept {
  first_ = std::exchange(other.first_, nullptr);
  last_ = std::exchange(other.last_, nullptr);
  size_ = std::exchange(other.size_, 0);
  return *this;
}

void ItemList::Append(Item& item) {
  item.next_ = nullptr;
  (last_ == nullptr ? first_ : last_->next_) = &item;
  last_ = &item;
  ++size_;
}

void ItemList::Append(ItemList&& other) {
  if (other.empty()) return;
  (last_ == nullptr ? first_ : last_->next_) = other.first_;
  last_ = other.last_;
  size_ += other.size_;
  other = ItemList();
}

Item* ItemList::Pop() {
  Item* item = first_;
  if (item == nullptr) return nullptr;
  first_ = item->next_;
  if (first_ == nullptr) last_ = nullptr;
  --size_;
  item->next_ = nullptr;
  return item;
}

}  // namespace mindserve::batching
