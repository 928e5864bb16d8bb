// Many timers behind one: deadlines of calls, timeouts of connections. Belongs to one thread.
#pragma once

#include <cstddef>
#include <vector>

#include "base/clock.h"

namespace mindserve::gateway {

// Something that happens at a time. To be off the heap before it is destroyed.
class TimerNode {
 public:
  virtual ~TimerNode() = default;
  virtual void OnTimer() = 0;
  bool armed() const { return index_ != kOff; }
  TimePoint at() const { return at_; }

 private:
  friend class TimerHeap;
  static constexpr size_t kOff = static_cast<size_t>(-1);
  TimePoint at_;
  size_t index_ = kOff;
};

class TimerHeap {
 public:
  // Arms, or moves.
  void Set(TimerNode& node, TimePoint at);
  void Cancel(TimerNode& node);
  TimePoint next() const { return heap_.empty() ? kNever : heap_.front()->at_; }
  // Fires what is due, each once; what they arm meanwhile too, if it is due.
  void RunDue(TimePoint now);

 private:
  void Place(size_t index, TimerNode* node);
  void Up(size_t index);
  void Down(size_t index);
  std::vector<TimerNode*> heap_;
};

}  // namespace mindserve::gateway
