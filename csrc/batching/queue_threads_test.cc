#include <atomic>
#include <thread>

#include "batching/queue.h"
#include "batching/queue_fixture.h"

namespace mindserve::batching {
namespace {

using namespace std::chrono_literals;

class QueueThreadsTest : public QueueFixture {};

QueueOptions UpTo(size_t max_batch_size, Duration window = 0ns) {
  return {.max_batch_size = max_batch_size, .max_queue_delay = window, .key = {}};
}

TEST_F(QueueThreadsTest, TakersGetAllOfItOnce) {
  constexpr int kItems = 20'000;
  constexpr int kTakers = 3;
  SystemTime time;
  Queue queue(time, UpTo(7));
  std::deque<Item> items(kItems);
  std::vector<std::atomic<int>> seen(kItems);
  std::atomic<int> taken_count{0};

  std::vector<std::thread> takers;
  for (int i = 0; i < kTakers; ++i) {
    takers.emplace_back([&] {
      for (;;) {
        Taken taken = queue.Take();
        if (taken.closed) return;
        while (Item* item = taken.batch.Pop()) {
          ++seen[item->tensors.size() == 1 ? static_cast<size_t>(item->tensors[0].shape()[0]) : 0];
          ++taken_count;
        }
      }
    });
  }
  for (int i = 0; i < kItems; ++i) {
    items[static_cast<size_t>(i)].client = static_cast<uint64_t>(i % 5);
    items[static_cast<size_t>(i)].tensors.push_back(Tensor::View(DType::kInt8, Shape{i, 0}, {}, nullptr).value());
    ASSERT_TRUE(queue.Push(items[static_cast<size_t>(i)], time.Now()));
    if (i % 10 == 9) queue.Announce();
  }
  while (taken_count < kItems) {
    queue.Announce();
    std::this_thread::yield();
  }
  queue.Close();
  for (std::thread& taker : takers) taker.join();
  for (const auto& count : seen) EXPECT_EQ(count, 1);
}

TEST_F(QueueThreadsTest, OneAnnouncementIsPassedOnWhileThereIsSomethingLeft) {
  SystemTime time;
  Queue queue(time, UpTo(1));
  std::atomic<int> holding{0};
  std::vector<std::thread> takers;
  for (int i = 0; i < 3; ++i) {
    takers.emplace_back([&] {
      const Taken taken = queue.Take();
      if (taken.closed) return;
      // Each keeps its item until all have one: a single taker could not do it.
      ++holding;
      while (holding < 3) std::this_thread::yield();
    });
  }
  for (const char* name : {"a", "b", "c"}) Push(queue, name);
  queue.Announce();
  for (std::thread& taker : takers) taker.join();
  EXPECT_EQ(holding, 3);
}

TEST_F(QueueThreadsTest, CloseEndsThoseWhoWait) {
  Queue queue(time_, UpTo(4));
  std::atomic<int> ended{0};
  std::vector<std::thread> takers;
  for (int i = 0; i < 3; ++i) {
    takers.emplace_back([&] {
      EXPECT_TRUE(queue.Take().closed);
      ++ended;
    });
  }
  queue.Close();
  for (std::thread& taker : takers) taker.join();
  EXPECT_EQ(ended, 3);
}

TEST_F(QueueThreadsTest, TakeWaitsForTheWindow) {
  Queue queue(time_, UpTo(4, 1ms));
  Push(queue, "a");
  std::thread taker([&] { EXPECT_EQ(Names(queue.Take().batch), Strings{"a"}); });
  time_.Advance(1ms);
  taker.join();
}

TEST_F(QueueThreadsTest, TakeReturnsWithWhatHasExpired) {
  Queue queue(time_, UpTo(4));
  Push(queue, "a", 1, In(1ms));
  time_.Advance(1ms);
  Taken taken = queue.Take();
  EXPECT_TRUE(taken.batch.empty());
  EXPECT_EQ(Names(std::move(taken.expired)), Strings{"a"});
}

TEST_F(QueueThreadsTest, WhatIsRemovedIsNotTaken) {
  constexpr int kItems = 5'000;
  SystemTime time;
  Queue queue(time, UpTo(4));
  std::deque<Item> items(kItems);
  std::atomic<int> taken_count{0};
  std::thread taker([&] {
    for (;;) {
      Taken taken = queue.Take();
      if (taken.closed) return;
      taken_count += static_cast<int>(taken.batch.size());
    }
  });
  int removed = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    ASSERT_TRUE(queue.Push(items[i], time.Now()));
    if (i > 0 && queue.Remove(items[i - 1])) ++removed;
    queue.Announce();
  }
  while (taken_count + removed < kItems) {
    queue.Announce();
    std::this_thread::yield();
  }
  queue.Close();
  taker.join();
  EXPECT_EQ(taken_count + removed, kItems);
}

}  // namespace
}  // namespace mindserve::batching
