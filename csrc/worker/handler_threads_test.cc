// How many threads run handlers, and of which kind.
#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <vector>

#include "worker/handler_threads_fixture.h"

namespace mindserve::worker {
namespace {

using std::chrono::milliseconds;

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

TEST_F(HandlerThreadsTest, ClientsTakeTurns) {
  AddThreads(1);
  Push(50, 0, 1);
  ThreadsOf(1);
  Push(2, 0, 2);
  LetGo(5);
  ThreadsOf(6);
  EXPECT_EQ(Clients(), (std::vector<uint64_t>{1, 2, 1, 2, 1, 1}));
}

TEST_F(HandlerThreadsTest, WhoHoldsThreadsWaitsForThoseWhoHoldFewer) {
  AddThreads(5);
  Push(9, 0, 1);
  for (size_t running = 1; running < 5; ++running) {
    ThreadsOf(running);
    EXPECT_TRUE(handlers_->Stay(milliseconds(0)));
    time_.Advance(milliseconds(1));
    handlers_->Tend(time_.Now());
  }
  ThreadsOf(5);
  Push(3, 0, 2);
  for (size_t done = 1; done <= 3; ++done) {
    LetGo(done);
    ThreadsOf(5 + done);
  }
  EXPECT_EQ(Clients(), (std::vector<uint64_t>{1, 1, 1, 1, 1, 2, 2, 2}));
}

TEST_F(HandlerThreadsTest, StopLetsThreadsGo) {
  std::thread thread([&] { EXPECT_FALSE(handlers_->Await()); });
  handlers_->Stop();
  thread.join();
  EXPECT_FALSE(handlers_->Await());
}

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
