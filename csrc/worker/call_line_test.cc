// Whose turn it is in the line for handler threads.
#include "worker/call_line.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "worker/service_call.h"

namespace mindserve::worker {
namespace {

using std::chrono::seconds;

class CallLineTest : public testing::Test {
 protected:
  CallLineTest() : handlers_(std::make_shared<Handlers>(time_, [] {})) {}

  // Named by client and number.
  ServiceCall& Push(uint64_t client, uint64_t number, CallLine::Kind kind = CallLine::kWhole, uint32_t depth = 0) {
    ServiceCall::Opened opened;
    opened.client = client;
    opened.number = number;
    opened.depth = depth;
    const auto call = std::make_shared<ServiceCall>(handlers_, std::move(opened));
    line_.Push(call, kind, time_.Now());
    time_.Advance(seconds(1));
    return *call;
  }

  // In the order of their turns, each of them taken by a thread.
  std::string Take(size_t count, bool streams = true) {
    std::string taken;
    for (size_t i = 0; i < count; ++i) {
      ServiceCall* const next = line_.Next(streams);
      if (next == nullptr) return taken + " none";
      line_.Hold(next->client());
      taken += (i > 0 ? " " : "") + std::to_string(next->client()) + "/" + std::to_string(next->number());
      line_.Take(*next);
    }
    return taken;
  }

  FakeTime time_;
  std::shared_ptr<Handlers> handlers_;
  CallLine line_;
};

TEST_F(CallLineTest, OneClientsCallsGoAsTheyCame) {
  for (uint64_t number = 1; number <= 4; ++number) Push(7, number);
  EXPECT_EQ(line_.size(), 4u);
  EXPECT_EQ(Take(5), "7/1 7/2 7/3 7/4 none");
  EXPECT_EQ(line_.size(), 0u);
}

TEST_F(CallLineTest, WhoFillsTheLineIsInNobodysWay) {
  for (uint64_t number = 1; number <= 100; ++number) Push(1, number);
  EXPECT_EQ(Take(3), "1/1 1/2 1/3");
  Push(2, 1);
  Push(2, 2);
  Push(3, 1);
  EXPECT_EQ(Take(6), "2/1 3/1 2/2 1/4 1/5 1/6");
}

TEST_F(CallLineTest, WhoHoldsManyThreadsWaitsForAsManyTurns) {
  for (int i = 0; i < 3; ++i) line_.Hold(1);
  Push(1, 1);
  for (uint64_t number = 1; number <= 9; ++number) {
    Push(2, number);
    EXPECT_EQ(Take(1), number <= 3   ? "2/" + std::to_string(number)
                       : number == 4 ? "1/1"
                                     : "2/" + std::to_string(number - 1));
    if (number != 4) line_.LetGo(2);
  }
}

TEST_F(CallLineTest, NobodyWaitsForEver) {
  line_.Hold(1);
  Push(1, 1);
  // There is always somebody who holds nothing.
  for (uint64_t client = 2; client <= 50; ++client) {
    Push(client, 1);
    Push(client, 2);
  }
  std::string taken;
  for (int i = 0; i < 60; ++i) {
    taken += Take(1) + " ";
    Push(static_cast<uint64_t>(100 + i), 1);
  }
  EXPECT_NE(taken.find("1/1 "), std::string::npos) << taken;
}

TEST_F(CallLineTest, ClientsThatHaveNothingAreForgottenSooner) {
  for (uint64_t client = 1; client <= 1000; ++client) {
    Push(client, 1);
    Take(1);
    line_.LetGo(client);
    EXPECT_EQ(line_.FairShare(32), 32u) << "they have no share";
  }
}

TEST_F(CallLineTest, StreamsAreLeftInLine) {
  Push(1, 1, CallLine::kStream);
  Push(1, 2);
  Push(2, 1, CallLine::kStream);
  EXPECT_EQ(line_.Oldest(false)->number(), 2u);
  EXPECT_EQ(line_.Oldest(true)->number(), 1u);
  EXPECT_EQ(line_.whole(), 1u);
  EXPECT_EQ(Take(2, false), "1/2 none");
  EXPECT_EQ(line_.Oldest(false), nullptr);
  EXPECT_EQ(Take(3), "1/1 2/1 none");
}

TEST_F(CallLineTest, AnyCallMayLeave) {
  std::vector<ServiceCall*> calls;
  for (uint64_t number = 1; number <= 5; ++number) calls.push_back(&Push(1, number));
  for (const size_t i : {4, 0, 2}) {
    EXPECT_TRUE(CallLine::Contains(*calls[i]));
    const auto call = line_.Take(*calls[i]);
    EXPECT_FALSE(CallLine::Contains(*call));
  }
  EXPECT_EQ(line_.Oldest(true)->number(), 2u);
  Push(1, 6);
  EXPECT_EQ(Take(4), "1/2 1/4 1/6 none");
}

TEST_F(CallLineTest, CallsOfADepthAreTakenAsTheyCameAndPutBack) {
  Push(1, 1);
  Push(1, 2, CallLine::kWhole, 2);
  Push(2, 1, CallLine::kWhole, 2);
  Push(1, 3, CallLine::kWhole, 1);
  EXPECT_EQ(line_.inner(), 3u);
  EXPECT_EQ(line_.OldestOf(3), nullptr);
  auto call = line_.Take(*line_.OldestOf(2));
  const TimePoint since = call->place.since;
  EXPECT_EQ(call->number(), 2u);
  EXPECT_EQ(line_.OldestOf(2)->client(), 2u);
  line_.PutBack(std::move(call));
  EXPECT_EQ(line_.OldestOf(2)->number(), 2u);
  EXPECT_EQ(line_.OldestOf(2)->place.since, since);
  EXPECT_EQ(line_.Oldest(true)->number(), 1u);
  EXPECT_EQ(line_.inner(), 3u);
  EXPECT_EQ(line_.size(), 4u);
}

TEST_F(CallLineTest, SharesAreOfThoseWhoHaveOrWantThreads) {
  EXPECT_EQ(line_.FairShare(32), 32u);
  line_.Hold(1);
  Push(2, 1);
  Push(2, 2);
  EXPECT_EQ(line_.FairShare(32), 16u);
  EXPECT_EQ(line_.FairShare(1), 1u);
  EXPECT_EQ(line_.Of(1, time_.Now()).held, 1u);
  EXPECT_EQ(line_.Of(2, time_.Now()).waiting, 2u);
  EXPECT_EQ(line_.Of(2, time_.Now() - seconds(3)).waiting, 0u) << "not for so long";
  line_.LetGo(1);
  EXPECT_EQ(line_.FairShare(32), 32u);
  EXPECT_EQ(line_.Of(1, time_.Now()).held, 0u);
}

TEST_F(CallLineTest, LackingIsUpToTheShareOfThoseWhoHaveWaited) {
  for (int i = 0; i < 3; ++i) line_.Hold(1);
  line_.Hold(2);
  for (uint64_t number = 1; number <= 5; ++number) Push(1, number);
  for (uint64_t number = 1; number <= 5; ++number) Push(2, number);
  for (uint64_t number = 1; number <= 5; ++number) Push(3, number, CallLine::kStream);
  const TimePoint all = time_.Now();
  const auto lacking = [&](size_t share, TimePoint since, size_t most) {
    const CallLine::Lack lack = line_.Lacking(share, since, most);
    return std::pair(lack.for_whole, lack.for_all);
  };
  using Pair = std::pair<size_t, size_t>;
  EXPECT_EQ(lacking(2, all, 100), Pair(1, 3)) << "one of the second, two of the third";
  EXPECT_EQ(lacking(4, all, 100), Pair(4, 8));
  EXPECT_EQ(lacking(4, all, 6), Pair(4, 6));
  EXPECT_EQ(lacking(2, all - seconds(10), 100), Pair(1, 1)) << "the third came later";
  EXPECT_EQ(lacking(2, all - seconds(20), 100), Pair(0, 0));
  // Who waits with both kinds lacks no more for that.
  Push(3, 6);
  EXPECT_EQ(lacking(1, time_.Now(), 100), Pair(1, 1));
  EXPECT_EQ(lacking(2, time_.Now(), 100), Pair(2, 3));
}

}  // namespace
}  // namespace mindserve::worker
