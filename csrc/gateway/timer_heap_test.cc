#include "gateway/timer_heap.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <vector>

namespace mindserve::gateway {
namespace {

using std::chrono::nanoseconds;

TimePoint At(int64_t ns) {
  return TimePoint(nanoseconds(ns));
}

struct Node final : TimerNode {
  void OnTimer() override { fired(); }
  std::function<void()> fired = [] {};
};

TEST(TimerHeapTest, FiresInOrderWhatIsDue) {
  TimerHeap heap;
  std::vector<int> fired;
  std::vector<std::unique_ptr<Node>> nodes;
  uint32_t state = 7;
  for (int i = 0; i < 200; ++i) {
    nodes.push_back(std::make_unique<Node>());
    const int at = static_cast<int>((state = state * 1664525 + 1013904223) >> 22);
    nodes.back()->fired = [&fired, at] { fired.push_back(at); };
    heap.Set(*nodes.back(), At(at));
  }
  // Some move, some go.
  size_t left = nodes.size();
  for (size_t i = 0; i < nodes.size(); i += 3) {
    heap.Cancel(*nodes[i]);
    EXPECT_FALSE(nodes[i]->armed());
    --left;
  }
  heap.RunDue(At(500));
  EXPECT_GT(heap.next(), At(500));
  heap.RunDue(At(2000));
  EXPECT_EQ(heap.next(), kNever);
  EXPECT_EQ(fired.size(), left);
  EXPECT_TRUE(std::ranges::is_sorted(fired));
}

TEST(TimerHeapTest, SetMovesAndCancelMayComeTwice) {
  TimerHeap heap;
  Node a;
  Node b;
  heap.Set(a, At(10));
  heap.Set(b, At(20));
  EXPECT_EQ(heap.next(), At(10));
  heap.Set(a, At(30));
  EXPECT_EQ(heap.next(), At(20));
  heap.Set(a, At(5));
  EXPECT_EQ(heap.next(), At(5));
  heap.Cancel(a);
  heap.Cancel(a);
  EXPECT_EQ(heap.next(), At(20));
  heap.Cancel(b);
  EXPECT_EQ(heap.next(), kNever);
}

TEST(TimerHeapTest, ATimerMayArmItselfAndCancelOthers) {
  TimerHeap heap;
  Node a;
  Node b;
  int runs = 0;
  a.fired = [&] {
    heap.Cancel(b);
    if (++runs < 3) heap.Set(a, At(runs));
  };
  b.fired = [] { FAIL(); };
  heap.Set(a, At(0));
  heap.Set(b, At(1));
  heap.RunDue(At(10));
  EXPECT_EQ(runs, 3);
}

}  // namespace
}  // namespace mindserve::gateway
