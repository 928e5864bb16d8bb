#include "net/event_loop.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "net/test_support.h"

namespace mindserve::net {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::Not;
using testing::SocketPair;

void Send(const UniqueFd& fd, char byte = 'x') {
  ASSERT_EQ(::write(fd.get(), &byte, 1), 1);
}

bool IsOpen(int fd) {
  return ::fcntl(fd, F_GETFD) >= 0;
}

// Writes down what the loop calls, and does what a test gives it to do.
class Recorder final : public RoundHooks {
 public:
  void RoundEnd() override {
    calls.push_back("end");
    if (on_round_end) on_round_end();
  }
  bool PrepareSleep() override {
    calls.push_back("prepare");
    return !on_prepare || on_prepare();
  }
  void Awake() override { calls.push_back("awake"); }

  std::vector<std::string> calls;
  std::function<void()> on_round_end;
  std::function<bool()> on_prepare;
};

TEST(EventLoopTest, RunsPostedTasksInOrder) {
  EventLoop loop;
  std::vector<int> ran;
  for (int i = 0; i < 3; ++i) loop.Post([&ran, i] { ran.push_back(i); });
  loop.Post([&loop] { loop.Stop(); });
  loop.Run(nullptr);
  EXPECT_THAT(ran, ElementsAre(0, 1, 2));
}

TEST(EventLoopTest, StopBeforeRunReturnsAtOnceAndKeepsWhatIsPosted) {
  EventLoop loop;
  bool ran = false;
  loop.Post([&] {
    ran = true;
    loop.Stop();
  });
  loop.Stop();
  loop.Run(nullptr);
  EXPECT_FALSE(ran);
  loop.Run(nullptr);
  EXPECT_TRUE(ran);
}

TEST(EventLoopTest, TakesTasksFromManyThreads) {
  constexpr int kThreads = 4;
  constexpr int kTasks = 2000;
  EventLoop loop;
  int ran = 0;  // on the loop's thread only
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < kTasks; ++j) {
        loop.Post([&] {
          if (++ran == kThreads * kTasks) loop.Stop();
        });
      }
    });
  }
  loop.Run(nullptr);
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(ran, kThreads * kTasks);
}

TEST(EventLoopTest, DropsTasksThatNeverRan) {
  const auto held = std::make_shared<int>(1);
  {
    EventLoop loop;
    loop.Post([held] {});
  }
  EXPECT_EQ(held.use_count(), 1);
}

TEST(EventLoopTest, WatchCallsOncePerAwaitAndAgainWhileThereIsSomethingToRead) {
  EventLoop loop;
  const auto [near, far] = SocketPair();
  const auto watch = loop.NewWatch(near.get());
  Send(far);
  int calls = 0;
  watch->AwaitReadable([&] {
    ++calls;
    // Nothing was read: awaiting again is answered again.
    watch->AwaitReadable([&] {
      ++calls;
      loop.Post([&] { loop.Post([&] { loop.Stop(); }); });
    });
  });
  loop.Run(nullptr);
  EXPECT_EQ(calls, 2);
}

TEST(EventLoopTest, WatchTellsWritableAndReadableApart) {
  EventLoop loop;
  const auto [near, far] = SocketPair();
  const auto watch = loop.NewWatch(near.get());
  std::vector<std::string> calls;
  watch->AwaitReadable([&] {
    calls.push_back("readable");
    loop.Stop();
  });
  watch->AwaitWritable([&, peer = far.get()] {
    calls.push_back("writable");
    ASSERT_EQ(::write(peer, "x", 1), 1);
  });
  loop.Run(nullptr);
  EXPECT_THAT(calls, ElementsAre("writable", "readable"));
}

TEST(EventLoopTest, WatchTellsTheEndOfFile) {
  EventLoop loop;
  auto [near, far] = SocketPair();
  const auto watch = loop.NewWatch(near.get());
  watch->AwaitReadable([&] { loop.Stop(); });
  far.reset();
  loop.Run(nullptr);
}

TEST(EventLoopTest, WatchMayBeDestroyedInItsHandlerAndLeavesTheDescriptorOpen) {
  EventLoop loop;
  const auto [near, far] = SocketPair();
  auto watch = loop.NewWatch(near.get());
  const auto held = std::make_shared<int>(7);
  int calls = 0;
  const auto handler = [&, held] {
    watch.reset();
    EXPECT_EQ(*held, 7);  // the handler itself is still there
    ++calls;
    loop.Post([&] { loop.Post([&] { loop.Stop(); }); });
  };
  // Both are ready at once: the second is forgotten by the first.
  Send(far);
  watch->AwaitReadable(handler);
  watch->AwaitWritable(handler);
  loop.Run(nullptr);
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(IsOpen(near.get()));
}

TEST(EventLoopTest, WatchDestroyedByAnotherHandlerOfTheRoundIsNotCalled) {
  EventLoop loop;
  const auto [near1, far1] = SocketPair();
  const auto [near2, far2] = SocketPair();
  auto watch1 = loop.NewWatch(near1.get());
  auto watch2 = loop.NewWatch(near2.get());
  Send(far1);
  Send(far2);
  int calls = 0;
  const auto handler = [&](std::unique_ptr<Watch>& other) {
    ++calls;
    other.reset();
    loop.Post([&] { loop.Stop(); });
  };
  watch1->AwaitReadable([&] { handler(watch2); });
  watch2->AwaitReadable([&] { handler(watch1); });
  loop.Run(nullptr);
  EXPECT_EQ(calls, 1);
}

TEST(EventLoopTest, WatchesAndTimersThatOutliveTheirLoopDoNothing) {
  const auto [near, far] = SocketPair();
  Send(far);
  const auto held = std::make_shared<int>(1);
  auto loop = std::make_unique<EventLoop>();
  const auto watch = loop->NewWatch(near.get());
  const auto idle = loop->NewWatch(far.get());
  const auto timer = loop->NewTimer();
  const auto owned = std::make_shared<std::unique_ptr<Timer>>(loop->NewTimer());
  watch->AwaitReadable([held, owned] { FAIL(); });
  timer->Start(Clock::now(), [held] { FAIL(); });
  loop.reset();
  EXPECT_EQ(held.use_count(), 1);
  watch->AwaitReadable([] { FAIL(); });
  timer->Start(Clock::now(), [] { FAIL(); });
  timer->Cancel();
}

TEST(EventLoopTest, WatchesANumberThatWasClosedAndIsUsedAgain) {
  EventLoop loop;
  int calls = 0;
  for (int i = 0; i < 3; ++i) {
    const auto [near, far] = SocketPair();
    const auto watch = loop.NewWatch(near.get());
    Send(far);
    watch->AwaitReadable([&] {
      ++calls;
      loop.Stop();
    });
    loop.Run(nullptr);
  }
  EXPECT_EQ(calls, 3);
}

TEST(EventLoopTest, TimersRunInTheOrderOfTheirTimes) {
  EventLoop loop;
  std::vector<int> ran;
  const auto late = loop.NewTimer();
  const auto early = loop.NewTimer();
  const TimePoint now = Clock::now();
  late->Start(now + milliseconds(2), [&] {
    ran.push_back(2);
    EXPECT_GE(Clock::now(), now + milliseconds(2));
    loop.Stop();
  });
  early->Start(now + milliseconds(1), [&] { ran.push_back(1); });
  loop.Run(nullptr);
  EXPECT_THAT(ran, ElementsAre(1, 2));
}

TEST(EventLoopTest, TimerStartReplacesAndCancelForgets) {
  EventLoop loop;
  const auto replaced = loop.NewTimer();
  const auto cancelled = loop.NewTimer();
  const auto never = loop.NewTimer();
  const auto last = loop.NewTimer();
  const TimePoint past = Clock::now();
  int calls = 0;
  replaced->Start(past, [&] { FAIL() << "was replaced"; });
  replaced->Start(past, [&] { ++calls; });
  cancelled->Start(past, [&] { FAIL() << "was cancelled"; });
  cancelled->Cancel();
  never->Start(kNever, [&] { FAIL() << "never"; });
  last->Start(past + milliseconds(1), [&] { loop.Stop(); });
  loop.Run(nullptr);
  EXPECT_EQ(calls, 1);
}

TEST(EventLoopTest, TimerThatIsOverIsStillReplacedBeforeItRuns) {
  EventLoop loop;
  const auto first = loop.NewTimer();
  const auto second = loop.NewTimer();
  const TimePoint past = Clock::now();
  // Both are over in the same round; the first to run replaces the other.
  first->Start(past, [&] { second->Start(past, [&] { loop.Stop(); }); });
  second->Start(past + std::chrono::nanoseconds(1), [] { FAIL() << "was replaced"; });
  loop.Run(nullptr);
}

TEST(EventLoopTest, TimerMayBeRestartedAndDestroyedInItsHandler) {
  EventLoop loop;
  auto timer = loop.NewTimer();
  int calls = 0;
  std::function<void()> again = [&] {
    if (++calls < 3) return timer->Start(Clock::now(), again);
    timer.reset();
    loop.Stop();
  };
  timer->Start(Clock::now(), again);
  loop.Run(nullptr);
  EXPECT_EQ(calls, 3);
}

TEST(EventLoopTest, DestroyedTimerDoesNotRun) {
  EventLoop loop;
  auto timer = loop.NewTimer();
  timer->Start(Clock::now(), [] { FAIL(); });
  const auto far = loop.NewTimer();
  far->Start(Clock::now() + hours(1), [] { FAIL(); });
  timer.reset();
  const auto last = loop.NewTimer();
  last->Start(Clock::now(), [&] { loop.Stop(); });
  loop.Run(nullptr);
}

TEST(EventLoopTest, HooksSurroundARound) {
  EventLoop loop;
  const auto [near, far] = SocketPair();
  const auto watch = loop.NewWatch(near.get());
  Recorder hooks;
  Send(far);
  watch->AwaitReadable([&] {
    hooks.calls.push_back("handler");
    loop.Stop();
  });
  loop.Run(&hooks);
  EXPECT_THAT(hooks.calls, ElementsAre("prepare", "awake", "handler", "end"));
}

TEST(EventLoopTest, WorkAfterAllMeansAnotherRoundEndInsteadOfBlocking) {
  EventLoop loop;
  Recorder hooks;
  int refused = 0;
  hooks.on_prepare = [&] { return ++refused > 2; };
  hooks.on_round_end = [&] {
    if (refused == 2) loop.Stop();
  };
  loop.Run(&hooks);  // would block for ever
  EXPECT_THAT(hooks.calls, ElementsAre("prepare", "awake", "end", "prepare", "awake", "end"));
}

TEST(EventLoopTest, WhatTheRoundsEndPostsRunsWithoutSleeping) {
  EventLoop loop;
  Recorder hooks;
  int rounds = 0;
  loop.Post([] {});
  hooks.on_round_end = [&] {
    if (++rounds == 1) loop.Post([&] { hooks.calls.push_back("task"); });
    if (rounds == 2) loop.Stop();
  };
  loop.Run(&hooks);
  EXPECT_THAT(hooks.calls, ElementsAre("awake", "end", "awake", "task", "end"));
}

TEST(EventLoopTest, AllThatIsReadyIsOneRound) {
  constexpr int kSockets = 20;
  EventLoop loop;
  Recorder hooks;
  std::vector<std::pair<UniqueFd, UniqueFd>> sockets;
  std::vector<std::unique_ptr<Watch>> watches;
  int calls = 0;
  for (int i = 0; i < kSockets; ++i) {
    sockets.push_back(SocketPair());
    watches.push_back(loop.NewWatch(sockets.back().first.get()));
    Send(sockets.back().second);
    watches.back()->AwaitReadable([&] { ++calls; });
  }
  hooks.on_round_end = [&] {
    EXPECT_EQ(calls, kSockets);
    loop.Stop();
  };
  loop.Run(&hooks);
  EXPECT_THAT(hooks.calls, ElementsAre("prepare", "awake", "end"));
}

TEST(EventLoopTest, AHandlerThatIsAlwaysReadyDoesNotPutOffTheRoundsEnd) {
  EventLoop loop;
  Recorder hooks;
  const auto [near, far] = SocketPair();
  const auto watch = loop.NewWatch(near.get());
  Send(far);
  int calls = 0;
  std::function<void()> again = [&] {
    ++calls;
    watch->AwaitReadable(again);
  };
  watch->AwaitReadable(again);
  std::function<void()> repost = [&] { loop.Post(repost); };
  loop.Post(repost);
  int rounds = 0;
  hooks.on_round_end = [&] {
    if (++rounds == 10) loop.Stop();
  };
  loop.Run(&hooks);
  EXPECT_GE(calls, 5);
  EXPECT_LE(calls, 20);
}

// The other side rings a bell when it finds the flag set: with each order of threads it is either heard or not needed.
TEST(EventLoopTest, NoWakeupIsLostBetweenTheLastLookAndTheSleep) {
  constexpr int kItems = 20000;
  EventLoop loop;
  const UniqueFd bell(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  const auto watch = loop.NewWatch(bell.get());
  std::atomic<int> published{0};
  std::atomic<bool> asleep{false};
  int taken = 0;

  class Consumer final : public RoundHooks {
   public:
    Consumer(std::function<void()> take, std::function<bool()> sleep, std::function<void()> awake)
        : take_(std::move(take)), sleep_(std::move(sleep)), awake_(std::move(awake)) {}
    void RoundEnd() override { take_(); }
    bool PrepareSleep() override { return sleep_(); }
    void Awake() override { awake_(); }

   private:
    std::function<void()> take_;
    std::function<bool()> sleep_;
    std::function<void()> awake_;
  };
  Consumer hooks(
      [&] {
        taken = published.load();
        if (taken == kItems) loop.Stop();
      },
      [&] {
        asleep.store(true);
        return published.load() == taken;
      },
      [&] { asleep.store(false); });
  std::function<void()> heard = [&] {
    uint64_t count;
    EXPECT_EQ(::read(bell.get(), &count, sizeof count), ssize_t{sizeof count});
    watch->AwaitReadable(heard);
  };
  watch->AwaitReadable(heard);

  std::thread producer([&] {
    for (int i = 0; i < kItems; ++i) {
      ++published;
      const uint64_t one = 1;
      if (asleep.load()) {
        EXPECT_EQ(::write(bell.get(), &one, sizeof one), ssize_t{sizeof one});
      }
    }
  });
  loop.Run(&hooks);
  producer.join();
  EXPECT_EQ(taken, kItems);
}

}  // namespace
}  // namespace mindserve::net
