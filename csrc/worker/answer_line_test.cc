// Whose turn it is in the line for reply memory.
#include "worker/answer_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

namespace mindserve::worker {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using Tried = AnswerLine::Tried;

class AnswerLineTest : public testing::Test {
 protected:
  // Which calls are tried, in order. Those are done that `outcomes_` says nothing of.
  std::string Retry(uint64_t releases = 0) {
    std::string tried;
    more_ = line_.Retry(releases, [&](uint64_t call) {
      tried += (tried.empty() ? "" : " ") + std::to_string(call);
      const auto outcome = outcomes_.find(call);
      return outcome == outcomes_.end() ? Tried::kDone : outcome->second;
    });
    return tried;
  }

  AnswerLine line_;
  std::map<uint64_t, Tried> outcomes_;
  bool more_ = false;
};

TEST_F(AnswerLineTest, OneClientsGoAsTheyCame) {
  for (uint64_t call = 1; call <= 4; ++call) line_.Push(call, 7);
  EXPECT_EQ(Retry(), "1 2 3 4");
  EXPECT_FALSE(more_);
  EXPECT_TRUE(line_.empty());
  EXPECT_EQ(Retry(), "");
}

TEST_F(AnswerLineTest, ClientsTakeTurns) {
  for (uint64_t call = 11; call <= 14; ++call) line_.Push(call, 1);
  for (uint64_t call = 21; call <= 22; ++call) line_.Push(call, 2);
  line_.Push(31, 3);
  EXPECT_EQ(Retry(), "11 21 31 12 22 13 14");
}

TEST_F(AnswerLineTest, WithoutRoomTheNextKeepsItsTurnAndAllWait) {
  for (uint64_t call = 11; call <= 13; ++call) line_.Push(call, 1);
  line_.Push(21, 2);
  outcomes_[12] = Tried::kFull;
  EXPECT_EQ(Retry(), "11 21 12");
  EXPECT_TRUE(line_.full());
  EXPECT_TRUE(line_.Holds(1));
  EXPECT_TRUE(line_.full());
  EXPECT_EQ(Retry(), "12") << "there may be room that nobody gave back: it is cheap to ask";
  line_.Push(22, 2);
  outcomes_.clear();
  EXPECT_EQ(Retry(), "12 22 13");
  EXPECT_FALSE(line_.full());
  EXPECT_FALSE(line_.Holds(1));
}

TEST_F(AnswerLineTest, WhoHasItsShareIsInNobodysWay) {
  line_.Push(11, 1, Tried::kOverShare);
  line_.Push(12, 1);
  EXPECT_FALSE(line_.full());
  EXPECT_TRUE(line_.Holds(1));
  EXPECT_FALSE(line_.Holds(2));
  line_.Push(21, 2);
  EXPECT_EQ(Retry(), "21");
  EXPECT_FALSE(line_.empty());
  EXPECT_FALSE(line_.full());
  EXPECT_EQ(Retry(1), "11 12");
  EXPECT_TRUE(line_.empty());
}

TEST_F(AnswerLineTest, WhoHasItsShareIsTriedOnceForWhatWasGivenBack) {
  line_.Push(11, 1);
  line_.Push(12, 1);
  line_.Push(21, 2);
  outcomes_[11] = Tried::kOverShare;
  EXPECT_EQ(Retry(5), "11 21");
  EXPECT_EQ(Retry(5), "");
  EXPECT_EQ(Retry(6), "11");
  EXPECT_EQ(Retry(6), "");
  outcomes_.clear();
  EXPECT_EQ(Retry(7), "11 12");
}

TEST_F(AnswerLineTest, ItIsTriedEvenIfOthersLackRoomMeanwhile) {
  line_.Push(11, 1, Tried::kOverShare);
  line_.Push(21, 2);
  outcomes_[21] = Tried::kFull;
  EXPECT_EQ(Retry(1), "21");
  outcomes_.clear();
  EXPECT_EQ(Retry(1), "21 11");
}

TEST_F(AnswerLineTest, ACrowdIsTriedAFewAtATime) {
  constexpr uint64_t kClients = 3 * AnswerLine::kMostTries;
  for (uint64_t client = 1; client <= kClients; ++client) {
    line_.Push(client, client, Tried::kOverShare);
    outcomes_[client] = Tried::kOverShare;
  }
  std::map<uint64_t, int> tried;
  const auto retry = [&] {
    size_t count = 0;
    const bool more = line_.Retry(1, [&](uint64_t call) {
      ++tried[call];
      ++count;
      return Tried::kOverShare;
    });
    EXPECT_LE(count, AnswerLine::kMostTries);
    EXPECT_FALSE(line_.full()) << "others need not wait for the crowd";
    return more;
  };
  while (retry()) continue;
  EXPECT_EQ(tried.size(), kClients);
  for (const auto& [call, times] : tried) EXPECT_EQ(times, 1) << call;
}

TEST_F(AnswerLineTest, WhoGetsNothingForAsLongAsItIsAskedIsStuck) {
  const auto stuck = [this] {
    std::vector<uint64_t> calls;
    line_.AddStuck(&calls);
    return calls;
  };
  line_.Push(11, 1, Tried::kOverShare);
  line_.Push(12, 1);
  line_.Push(21, 2);
  outcomes_[21] = Tried::kFull;
  EXPECT_THAT(stuck(), IsEmpty()) << "it has just come";
  EXPECT_THAT(stuck(), ElementsAre(11, 12)) << "the other one has no share yet";
  line_.Push(13, 1);
  EXPECT_THAT(stuck(), ElementsAre(11, 12, 13));
  outcomes_ = {{12, Tried::kOverShare}};
  EXPECT_EQ(Retry(1), "21 11 12");
  EXPECT_THAT(stuck(), IsEmpty()) << "something went";
  EXPECT_EQ(Retry(2), "12");
  EXPECT_THAT(stuck(), ElementsAre(12, 13)) << "it was tried, and nothing went";
  outcomes_ = {{12, Tried::kTookShare}};
  EXPECT_EQ(Retry(3), "12");
  EXPECT_THAT(stuck(), IsEmpty()) << "a part of it went";
}

TEST_F(AnswerLineTest, AnyMayLeave) {
  for (uint64_t call = 11; call <= 13; ++call) line_.Push(call, 1);
  line_.Push(21, 2, Tried::kOverShare);
  line_.Push(22, 2);
  EXPECT_TRUE(line_.Contains(12));
  EXPECT_TRUE(line_.Remove(12));
  EXPECT_FALSE(line_.Contains(12));
  EXPECT_FALSE(line_.Remove(12));
  EXPECT_TRUE(line_.Remove(21));
  EXPECT_EQ(Retry(1), "11 22 13");
  line_.Push(12, 1, Tried::kOverShare);
  EXPECT_TRUE(line_.Remove(12));
  EXPECT_FALSE(line_.Holds(1)) << "nothing is left of the client";
  line_.Push(12, 1);
  EXPECT_TRUE(line_.Remove(12));
  EXPECT_FALSE(line_.full());
  EXPECT_TRUE(line_.empty());
}

}  // namespace
}  // namespace mindserve::worker
