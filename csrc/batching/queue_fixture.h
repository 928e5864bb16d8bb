// For tests of the queue: items with names, and a clock that stands still.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "batching/queue.h"

namespace mindserve::batching {

struct NamedItem : Item {
  std::string name;
};

// The names in a chain, in order.
inline std::vector<std::string> Names(ItemList items) {
  std::vector<std::string> names;
  while (Item* item = items.Pop()) names.push_back(static_cast<NamedItem*>(item)->name);
  return names;
}

inline Tensor FloatRow(int64_t size) {
  std::span<std::byte> bytes;
  Tensor row = Tensor::Allocate(DType::kFloat32, Shape{size}, &bytes).value();
  std::fill(bytes.begin(), bytes.end(), std::byte{0});
  return row;
}

class QueueFixture : public ::testing::Test {
 protected:
  using Strings = std::vector<std::string>;

  NamedItem& Make(std::string name, uint64_t client, TimePoint deadline = kNever) {
    NamedItem& item = items_.emplace_back();
    item.name = std::move(name);
    item.client = client;
    item.deadline = deadline;
    return item;
  }

  NamedItem& Push(Queue& queue, std::string name, uint64_t client = 1, TimePoint deadline = kNever) {
    NamedItem& item = Make(std::move(name), client, deadline);
    EXPECT_TRUE(queue.Push(item, time_.Now()));
    return item;
  }

  // An item of one float row, so that its key depends on `size`.
  NamedItem& PushRow(Queue& queue, std::string name, int64_t size, uint64_t client = 1, TimePoint deadline = kNever) {
    NamedItem& item = Make(std::move(name), client, deadline);
    item.tensors.push_back(FloatRow(size));
    EXPECT_TRUE(queue.Push(item, time_.Now()));
    return item;
  }

  Strings TakeNames(Queue& queue) { return Names(queue.TryTake().batch); }

  TimePoint In(Duration delay) const { return time_.Now() + delay; }

  FakeTime time_;
  std::deque<NamedItem> items_;
};

}  // namespace mindserve::batching
