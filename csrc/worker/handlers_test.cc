// How calls come to handler threads and to the event loop.
#include "worker/handlers.h"

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <set>

#include "worker/service_fixture.h"

namespace mindserve::worker {
namespace {

using link::FrameType;
using std::chrono::milliseconds;

class HandlersTest : public ServiceFixture {
 protected:
  bool LoopReadable() {
    pollfd fd{runtime_->handlers().loop_fd(), POLLIN, 0};
    return ::poll(&fd, 1, 0) == 1;
  }
  // The next events, of which there are some in time.
  std::vector<Handlers::LoopEvents> Events() {
    std::vector<Handlers::LoopEvents> events;
    pollfd fd{runtime_->handlers().loop_fd(), POLLIN, 0};
    EXPECT_EQ(::poll(&fd, 1, static_cast<int>(kPatience.count())), 1);
    runtime_->handlers().TakeLoopEvents(&events);
    return events;
  }
};

// A handler that blocks where nobody can know of it.
TEST_F(HandlersTest, AnotherThreadIsWokenWhenACallHasWaited) {
  Start();
  std::mutex mutex;
  std::condition_variable changed;
  int inside = 0;
  bool go_on = false;
  for (int i = 0; i < 3; ++i) {
    Run([&](const CallPointer& call) {
      std::unique_lock lock(mutex);
      ++inside;
      changed.notify_all();
      changed.wait(lock, [&] { return go_on; });
      call->WriteLast(OutMessage("ok"));
    });
  }
  for (uint64_t call = 1; call <= 3; ++call) OpenUnary(call, kUnary, "x");
  {
    std::unique_lock lock(mutex);
    EXPECT_TRUE(changed.wait_for(lock, kPatience, [&] { return inside == 3; }));
    go_on = true;
    changed.notify_all();
  }
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Receive().text, "ok");
}

TEST_F(HandlersTest, AnotherThreadIsWokenWhenOneWaitsForItsClient) {
  Start();
  std::atomic<int> begun{0};
  for (int i = 0; i < 2; ++i) {
    Run([&](const CallPointer& call) {
      ++begun;
      ReadBlocking(*call);
      call->WriteLast(OutMessage(std::to_string(call->number())));
    });
  }
  Open(1, kClientStreaming);
  lane_->Flush();
  ASSERT_TRUE(Eventually([&] { return begun == 1; }));
  OpenUnary(2, kUnary, "x");
  EXPECT_EQ(Receive().text, "2");
  Message(1, "x", true);
  lane_->Flush();
  Answer answer = Receive();
  if (answer.frame.type == FrameType::kReleaseMessage) answer = Receive();
  EXPECT_EQ(answer.text, "1");
}

TEST_F(HandlersTest, AnAnswerIsNotKeptByTheNextCallOfItsThread) {
  Start();
  std::promise<void> go_on;
  Run([&, future = go_on.get_future().share()](const CallPointer& call) {
    if (call->number() == 3) future.wait();
    call->WriteLast(OutMessage("ok"));
  });
  Open(1, kUnary);
  Message(1, "x", true);
  Open(2, kUnary);
  Message(2, "x", true);
  Open(3, kUnary);
  Message(3, "x", true);
  Open(4, kUnary);
  Message(4, "x", true);
  lane_->Flush();
  EXPECT_EQ(Receive().frame.call, 1u);
  EXPECT_EQ(Receive().frame.call, 2u);
  go_on.set_value();
  EXPECT_EQ(Receive().frame.call, 3u);
  EXPECT_EQ(Receive().frame.call, 4u);
}

TEST_F(HandlersTest, TheLoopIsToldOfACallOnceItsMessageIsThere) {
  Start();
  Open(1, kLoopUnary);
  Open(2, kLoopBothWays);
  lane_->Flush();
  auto events = Events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].call->number(), 2u);
  EXPECT_EQ(events[0].events, Handlers::kOpened);
  EXPECT_FALSE(LoopReadable());
  EXPECT_TRUE(lane_->MayHaveBegun(2));
  EXPECT_FALSE(lane_->MayHaveBegun(1));
  Message(1, "x", true);
  lane_->Flush();
  events = Events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].call->number(), 1u);
  EXPECT_EQ(ReadNow(*events[0].call), "x");
  events[0].call->WriteLast(OutMessage("y"));
  EXPECT_EQ(Receive().text, "y");
}

TEST_F(HandlersTest, TheLoopIsToldOfMessagesThatItHasAskedFor) {
  Start();
  Open(1, kLoopBothWays);
  lane_->Flush();
  const auto opened = Events();
  ASSERT_EQ(opened.size(), 1u);
  ServiceCall& call = *opened[0].call;
  EXPECT_EQ(ReadNow(call), "<not yet>");
  Message(1, "a", false);
  Message(1, "b", false);
  lane_->Flush();
  auto events = Events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].call, opened[0].call);
  EXPECT_EQ(events[0].events, Handlers::kReadable);
  EXPECT_EQ(ReadNow(call), "a");
  ASSERT_TRUE(Eventually([&] { return ReadNow(call) == "b"; }));
  lane_->SendHalfClose(1);
  lane_->Flush();
  ASSERT_TRUE(Eventually([&] { return ReadNow(call) == "<half-closed>"; }));
}

TEST_F(HandlersTest, TheLoopIsToldThatACallIsWritable) {
  Start();
  keeps_replies_ = true;
  Open(1, kLoopBothWays);
  lane_->Flush();
  const auto opened = Events();
  ASSERT_EQ(opened.size(), 1u);
  ServiceCall& call = *opened[0].call;
  while (call.Write(OutMessage("m")) == ServiceCall::Writing::kGoOn) {
  }
  for (size_t i = 0; i < ServiceCall::kMaxMessagesAhead; ++i) Receive();
  EXPECT_FALSE(LoopReadable());
  GiveBackKept(ServiceCall::kMaxMessagesAhead / 2);
  const auto events = Events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].events, Handlers::kWritable);
}

TEST_F(HandlersTest, TheLoopIsToldThatACallIsCancelled) {
  Start();
  Open(1, kLoopBothWays);
  lane_->Flush();
  const auto opened = Events();
  lane_->SendCancel(1);
  lane_->Flush();
  const auto events = Events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].events, Handlers::kCancelled);
  EXPECT_TRUE(events[0].call->cancelled());
}

TEST_F(HandlersTest, TheLoopIsNotToldOfACallThatIsCancelledBefore) {
  Start();
  Open(1, kLoopBothWays);
  lane_->SendCancel(1);
  Open(2, kLoopBothWays);
  lane_->Flush();
  EXPECT_EQ(Receive().frame.call, 1u);
  const auto events = Events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].call->number(), 2u);
  EXPECT_FALSE(lane_->MayHaveBegun(1));
}

// Handler threads on a clock that stands: each call that has begun stays in its handler until it is let go.
class HandlerThreadsTest : public testing::Test {
 protected:
  using CallPointer = std::shared_ptr<ServiceCall>;

  ~HandlerThreadsTest() override { EndThreads(); }

  void EndThreads() {
    handlers_->Stop();
    LetGo(SIZE_MAX);
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  void AddThreads(int count) {
    for (int i = 0; i < count; ++i) {
      threads_.emplace_back([this] { RunThread([this] { return handlers_->Await(); }); });
    }
    AwaitIdle(static_cast<size_t>(count));
  }

  // In a handler that waits for a servable if `calls_` says so.
  template <typename Await>
  void RunThread(Await await) {
    for (;;) {
      const CallPointer call = handlers_->TryTake();
      if (call == nullptr) {
        if (!await()) return;
        continue;
      }
      if (call->spec().client_streaming && !Reads(*call)) continue;
      const bool calls = calls_;
      if (calls) handlers_->BeginCall(nullptr);
      {
        std::unique_lock lock(mutex_);
        by_.push_back(std::this_thread::get_id());
        depths_.push_back(call->depth());
        const size_t own = by_.size();
        changed_.notify_all();
        changed_.wait(lock, [&] { return own <= let_go_ || (inner_goes_ && call->depth() > 0); });
      }
      if (calls) handlers_->EndCall(nullptr);
    }
  }

  // A stream, until it is over; true: a message came, and `works_` says that the handler has to do with it.
  bool Reads(ServiceCall& call) {
    for (;;) {
      const auto reading = call.Read([](std::span<const std::byte>) {});
      if (reading == ServiceCall::Reading::kHalfClosed || reading == ServiceCall::Reading::kGone) return false;
      if (reading == ServiceCall::Reading::kMessage && works_) return true;
      if (reading == ServiceCall::Reading::kNotYet) call.AwaitReadable();
    }
  }

  // Waits until so many of the threads do nothing.
  void AwaitIdle(size_t count) {
    EXPECT_TRUE(Eventually([&] { return handlers_->idle_threads() == count; }));
  }

  void Push(int count, uint32_t depth = 0) {
    for (int i = 0; i < count; ++i) {
      ServiceCall::Opened opened;
      opened.depth = depth;
      pushed_.push_back(std::make_shared<ServiceCall>(handlers_, std::move(opened)));
      handlers_->Push(pushed_.back());
    }
  }

  // The first so many calls that have begun, or will.
  void LetGo(size_t count) {
    const std::lock_guard lock(mutex_);
    let_go_ = count;
    changed_.notify_all();
  }

  // All inner calls.
  void LetInnerGo() {
    const std::lock_guard lock(mutex_);
    inner_goes_ = true;
    changed_.notify_all();
  }

  // Waits until so many have begun; on how many threads those did.
  size_t ThreadsOf(size_t begun) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(30), [&] { return by_.size() >= begun; }));
    return std::set(by_.begin(), by_.end()).size();
  }

  // The depths of the calls that have begun, in that order.
  std::vector<uint32_t> Depths() {
    const std::lock_guard lock(mutex_);
    return depths_;
  }

  FakeTime time_;
  std::atomic<bool> calls_{false};
  std::atomic<bool> works_{false};
  std::vector<CallPointer> pushed_;
  std::shared_ptr<Handlers> handlers_ = [this] {
    auto handlers = std::make_shared<Handlers>(time_, [] {});
    handlers->Add({.path = "/t.T/M"});
    handlers->Add({.path = "/t.T/Up", .client_streaming = true});
    return handlers;
  }();

 protected:
  std::vector<std::thread> threads_;

 private:
  std::mutex mutex_;
  // Guarded by mutex_.
  std::condition_variable changed_;
  std::vector<std::thread::id> by_;  // which began them, in that order
  std::vector<uint32_t> depths_;
  size_t let_go_ = 0;
  bool inner_goes_ = false;
};

TEST_F(HandlerThreadsTest, OneThreadRunsAsLongAsItKeepsUp) {
  AddThreads(4);
  Push(1);
  ThreadsOf(1);
  Push(20);
  EXPECT_EQ(handlers_->Tend(time_.Now()), time_.Now() + milliseconds(1));
  LetGo(SIZE_MAX);
  EXPECT_EQ(ThreadsOf(21), 1u);
  EXPECT_EQ(handlers_->Tend(time_.Now()), kNever);
}

TEST_F(HandlerThreadsTest, AfterAMillisecondAnotherOneIsWoken) {
  AddThreads(4);
  Push(2);
  ThreadsOf(1);
  time_.Advance(milliseconds(1));
  handlers_->Tend(time_.Now());
  EXPECT_EQ(ThreadsOf(2), 2u);
}

TEST_F(HandlerThreadsTest, OneThatGotTheInterpreterAtOnceWakesTheNext) {
  AddThreads(4);
  Push(5);
  ThreadsOf(1);
  time_.Advance(milliseconds(1));
  handlers_->Tend(time_.Now());
  ThreadsOf(2);
  // Of the second it is not known yet.
  handlers_->Tend(time_.Now());
  EXPECT_TRUE(handlers_->Stay(milliseconds(0)));
  handlers_->Tend(time_.Now());
  EXPECT_EQ(ThreadsOf(3), 3u);
}

TEST_F(HandlerThreadsTest, ThreadsThatWaitForTheInterpreterWakeNone) {
  AddThreads(4);
  Push(10);
  ThreadsOf(1);
  time_.Advance(milliseconds(1));
  handlers_->Tend(time_.Now());
  ThreadsOf(2);
  EXPECT_TRUE(handlers_->Stay(milliseconds(5)));
  time_.Advance(milliseconds(40));
  handlers_->Tend(time_.Now());
  LetGo(9);
  EXPECT_EQ(ThreadsOf(10), 2u);
}

TEST_F(HandlerThreadsTest, OnlyAFewThatWaitForTheInterpreterGoOn) {
  AddThreads(4);
  Push(4);
  for (size_t running = 1; running < 4; ++running) {
    ThreadsOf(running);
    EXPECT_TRUE(handlers_->Stay(milliseconds(5)));
    time_.Advance(milliseconds(60));
    handlers_->Tend(time_.Now());
  }
  EXPECT_EQ(ThreadsOf(4), 4u);
  EXPECT_FALSE(handlers_->Stay(milliseconds(5)));
  EXPECT_TRUE(handlers_->Stay(milliseconds(0)));
}

TEST_F(HandlerThreadsTest, StopLetsThreadsGo) {
  std::thread thread([&] { EXPECT_FALSE(handlers_->Await()); });
  handlers_->Stop();
  thread.join();
  EXPECT_FALSE(handlers_->Await());
}

// With somebody who starts extra threads, if he may.
class ExtraThreadsTest : public HandlerThreadsTest {
 protected:
  ExtraThreadsTest() {
    keeper_ = std::thread([this] {
      for (bool stuck = false;;) {
        const Handlers::Needs needs = handlers_->AwaitNeeds(stuck);
        if (needs.stopped) return;
        stuck = needs.stuck;
        stuck_ = stuck;
        if (fails_ && needs.threads > 0) {
          handlers_->ThreadsFailed(needs.threads);
          failed_ += needs.threads;
          continue;
        }
        for (size_t i = 0; i < needs.threads; ++i) {
          ++started_;
          ++extra_;
          threads_.emplace_back([this] {
            RunThread([this] { return handlers_->AwaitExtra(idle_for_); });
            --extra_;
          });
        }
      }
    });
  }
  ~ExtraThreadsTest() override {
    handlers_->Stop();
    keeper_.join();
    // Here, since they use what is this class's own.
    EndThreads();
  }

  // Nobody who looks after the line for as long as anything could come of it.
  void Tend() {
    for (int i = 0; i < 20; ++i) {
      time_.Advance(milliseconds(1));
      handlers_->Tend(time_.Now());
    }
  }
  // All ordinary threads, so many, held by calls of this depth that wait for a servable.
  void Fill(int count, uint32_t depth = 0) {
    calls_ = true;
    AddThreads(count);
    for (int i = 1; i <= count; ++i) {
      Push(1, depth);
      ThreadsOf(static_cast<size_t>(i));
    }
  }

  std::atomic<bool> fails_{false};
  std::atomic<size_t> failed_{0};
  std::atomic<size_t> started_{0};
  std::atomic<size_t> extra_{0};
  std::atomic<bool> stuck_{false};
  milliseconds idle_for_ = std::chrono::minutes(1);

 private:
  std::thread keeper_;
};

TEST_F(ExtraThreadsTest, TakeInnerCallsWhileAllOthersWaitForServables) {
  Fill(2);
  Push(3);
  Push(1, 2);
  EXPECT_EQ(ThreadsOf(3), 3u);
  EXPECT_EQ(Depths(), (std::vector<uint32_t>{0, 0, 2}));
  EXPECT_EQ(handlers_->waiting(), 3u);
  Tend();
  EXPECT_EQ(handlers_->waiting(), 3u) << "ordinary calls get none";
  EXPECT_EQ(started_, 1u);
}

TEST_F(ExtraThreadsTest, AreNoMoreThanThereAreThreadsOfADepth) {
  Fill(2);
  Push(5, 1);
  EXPECT_EQ(ThreadsOf(4), 4u);
  Tend();
  EXPECT_EQ(handlers_->waiting(), 3u);
  Push(5, 2);
  EXPECT_EQ(ThreadsOf(6), 6u);
  Tend();
  EXPECT_EQ(Depths(), (std::vector<uint32_t>{0, 0, 1, 1, 2, 2}));
  EXPECT_EQ(handlers_->waiting(), 6u);
  // The deepest there are come to an end in any case.
  Push(1, wire::kMostDepth);
  EXPECT_EQ(ThreadsOf(7), 7u);
  LetGo(SIZE_MAX);
  ThreadsOf(13);
  EXPECT_TRUE(Eventually([&] { return handlers_->waiting() == 0; }));
}

TEST_F(ExtraThreadsTest, AreNotForCallsOfHandlersThatWork) {
  AddThreads(1);
  Push(1);
  ThreadsOf(1);
  Push(1, 1);
  Tend();
  EXPECT_EQ(handlers_->waiting(), 1u);
  // Another thread calls for the handler.
  handlers_->BeginCall(pushed_.front().get());
  EXPECT_EQ(ThreadsOf(2), 2u);
  Push(1, 2);
  Tend();
  EXPECT_EQ(handlers_->waiting(), 1u) << "the extra one works";
  handlers_->BeginCall(pushed_.back().get());
  handlers_->EndCall(pushed_.back().get());
  handlers_->EndCall(pushed_.front().get());
  LetGo(2);
  EXPECT_EQ(ThreadsOf(3), 2u);
}

TEST_F(ExtraThreadsTest, TakeOneCallAfterTheOther) {
  Fill(1);
  calls_ = false;
  Push(1, 1);
  EXPECT_EQ(ThreadsOf(2), 2u);
  Push(3, 1);
  Tend();
  EXPECT_EQ(handlers_->waiting(), 3u) << "one is matched by the one that waits";
  LetInnerGo();
  EXPECT_EQ(ThreadsOf(5), 2u);
  EXPECT_EQ(started_, 1u);
}

TEST_F(ExtraThreadsTest, EndWhenThereIsNothingToDo) {
  idle_for_ = milliseconds(1);
  Fill(1);
  calls_ = false;
  Push(1, 1);
  ThreadsOf(2);
  LetGo(2);
  EXPECT_TRUE(Eventually([&] { return extra_ == 0; }));
  calls_ = true;
  Push(1);
  ThreadsOf(3);
  Push(1, 1);
  EXPECT_EQ(ThreadsOf(4), 3u);
  EXPECT_EQ(started_, 2u);
}

TEST_F(ExtraThreadsTest, ThatCanNotBeStartedLeaveCallsToOthers) {
  fails_ = true;
  Fill(1);
  Push(1, 1);
  ASSERT_TRUE(Eventually([&] { return failed_ == 1; }));
  ASSERT_TRUE(Eventually([&] { return handlers_->waiting() == 1; }));
  handlers_->Tend(time_.Now());
  EXPECT_EQ(failed_, 1u);
  LetGo(1);
  EXPECT_EQ(ThreadsOf(2), 1u);
  Push(1, 1);
  time_.Advance(std::chrono::seconds(2));
  handlers_->Tend(time_.Now());
  ASSERT_TRUE(Eventually([&] { return failed_ == 2; }));
  fails_ = false;
  time_.Advance(std::chrono::seconds(2));
  ASSERT_TRUE(Eventually([&] { return handlers_->waiting() == 1; }));
  handlers_->Tend(time_.Now());
  EXPECT_EQ(ThreadsOf(3), 2u);
}

TEST_F(ExtraThreadsTest, ItIsToldWhenAllAreStuckAndWhenItIsOver) {
  AddThreads(2);
  Push(1);
  ThreadsOf(1);
  Push(1);
  time_.Advance(milliseconds(20));
  handlers_->Tend(time_.Now());
  ThreadsOf(2);
  time_.Advance(Handlers::kStuck * 2);
  handlers_->Tend(time_.Now());
  Push(1);
  handlers_->Tend(time_.Now());
  time_.Advance(Handlers::kStuck - milliseconds(1));
  handlers_->Tend(time_.Now());
  EXPECT_FALSE(stuck_) << "nothing has waited for so long";
  time_.Advance(milliseconds(1));
  handlers_->Tend(time_.Now());
  EXPECT_TRUE(Eventually([&] { return stuck_.load(); }));
  const auto held = handlers_->held();
  ASSERT_EQ(held.size(), 2u);
  EXPECT_EQ(held[0].handler, 0);
  EXPECT_GE(held[0].time, Handlers::kStuck * 3);
  EXPECT_NE(held[0].thread, held[1].thread);
  LetGo(1);
  EXPECT_TRUE(Eventually([&] { return !stuck_; }));
}

// Clients that stream and send nothing.
class RestingTest : public ExtraThreadsTest {
 protected:
  ~RestingTest() override {
    for (const CallPointer& call : streams_) call->Cancel();
  }

  CallPointer Open() {
    ServiceCall::Opened opened;
    opened.handler = 1;
    const CallPointer call = streams_.emplace_back(std::make_shared<ServiceCall>(handlers_, std::move(opened)));
    EXPECT_TRUE(call->Deliver({}, false).ok());
    return call;
  }

  // A stream that has a thread.
  CallPointer Rest() {
    const CallPointer call = Open();
    AwaitRest(*call);
    return call;
  }

  // Waits until it rests since now.
  void AwaitRest(const ServiceCall& call) {
    EXPECT_TRUE(Eventually([&] { return handlers_->Rests(call, time_.Now()); }));
  }

  void Send(ServiceCall& call) {
    EXPECT_TRUE(call.Deliver(std::span<const std::byte>(), false).ok());
    AwaitRest(call);
    LetGoOfPosted();
  }

  // Each of these calls holds what holds it.
  void LetGoOfPosted() {
    std::vector<CallPointer> posted;
    Handlers::Models models;
    handlers_->TakePosted(&posted, &models);
  }

  // Which are to be ended after so long.
  std::vector<CallPointer> RestingAfter(Duration time) {
    time_.Advance(time);
    std::vector<Handlers::Resting> resting;
    handlers_->Tend(time_.Now(), &resting);
    std::vector<CallPointer> calls;
    for (const auto& [call, since] : resting) {
      calls.push_back(call);
      since_.push_back(since);
    }
    return calls;
  }

  std::vector<TimePoint> since_;  // of all that were to be ended

 private:
  std::vector<CallPointer> streams_;
};

TEST_F(RestingTest, ThoseThatHaveRestedLongestMakeRoomForTheLine) {
  AddThreads(3);
  std::vector<CallPointer> streams;
  for (int i = 0; i < 3; ++i) {
    streams.push_back(Rest());
    time_.Advance(std::chrono::seconds(10));
  }
  Push(2);
  EXPECT_TRUE(RestingAfter(Duration::zero()).empty());
  EXPECT_TRUE(RestingAfter(Handlers::kStuck - milliseconds(1)).empty()) << "the line is too young";
  ASSERT_EQ(RestingAfter(milliseconds(1)), (std::vector{streams[0], streams[1]}));
  for (size_t i = 0; i < 2; ++i) EXPECT_TRUE(streams[i]->CancelIfResting(since_[i]));
  EXPECT_EQ(ThreadsOf(2), 2u);
  EXPECT_FALSE(streams[2]->over());
  EXPECT_EQ(handlers_->waiting(), 0u);
  EXPECT_FALSE(stuck_);
}

TEST_F(RestingTest, TheyRestForHoursWhileNobodyWaits) {
  AddThreads(1);
  const CallPointer stream = Rest();
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(RestingAfter(std::chrono::hours(1)).empty());
  EXPECT_FALSE(stream->over());
  // Nor does the first one who waits end it at once.
  Push(1);
  EXPECT_TRUE(RestingAfter(Duration::zero()).empty());
  EXPECT_TRUE(RestingAfter(Handlers::kStuck - milliseconds(1)).empty());
  ASSERT_EQ(RestingAfter(milliseconds(1)), std::vector{stream});
}

TEST_F(RestingTest, OnlyThoseWhoHaveWaitedLongAreMadeRoomFor) {
  AddThreads(2);
  const CallPointer stream = Rest();
  Push(1);
  ThreadsOf(1);
  // Each of these waits almost as long.
  for (size_t taken = 2; taken <= 4; ++taken) {
    Push(1);
    EXPECT_TRUE(RestingAfter(Duration::zero()).empty());
    EXPECT_TRUE(RestingAfter(Handlers::kStuck - milliseconds(1)).empty());
    LetGo(taken - 1);
    ThreadsOf(taken);
  }
  EXPECT_FALSE(stream->over());
  Push(1);
  ASSERT_EQ(RestingAfter(Handlers::kStuck), std::vector{stream}) << "though another thread works";
}

TEST_F(RestingTest, ThoseThatSaidNothingInLineHaveRestedThere) {
  AddThreads(1);
  const CallPointer first = Rest();
  const CallPointer second = Open();
  Push(1);
  ASSERT_EQ(RestingAfter(Handlers::kStuck), std::vector{first});
  EXPECT_TRUE(first->CancelIfResting(since_[0]));
  EXPECT_TRUE(Eventually([&] { return RestingAfter(Duration::zero()) == std::vector{second}; }));
  EXPECT_TRUE(second->CancelIfResting(since_.back()));
  EXPECT_EQ(ThreadsOf(1), 1u);
}

TEST_F(RestingTest, AClientThatSendsNowAndThenGoesOn) {
  AddThreads(2);
  const CallPointer sends = Rest();
  const CallPointer rests = Rest();
  Push(2);
  EXPECT_TRUE(RestingAfter(Duration::zero()).empty());
  time_.Advance(Handlers::kRest - milliseconds(1));
  Send(*sends);
  ASSERT_EQ(RestingAfter(milliseconds(1)), std::vector{rests}) << "though two wait";
  EXPECT_TRUE(rests->CancelIfResting(since_[0]));
  ThreadsOf(1);
  EXPECT_TRUE(RestingAfter(Duration::zero()).empty());
  time_.Advance(Handlers::kRest - milliseconds(1));
  Send(*sends);
  EXPECT_TRUE(RestingAfter(Handlers::kRest - milliseconds(1)).empty());
  EXPECT_FALSE(sends->over());
  // The other thread is held by its handler, and this one rests.
  ASSERT_EQ(RestingAfter(milliseconds(1)), std::vector{sends});
}

TEST_F(RestingTest, AMessageThatHasComeMeanwhileCounts) {
  AddThreads(1);
  const CallPointer stream = Rest();
  Push(1);
  EXPECT_TRUE(RestingAfter(Duration::zero()).empty());
  ASSERT_EQ(RestingAfter(Handlers::kStuck), std::vector{stream});
  Send(*stream);
  EXPECT_FALSE(stream->CancelIfResting(since_[0]));
  EXPECT_FALSE(stream->over());
}

TEST_F(RestingTest, AHandlerThatWorksIsStuckAndGoesOn) {
  AddThreads(1);
  const CallPointer stream = Rest();
  const TimePoint since = time_.Now();
  time_.Advance(std::chrono::seconds(1));
  works_ = true;
  EXPECT_TRUE(stream->Deliver(std::span<const std::byte>(), false).ok());
  ThreadsOf(1);
  Push(1);
  EXPECT_TRUE(RestingAfter(Duration::zero()).empty());
  EXPECT_TRUE(RestingAfter(Handlers::kStuck).empty());
  EXPECT_FALSE(stream->CancelIfResting(since));
  EXPECT_TRUE(Eventually([&] { return stuck_.load(); }));
  LetGoOfPosted();
}

TEST_F(ExtraThreadsTest, ThoseThatTakeCallsNowAndThenAreNotStuck) {
  AddThreads(1);
  Push(4);
  for (size_t taken = 1; taken <= 3; ++taken) {
    ThreadsOf(taken);
    handlers_->Tend(time_.Now());
    time_.Advance(Handlers::kStuck - milliseconds(1));
    handlers_->Tend(time_.Now());
    LetGo(taken);
  }
  ThreadsOf(4);
  EXPECT_FALSE(stuck_);
}

}  // namespace
}  // namespace mindserve::worker
