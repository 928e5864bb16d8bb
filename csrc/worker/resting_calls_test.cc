// Calls whose clients let a handler's thread wait, while others lack it.
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <vector>

#include "worker/handler_threads_fixture.h"

namespace mindserve::worker {
namespace {

using std::chrono::milliseconds;
using Dismissed = ServiceCall::Dismissed;

// Clients that stream and send nothing.
class RestingTest : public ExtraThreadsTest {
 protected:
  ~RestingTest() override {
    for (const CallPointer& call : streams_) call->Cancel();
  }

  CallPointer Open(uint64_t client = 0) {
    ServiceCall::Opened opened;
    opened.handler = 1;
    opened.client = client;
    const CallPointer call = streams_.emplace_back(std::make_shared<ServiceCall>(handlers_, std::move(opened)));
    EXPECT_TRUE(call->Deliver({}, false).ok());
    return call;
  }

  // A stream that has a thread.
  CallPointer Rest(uint64_t client = 0) {
    const CallPointer call = Open(client);
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
    since_.clear();
    std::vector<Handlers::Resting> resting;
    handlers_->Tend(time_.Now(), &resting);
    std::vector<CallPointer> calls;
    for (const Handlers::Resting& each : resting) {
      calls.push_back(each.call);
      since_.push_back(each.since);
    }
    return calls;
  }

  // Ends them.
  void Dismiss(const std::vector<CallPointer>& resting) {
    for (size_t i = 0; i < resting.size(); ++i) EXPECT_EQ(resting[i]->Dismiss(since_[i]), Dismissed::kYes);
  }

  // Between looks.
  static constexpr Duration kLook = milliseconds(10);

  std::vector<TimePoint> since_;  // of those that are to be ended

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
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(streams[i]->Dismiss(since_[i]), Dismissed::kYes);
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
  Dismiss({first});
  EXPECT_TRUE(Eventually([&] { return RestingAfter(kLook) == std::vector{second}; }));
  Dismiss({second});
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
  EXPECT_EQ(rests->Dismiss(since_[0]), Dismissed::kYes);
  ThreadsOf(1);
  EXPECT_TRUE(RestingAfter(Duration::zero()).empty());
  time_.Advance(Handlers::kRest - milliseconds(1));
  Send(*sends);
  EXPECT_TRUE(RestingAfter(Handlers::kRest - kLook).empty());
  EXPECT_FALSE(sends->over());
  // The other thread is held by its handler, and this one rests.
  ASSERT_EQ(RestingAfter(kLook), std::vector{sends});
}

TEST_F(RestingTest, AMessageThatHasComeMeanwhileCounts) {
  AddThreads(1);
  const CallPointer stream = Rest();
  Push(1);
  EXPECT_TRUE(RestingAfter(Duration::zero()).empty());
  ASSERT_EQ(RestingAfter(Handlers::kStuck), std::vector{stream});
  Send(*stream);
  EXPECT_EQ(stream->Dismiss(since_[0]), Dismissed::kNo);
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
  EXPECT_EQ(stream->Dismiss(since), Dismissed::kNo);
  EXPECT_TRUE(Eventually([&] { return stuck_.load(); }));
  LetGoOfPosted();
}

TEST_F(RestingTest, ThoseOnTheirWayOutAreNoReasonToEndMore) {
  AddThreads(2);
  lingers_ = true;
  const CallPointer first = Rest();
  time_.Advance(std::chrono::seconds(1));
  const CallPointer second = Rest();
  Push(1);
  EXPECT_TRUE(RestingAfter(Duration::zero()).empty());
  const auto resting = RestingAfter(Handlers::kStuck);
  ASSERT_EQ(resting, std::vector{first});
  Dismiss(resting);
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(RestingAfter(std::chrono::seconds(1)).empty());
  lingers_ = false;
  lingers_.notify_all();
  ThreadsOf(1);
  EXPECT_FALSE(second->over());
}

TEST_F(RestingTest, WhoHoldsMoreThanItsShareMakesRoomThoughItSends) {
  AddThreads(4);
  std::vector<CallPointer> streams;
  for (int i = 0; i < 4; ++i) {
    streams.push_back(Rest(1));
    time_.Advance(milliseconds(1));
  }
  const auto pass = [&](Duration time) {
    for (const CallPointer& stream : streams) Send(*stream);
    return RestingAfter(time);
  };
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(pass(std::chrono::seconds(4)).empty()) << "nobody waits";
  Push(1, 0, 1);
  EXPECT_TRUE(pass(std::chrono::seconds(4)).empty());
  EXPECT_TRUE(pass(std::chrono::seconds(4)).empty()) << "it is in its own way";
  Push(1, 0, 2);
  EXPECT_TRUE(pass(Handlers::kStuck - milliseconds(1)).empty()) << "the other has not waited for long";
  const auto resting = RestingAfter(kLook);
  ASSERT_EQ(resting, std::vector{streams[0]}) << "which has its thread longest; one waits";
  Dismiss(resting);
  ThreadsOf(1);
  EXPECT_EQ(Clients(), std::vector<uint64_t>{2});
}

TEST_F(RestingTest, AThreadIsKeptFreeForWholeCallsForAMinute) {
  AddThreads(4);
  for (int i = 0; i < 4; ++i) Rest(1);
  Push(1, 0, 2);
  EXPECT_TRUE(RestingAfter(Duration::zero()).empty());
  auto resting = RestingAfter(Handlers::kStuck);
  ASSERT_EQ(resting.size(), 1u);
  Dismiss(resting);
  ThreadsOf(1);
  // The client comes back with another stream at once, and with more.
  std::vector<CallPointer> back;
  for (int i = 0; i < 3; ++i) back.push_back(Open(1));
  LetGo(1);
  AwaitIdle(1);
  for (size_t call = 2; call <= 5; ++call) {
    EXPECT_TRUE(RestingAfter(std::chrono::seconds(1)).empty());
    Push(1, 0, 2);
    ThreadsOf(call);
    LetGo(call);
    AwaitIdle(1);
  }
  EXPECT_EQ(handlers_->waiting(), 3u);
  EXPECT_FALSE(stuck_);
  // They have the others by turns, and in the end all of them.
  resting = RestingAfter(Handlers::kStuck);
  EXPECT_EQ(resting.size(), 3u);
  Dismiss(resting);
  EXPECT_TRUE(Eventually([&] { return handlers_->waiting() == 0; }));
  Open(1);
  EXPECT_TRUE(RestingAfter(kLook).empty());
  EXPECT_EQ(handlers_->waiting(), 1u);
  time_.Advance(Handlers::kKeptFree);
  handlers_->Tend(time_.Now());
  EXPECT_TRUE(Eventually([&] { return handlers_->waiting() == 0; }));
}

TEST_F(RestingTest, WhoHoldsNoMoreThanItsShareKeepsWhatSends) {
  AddThreads(3);
  std::vector<CallPointer> streams;
  for (uint64_t client = 1; client <= 3; ++client) streams.push_back(Rest(client));
  Push(10, 0, 4);
  for (int i = 0; i < 20; ++i) {
    for (const CallPointer& stream : streams) Send(*stream);
    EXPECT_TRUE(RestingAfter(Handlers::kRest - milliseconds(1)).empty());
  }
  ASSERT_EQ(RestingAfter(kLook), std::vector{streams[0]}) << "all rest, and one is enough for a share";
}

TEST_F(RestingTest, ACrowdOfOneClientEndsNothingOfOthers) {
  AddThreads(3);
  const CallPointer quiet = Rest(1);
  std::vector<CallPointer> crowd;
  for (int i = 0; i < 2; ++i) crowd.push_back(Rest(2));
  for (int i = 0; i < 100; ++i) Open(2);
  for (int i = 0; i < 10; ++i) {
    const auto resting = RestingAfter(Handlers::kRest);
    EXPECT_EQ(resting.size(), 2u);
    for (const CallPointer& call : resting) EXPECT_EQ(call->client(), 2u);
    Dismiss(resting);
    EXPECT_TRUE(Eventually([&] { return handlers_->waiting() == 100 - 2 * (static_cast<size_t>(i) + 1); }));
    for (const auto& held : handlers_->held()) EXPECT_EQ(held.handler, 1);
  }
  EXPECT_FALSE(quiet->over());
}

TEST_F(RestingTest, NotForACallOfItsOwnThatHasJustCome) {
  AddThreads(2);
  const CallPointer quiet = Rest(1);
  // What another client has is in line for long, and that one holds the other thread.
  Push(20, 0, 2);
  ThreadsOf(1);
  RestingAfter(Duration::zero());
  RestingAfter(Handlers::kStuck * 2);
  Push(1, 0, 1);
  EXPECT_TRUE(RestingAfter(kLook).empty());
  EXPECT_TRUE(RestingAfter(Handlers::kStuck / 2).empty());
  EXPECT_EQ(RestingAfter(Handlers::kStuck / 2), std::vector{quiet}) << "now it is in its own way";
}

TEST_F(RestingTest, WhoSendsWithoutPauseMakesRoomAtItsNextMessage) {
  AddThreads(2);
  works_ = true;
  std::vector<CallPointer> streams;
  for (size_t i = 0; i < 2; ++i) {
    streams.push_back(Open(1));
    EXPECT_TRUE(streams[i]->Deliver(std::span<const std::byte>(), false).ok());
    EXPECT_TRUE(streams[i]->Deliver(std::span<const std::byte>(), false).ok());
    time_.Advance(milliseconds(20));
    handlers_->Tend(time_.Now());
    ThreadsOf(i + 1);
  }
  // Both handlers work at their first message, and the next is there.
  Push(1, 0, 2);
  EXPECT_TRUE(RestingAfter(Duration::zero()).empty());
  const auto resting = RestingAfter(Handlers::kStuck);
  ASSERT_EQ(resting, std::vector{streams[0]});
  EXPECT_EQ(since_[0], kNever);
  EXPECT_EQ(streams[0]->Dismiss(kNever), Dismissed::kAtRead);
  EXPECT_FALSE(streams[0]->over());
  EXPECT_TRUE(RestingAfter(std::chrono::seconds(1)).empty()) << "it will let go";
  ServiceCall::Outgoing out;
  streams[0]->TakeOutgoing(&out);
  EXPECT_FALSE(out.dismissed);
  const auto take = [](std::span<const std::byte>) { FAIL(); };
  EXPECT_EQ(streams[0]->Read(take), ServiceCall::Reading::kNotYet);
  streams[0]->TakeOutgoing(&out);
  EXPECT_TRUE(out.dismissed);
  LetGoOfPosted();
}

TEST_F(RestingTest, WhoHasSentAllIsNoStreamAnyMore) {
  AddThreads(2);
  works_ = true;
  std::vector<CallPointer> streams;
  for (size_t i = 0; i < 2; ++i) {
    streams.push_back(Open(1));
    EXPECT_TRUE(streams[i]->Deliver(std::span<const std::byte>(), /*ends=*/true).ok());
    time_.Advance(milliseconds(20));
    handlers_->Tend(time_.Now());
    ThreadsOf(i + 1);
  }
  Push(1, 0, 2);
  EXPECT_TRUE(RestingAfter(Duration::zero()).empty());
  EXPECT_TRUE(RestingAfter(Handlers::kStuck).empty());
  EXPECT_EQ(streams[0]->Dismiss(kNever), Dismissed::kNo);
  // The same where it becomes so in line.
  const CallPointer late = Open(2);
  EXPECT_EQ(late->place.kind, CallLine::kStream);
  EXPECT_TRUE(late->Deliver({}, /*ends=*/true).ok());
  EXPECT_EQ(late->place.kind, CallLine::kWhole);
  EXPECT_EQ(handlers_->waiting(), 2u);
  LetGoOfPosted();
}

// As when another thread of the user's ends a call that has stopped for a slow reader.
TEST_F(RestingTest, ACallThatIsParkedAndPostedEnds) {
  ServiceCall::Opened opened;
  opened.handler = 1;
  const auto call = std::make_shared<ServiceCall>(handlers_, std::move(opened));
  EXPECT_TRUE(call->Begin(time_.Now()));
  while (call->Write(OutMessage(std::string(1000, 'x'))) != ServiceCall::Writing::kHoldBack) continue;
  EXPECT_EQ(call->Park(), ServiceCall::Parked::kYes);
  call->Finish(Code::kCancelled, "by another thread", {});
  EXPECT_TRUE(call->over());
  LetGoOfPosted();
}

// A client may cancel as fast as it calls, while all threads are busy.
TEST_F(RestingTest, CancelledCallsLeaveTheLine) {
  AddThreads(1);
  const CallPointer stream = Rest(1);
  std::weak_ptr<ServiceCall> gone;
  {
    ServiceCall::Opened opened;
    const auto unary = std::make_shared<ServiceCall>(handlers_, std::move(opened));
    gone = unary;
    EXPECT_TRUE(unary->Deliver(std::span<const std::byte>(), true).ok());
    EXPECT_EQ(handlers_->waiting(), 1u);
    unary->Cancel();
  }
  EXPECT_EQ(handlers_->waiting(), 0u);
  EXPECT_TRUE(gone.expired());
}

}  // namespace
}  // namespace mindserve::worker
