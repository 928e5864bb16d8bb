#include "gateway/timer_heap.h"

namespace mindserve::gateway {

void TimerHeap::Place(size_t index, TimerNode* node) {
  heap_[index] = node;
  node->index_ = index;
}

void TimerHeap::Up(size_t index) {
  TimerNode* node = heap_[index];
  while (index > 0) {
    const size_t parent = (index - 1) / 2;
    if (heap_[parent]->at_ <= node->at_) break;
    Place(index, heap_[parent]);
    index = parent;
  }
  Place(index, node);
}

void TimerHeap::Down(size_t index) {
  TimerNode* node = heap_[index];
  for (;;) {
    size_t child = 2 * index + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && heap_[child + 1]->at_ < heap_[child]->at_) ++child;
    if (node->at_ <= heap_[child]->at_) break;
    Place(index, heap_[child]);
    index = child;
  }
  Place(index, node);
}

void TimerHeap::Set(TimerNode& node, TimePoint at) {
  node.at_ = at;
  if (!node.armed()) {
    node.index_ = heap_.size();
    heap_.push_back(&node);
  }
  Up(node.index_);
  Down(node.index_);
}

void TimerHeap::Cancel(TimerNode& node) {
  if (!node.armed()) return;
  const size_t index = node.index_;
  node.index_ = TimerNode::kOff;
  TimerNode* last = heap_.back();
  heap_.pop_back();
  if (last == &node) return;
  Place(index, last);
  Up(index);
  Down(last->index_);
}

void TimerHeap::RunDue(TimePoint now) {
  while (!heap_.empty() && heap_.front()->at_ <= now) {
    TimerNode* node = heap_.front();
    Cancel(*node);
    node->OnTimer();
  }
}

}  // namespace mindserve::gateway
