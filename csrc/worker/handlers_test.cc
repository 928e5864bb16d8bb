// How calls come to handler threads and to the event loop.
#include "worker/handlers.h"

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>

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

// A client may cancel as fast as it calls, while the loop is busy.
TEST_F(HandlersTest, CancelledCallsLeaveTheLoopsEvents) {
  Start();
  Handlers& handlers = runtime_->handlers();
  std::vector<std::weak_ptr<ServiceCall>> calls;
  std::vector<std::shared_ptr<ServiceCall>> kept;
  for (uint64_t number = 0; number < 100; ++number) {
    ServiceCall::Opened opened;
    opened.number = number;
    opened.handler = kLoopUnary;
    kept.push_back(std::make_shared<ServiceCall>(handlers.shared_from_this(), std::move(opened)));
    calls.push_back(kept.back());
    EXPECT_TRUE(kept.back()->Deliver(std::span<const std::byte>(), true).ok());
  }
  for (uint64_t number = 0; number < 100; ++number) {
    if (number % 7 != 3) kept[number]->Cancel();
  }
  kept.clear();
  for (uint64_t number = 0; number < 100; ++number) EXPECT_EQ(calls[number].expired(), number % 7 != 3);
  std::vector<uint64_t> numbers;
  for (const auto& event : Events()) numbers.push_back(event.call->number());
  ASSERT_EQ(numbers.size(), 14u);
  for (size_t i = 0; i < numbers.size(); ++i) EXPECT_EQ(numbers[i], i * 7 + 3);
  EXPECT_FALSE(LoopReadable());
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

}  // namespace
}  // namespace mindserve::worker
