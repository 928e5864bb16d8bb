#include "batching/queue.h"

#include <random>
#include <set>

#include "batching/queue_fixture.h"

namespace mindserve::batching {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

class QueueTest : public QueueFixture {};

QueueOptions UpTo(size_t max_batch_size) {
  return {.max_batch_size = max_batch_size, .max_queue_delay = 0ns, .key = {}};
}
QueueOptions ByShape(size_t max_batch_size) {
  return {.max_batch_size = max_batch_size, .max_queue_delay = 0ns, .key = BatchKey({})};
}

TEST_F(QueueTest, AnEmptyQueueGivesNothing) {
  Queue queue(time_, UpTo(4));
  const Taken taken = queue.TryTake();
  EXPECT_TRUE(taken.batch.empty());
  EXPECT_TRUE(taken.expired.empty());
  EXPECT_EQ(taken.again, kNever);
  EXPECT_FALSE(taken.closed);
}

TEST_F(QueueTest, TakesWhatIsThereAtOnceUpToTheMaximum) {
  Queue queue(time_, UpTo(2));
  for (const char* name : {"a", "b", "c"}) Push(queue, name);
  EXPECT_EQ(queue.size(), 3u);
  EXPECT_THAT(TakeNames(queue), ElementsAre("a", "b"));
  EXPECT_THAT(TakeNames(queue), ElementsAre("c"));
  EXPECT_THAT(TakeNames(queue), IsEmpty());
  EXPECT_EQ(queue.size(), 0u);
}

TEST_F(QueueTest, ClientsTakeTurns) {
  Queue queue(time_, UpTo(3));
  for (const char* name : {"a1", "a2", "a3", "a4"}) Push(queue, name, 1);
  for (const char* name : {"b1", "b2"}) Push(queue, name, 2);
  Push(queue, "c1", 3);
  EXPECT_THAT(TakeNames(queue), ElementsAre("a1", "b1", "c1"));
  EXPECT_THAT(TakeNames(queue), ElementsAre("a2", "b2", "a3"));
  EXPECT_THAT(TakeNames(queue), ElementsAre("a4"));
}

TEST_F(QueueTest, TurnsGoOnWhereTheLastBatchEnded) {
  Queue queue(time_, UpTo(2));
  for (uint64_t client = 1; client <= 3; ++client) {
    for (int i = 1; i <= 2; ++i) Push(queue, std::to_string(client) + "." + std::to_string(i), client);
  }
  EXPECT_THAT(TakeNames(queue), ElementsAre("1.1", "2.1"));
  EXPECT_THAT(TakeNames(queue), ElementsAre("3.1", "1.2"));
  EXPECT_THAT(TakeNames(queue), ElementsAre("2.2", "3.2"));
}

TEST_F(QueueTest, ABusyClientDoesNotDelayAnother) {
  Queue queue(time_, UpTo(4));
  for (int i = 0; i < 1000; ++i) Push(queue, "busy", 1);
  TakeNames(queue);
  Push(queue, "other", 2);
  EXPECT_THAT(TakeNames(queue), ::testing::Contains("other"));
}

TEST_F(QueueTest, WithinAClientTheEarliestDeadlineGoesFirst) {
  Queue queue(time_, UpTo(1));
  Push(queue, "late", 1, In(30ms));
  Push(queue, "later", 1, In(40ms));
  Push(queue, "soon", 1, In(10ms));
  Push(queue, "sooner", 1, In(5ms));
  Push(queue, "middle", 1, In(20ms));
  Strings order;
  for (int i = 0; i < 5; ++i) order.push_back(TakeNames(queue).at(0));
  EXPECT_THAT(order, ElementsAre("sooner", "soon", "middle", "late", "later"));
}

TEST_F(QueueTest, EqualDeadlinesGoByArrival) {
  Queue queue(time_, UpTo(8));
  Push(queue, "last", 1, In(50ms));
  for (const char* name : {"a", "b", "c", "d"}) Push(queue, name, 1, In(20ms));
  EXPECT_THAT(TakeNames(queue), ElementsAre("a", "b", "c", "d", "last"));
}

TEST_F(QueueTest, NoDeadlineCountsAsOneSecondAfterArrival) {
  Queue queue(time_, UpTo(8));
  Push(queue, "none", 1);
  Push(queue, "before", 1, In(999ms));
  Push(queue, "after", 1, In(1001ms));
  time_.Advance(10ms);
  Push(queue, "none, later", 1);
  EXPECT_THAT(TakeNames(queue), ElementsAre("before", "none", "after", "none, later"));
}

TEST_F(QueueTest, NoDeadlineNeverExpires) {
  Queue queue(time_, UpTo(8));
  Push(queue, "patient");
  time_.Advance(std::chrono::hours(1000));
  EXPECT_THAT(TakeNames(queue), ElementsAre("patient"));
}

TEST_F(QueueTest, WhatHasExpiredIsNotInTheBatch) {
  Queue queue(time_, UpTo(2));
  Push(queue, "a", 1, In(10ms));
  Push(queue, "b", 1, In(30ms));
  Push(queue, "c", 2, In(10ms));
  Push(queue, "d", 2);
  time_.Advance(10ms);
  Taken taken = queue.TryTake();
  EXPECT_THAT(Names(std::move(taken.batch)), ElementsAre("b", "d"));
  EXPECT_THAT(Names(std::move(taken.expired)), UnorderedElementsAre("a", "c"));
  EXPECT_EQ(queue.size(), 0u);
}

TEST_F(QueueTest, AllMayHaveExpired) {
  Queue queue(time_, UpTo(2));
  for (uint64_t client = 1; client <= 5; ++client) Push(queue, std::to_string(client), client, In(1ms));
  time_.Advance(1ms);
  Taken taken = queue.TryTake();
  EXPECT_TRUE(taken.batch.empty());
  EXPECT_EQ(taken.expired.size(), 5u);
}

TEST_F(QueueTest, ExpiredOnesAreFoundWithoutATaker) {
  Queue queue(time_, UpTo(2));
  TimePoint again;
  EXPECT_TRUE(queue.DropExpired(&again).empty());
  EXPECT_EQ(again, kNever);

  Push(queue, "keeps", 1);
  Push(queue, "goes", 1, In(50ms));
  Push(queue, "goes too", 2, In(50ms));
  Push(queue, "goes later", 2, In(200ms));
  EXPECT_TRUE(queue.DropExpired(&again).empty());
  EXPECT_EQ(again, In(50ms));
  time_.Advance(50ms);
  EXPECT_THAT(Names(queue.DropExpired(&again)), UnorderedElementsAre("goes", "goes too"));
  EXPECT_EQ(again, In(150ms));
  time_.Advance(150ms);
  EXPECT_THAT(Names(queue.DropExpired(&again)), ElementsAre("goes later"));
  EXPECT_EQ(again, kNever);
  EXPECT_THAT(TakeNames(queue), ElementsAre("keeps"));
}

TEST_F(QueueTest, SweepsFindExpiredOnesBehindOverdueOnes) {
  Queue queue(time_, UpTo(2));
  Push(queue, "overdue", 1);  // counts as due in 1 s, but waits for ever
  Push(queue, "expires", 1, In(2s));
  Push(queue, "expires first", 1, In(1500ms));
  Push(queue, "stays", 1, In(1h));
  time_.Advance(3s);
  TimePoint again;
  EXPECT_THAT(Names(queue.DropExpired(&again)), UnorderedElementsAre("expires", "expires first"));
  EXPECT_THAT(TakeNames(queue), ElementsAre("overdue", "stays"));
}

TEST_F(QueueTest, SweepsAreNoMoreOftenThanEveryHundredthOfASecond) {
  Queue queue(time_, UpTo(2));
  Push(queue, "a", 1, In(1ms));
  Push(queue, "b", 1, In(2ms));
  time_.Advance(1ms);
  TimePoint again;
  EXPECT_THAT(Names(queue.DropExpired(&again)), ElementsAre("a"));
  EXPECT_EQ(again, In(10ms));
  time_.Advance(1ms);
  EXPECT_TRUE(queue.DropExpired(&again).empty());
  EXPECT_EQ(again, In(9ms));
}

TEST_F(QueueTest, WhatIsRemovedDoesNotGo) {
  Queue queue(time_, UpTo(8));
  NamedItem& a = Push(queue, "a", 1);
  Push(queue, "b", 1);
  NamedItem& c = Push(queue, "c", 1);
  NamedItem& early = Push(queue, "early", 1, In(1ms));
  NamedItem& only = Push(queue, "only", 2);
  for (NamedItem* item : {&a, &c, &early, &only}) EXPECT_TRUE(queue.Remove(*item));
  EXPECT_FALSE(queue.Remove(a));
  EXPECT_EQ(queue.size(), 1u);
  EXPECT_THAT(TakeNames(queue), ElementsAre("b"));
}

TEST_F(QueueTest, WhatATakerHasCannotBeRemoved) {
  Queue queue(time_, UpTo(8));
  NamedItem& a = Push(queue, "a");
  const Taken taken = queue.TryTake();
  EXPECT_EQ(taken.batch.size(), 1u);
  EXPECT_FALSE(queue.Remove(a));
}

TEST_F(QueueTest, AnItemMayComeBack) {
  Queue queue(time_, UpTo(8));
  NamedItem& a = Push(queue, "a");
  TakeNames(queue);
  EXPECT_TRUE(queue.Push(a, time_.Now()));
  EXPECT_THAT(TakeNames(queue), ElementsAre("a"));
}

TEST_F(QueueTest, ShapesDoNotMix) {
  Queue queue(time_, ByShape(8));
  PushRow(queue, "a", 2, 1);
  PushRow(queue, "b", 3, 2);
  PushRow(queue, "c", 2, 3);
  EXPECT_THAT(TakeNames(queue), ElementsAre("a", "c"));
  EXPECT_THAT(TakeNames(queue), ElementsAre("b"));
}

TEST_F(QueueTest, OneClientsShapesAreGathered) {
  Queue queue(time_, ByShape(8));
  for (int i = 0; i < 4; ++i) {
    PushRow(queue, "short" + std::to_string(i), 2);
    PushRow(queue, "long" + std::to_string(i), 3);
  }
  EXPECT_THAT(TakeNames(queue), ElementsAre("short0", "short1", "short2", "short3"));
  EXPECT_THAT(TakeNames(queue), ElementsAre("long0", "long1", "long2", "long3"));
}

TEST_F(QueueTest, WhoCouldNotJoinLeadsNext) {
  Queue queue(time_, ByShape(4));
  for (int i = 0; i < 100; ++i) PushRow(queue, "common", 2, 1);
  for (int i = 0; i < 100; ++i) PushRow(queue, "common", 2, 2);
  PushRow(queue, "odd", 7, 3);
  EXPECT_THAT(TakeNames(queue), ElementsAre("common", "common", "common", "common"));
  EXPECT_THAT(TakeNames(queue), ElementsAre("odd"));
}

TEST_F(QueueTest, AClientWithManyShapesGetsOneTurnLikeTheOthers) {
  Queue queue(time_, ByShape(4));
  for (int i = 1; i <= 50; ++i) PushRow(queue, "many", i, 1);
  for (int i = 0; i < 8; ++i) PushRow(queue, "one", 1000, 2);
  EXPECT_THAT(TakeNames(queue), ElementsAre("many"));
  EXPECT_THAT(TakeNames(queue), ElementsAre("one", "one", "one", "one"));
  EXPECT_THAT(TakeNames(queue), ElementsAre("many"));
  EXPECT_THAT(TakeNames(queue), ElementsAre("one", "one", "one", "one"));
}

TEST_F(QueueTest, ExpiredOnesDontLiftTheBoundOnWhatIsLookedAt) {
  Queue queue(time_, ByShape(4));
  const TimePoint start = time_.Now();
  PushRow(queue, "leads", 1);
  time_.Advance(200ms);
  for (int i = 0; i < 256; ++i) PushRow(queue, "other", 2);  // as many as one batch looks at
  time_.Advance(800ms);
  PushRow(queue, "too far behind", 1);
  // Between those by their deadlines, and of both shapes.
  PushRow(queue, "expired", 1, 1, start + 1500ms);
  PushRow(queue, "expired too", 2, 1, start + 1800ms);
  time_.Advance(900ms);
  EXPECT_THAT(TakeNames(queue), ElementsAre("leads"));
}

TEST_F(QueueTest, TheEarliestDeadlineLeadsWhateverItsShape) {
  Queue queue(time_, ByShape(8));
  PushRow(queue, "a", 2, 1, In(20ms));
  PushRow(queue, "b", 2, 1, In(30ms));
  PushRow(queue, "urgent", 3, 1, In(5ms));
  EXPECT_THAT(TakeNames(queue), ElementsAre("urgent"));
  EXPECT_THAT(TakeNames(queue), ElementsAre("a", "b"));
}

TEST_F(QueueTest, AfterCloseNothingGoesInOrOut) {
  Queue queue(time_, UpTo(8));
  Push(queue, "a", 1);
  Push(queue, "b", 2, In(1ms));
  queue.Close();
  EXPECT_FALSE(queue.Push(Make("c", 1), time_.Now()));
  EXPECT_TRUE(queue.TryTake().closed);
  EXPECT_TRUE(queue.TryTake().batch.empty());
  EXPECT_TRUE(queue.Take().closed);
  EXPECT_THAT(Names(queue.Drain()), UnorderedElementsAre("a", "b"));
  EXPECT_EQ(queue.size(), 0u);
}

TEST_F(QueueTest, ManyClientsComeAndGo) {
  Queue queue(time_, UpTo(64));
  for (int round = 0; round < 3; ++round) {
    for (uint64_t client = 0; client < 5000; ++client) Push(queue, "x", client);
    size_t taken = 0;
    while (queue.size() > 0) taken += queue.TryTake().batch.size();
    EXPECT_EQ(taken, 5000u);
  }
}

// Against a plain model of what must hold: all go exactly once, no batch mixes keys or is too big, and whoever leads is
// the earliest of its client.
TEST_F(QueueTest, HoldsUnderRandomUse) {
  std::mt19937 random(20240521);
  const auto pick = [&](int n) { return std::uniform_int_distribution<int>(0, n - 1)(random); };
  for (int round = 0; round < 20; ++round) {
    Queue queue(time_, ByShape(static_cast<size_t>(1 + pick(8))));
    std::set<NamedItem*> inside;
    size_t went = 0;
    size_t pushed = 0;
    for (int step = 0; step < 2000; ++step) {
      const int what = pick(10);
      if (what < 6) {
        const TimePoint deadline = pick(3) == 0 ? kNever : In(std::chrono::microseconds(1 + pick(5000)));
        inside.insert(&PushRow(queue, "", 1 + pick(4), static_cast<uint64_t>(pick(6)), deadline));
        ++pushed;
      } else if (what == 6 && !inside.empty()) {
        auto it = inside.begin();
        std::advance(it, pick(static_cast<int>(inside.size())));
        ASSERT_TRUE(queue.Remove(**it));
        inside.erase(it);
        ++went;
      } else if (what == 7) {
        time_.Advance(std::chrono::microseconds(pick(300)));
      } else {
        TimePoint again;
        Taken taken;
        if (what == 8) {
          taken.expired = queue.DropExpired(&again);
        } else {
          taken = queue.TryTake();
        }
        ASSERT_LE(taken.batch.size(), queue.options().max_batch_size);
        const NamedItem* leader = nullptr;
        while (Item* item = taken.batch.Pop()) {
          auto* named = static_cast<NamedItem*>(item);
          ASSERT_EQ(inside.erase(named), 1u);
          ++went;
          ASSERT_GT(named->deadline, time_.Now());
          if (leader == nullptr) leader = named;
          ASSERT_EQ(named->tensors[0].shape(), leader->tensors[0].shape());
        }
        while (Item* item = taken.expired.Pop()) {
          ASSERT_LE(item->deadline, time_.Now());
          ASSERT_EQ(inside.erase(static_cast<NamedItem*>(item)), 1u);
          ++went;
        }
      }
      ASSERT_EQ(queue.size(), inside.size());
    }
    went += queue.Drain().size();
    EXPECT_EQ(went, pushed);
  }
}

TEST_F(QueueTest, WhatCannotBeDoneInTimeMakesRoomForWhatCan) {
  Queue queue(time_, {.max_batch_size = 2});
  for (size_t i = 0; i < RecentRuns::kEnough; ++i) queue.NoteRun(10ms, 2);
  Push(queue, "late", 1, In(12ms));
  Push(queue, "nearly", 1, In(14ms));  // 12.5 ms for a run leave it less than an eighth
  Push(queue, "a", 1, In(15ms));
  Push(queue, "b", 1, In(16ms));
  Taken taken = queue.TryTake();
  EXPECT_THAT(Names(std::move(taken.batch)), ElementsAre("a", "b"));
  EXPECT_THAT(Names(std::move(taken.expired)), ElementsAre("late", "nearly"));
}

TEST_F(QueueTest, WithRoomForAllNothingIsDroppedBeforeItsTime) {
  Queue queue(time_, {.max_batch_size = 2});
  for (size_t i = 0; i < RecentRuns::kEnough; ++i) queue.NoteRun(10ms, 2);
  Push(queue, "a", 1, In(1ms));
  Push(queue, "b", 1, In(2ms));
  EXPECT_THAT(TakeNames(queue), ElementsAre("a", "b"));
}

TEST_F(QueueTest, AFewRunsDontTellWhatIsTooLate) {
  Queue queue(time_, {.max_batch_size = 1});
  for (size_t i = 0; i + 1 < RecentRuns::kEnough; ++i) queue.NoteRun(10ms, 1);
  Push(queue, "a", 1, In(1ms));
  Push(queue, "b", 1, In(2ms));
  EXPECT_THAT(TakeNames(queue), ElementsAre("a"));
}

TEST_F(QueueTest, ATurnLimitsHowManyAreTakenAtATime) {
  Queue queue(time_, {.max_batch_size = 8, .turn = 1ms});
  for (int i = 0; i < 40; ++i) Push(queue, "a");
  const auto take = [&] { return queue.TryTake().batch.size(); };
  EXPECT_EQ(take(), 1u);  // nobody knows yet
  queue.NoteRun(5ms, 1);
  EXPECT_EQ(take(), 1u);
  for (int i = 0; i < 200; ++i) queue.NoteRun(1ms, 4);
  EXPECT_EQ(take(), 3u);  // just above a quarter of a millisecond each
  for (int i = 0; i < 200; ++i) queue.NoteRun(80us, 8);
  EXPECT_EQ(take(), 8u);
  queue.NoteRun(4ms, 8);
  EXPECT_EQ(take(), 3u);
}

TEST_F(QueueTest, TheWaitIsEstimatedByTurns) {
  Queue queue(time_, {.max_batch_size = 2});
  EXPECT_EQ(queue.EstimateWait(1, 1), 0ms);
  queue.NoteRun(10ms, 2);
  EXPECT_EQ(queue.EstimateWait(1, 1), 10ms);
  EXPECT_EQ(queue.EstimateWait(1, 5), 30ms);
  for (int i = 0; i < 10; ++i) Push(queue, "a", 1);
  EXPECT_EQ(queue.EstimateWait(1, 2), 60ms);  // behind its own
  EXPECT_EQ(queue.EstimateWait(2, 2), 20ms);  // in turn with the other: two of it, two of that one
  EXPECT_EQ(queue.EstimateWait(2, 100), 550ms);
}

TEST_F(QueueTest, WhilePausedOnlyWhatGoesAloneIsTaken) {
  Queue queue(time_, {.max_batch_size = 8});
  Push(queue, "a");
  Push(queue, "b");
  queue.Pause();
  EXPECT_THAT(TakeNames(queue), ElementsAre());
  NamedItem& alone = Make("alone", 1);
  EXPECT_TRUE(queue.PushAlone(alone, time_.Now()));
  EXPECT_TRUE(queue.standing().alone);
  EXPECT_EQ(queue.size(), 3u);
  EXPECT_THAT(TakeNames(queue), ElementsAre("alone"));
  EXPECT_THAT(TakeNames(queue), ElementsAre());
  EXPECT_EQ(queue.standing().batches, 0u);
  queue.Resume();
  EXPECT_THAT(TakeNames(queue), ElementsAre("a", "b"));
  EXPECT_EQ(queue.standing().batches, 1u);
}

TEST_F(QueueTest, WhatGoesAloneGoesOneByOneBeforeTheOthers) {
  Queue queue(time_, {.max_batch_size = 8});
  Push(queue, "a");
  NamedItem* items[] = {&Make("1", 1), &Make("2", 1, In(1ms)), &Make("3", 1), &Make("4", 1)};
  for (NamedItem* item : items) EXPECT_TRUE(queue.PushAlone(*item, time_.Now()));
  EXPECT_EQ(queue.size(), 5u);
  queue.Pause();
  EXPECT_THAT(TakeNames(queue), ElementsAre("1"));
  EXPECT_TRUE(queue.Remove(*items[2]));
  EXPECT_FALSE(queue.Remove(*items[2]));
  EXPECT_FALSE(queue.Remove(*items[0]));
  time_.Advance(1ms);
  TimePoint again{};
  EXPECT_THAT(Names(queue.DropExpired(&again)), ElementsAre("2"));
  const Taken taken = queue.TryTake();
  EXPECT_EQ(taken.batch.size(), 1u);
  EXPECT_EQ(taken.left, 0u);
  EXPECT_FALSE(queue.standing().alone);
  queue.Resume();
  EXPECT_THAT(TakeNames(queue), ElementsAre("a"));
}

TEST_F(QueueTest, WhatGoesAloneIsRemovedExpiresAndIsDrained) {
  Queue queue(time_, {});
  NamedItem& removed = Make("removed", 1);
  EXPECT_TRUE(queue.PushAlone(removed, time_.Now()));
  EXPECT_TRUE(queue.Remove(removed));
  EXPECT_FALSE(queue.Remove(removed));

  NamedItem& late = Make("late", 1, In(1ms));
  EXPECT_TRUE(queue.PushAlone(late, time_.Now()));
  TimePoint again{};
  EXPECT_THAT(Names(queue.DropExpired(&again)), ElementsAre());
  EXPECT_EQ(again, In(1ms));
  time_.Advance(1ms);
  EXPECT_THAT(Names(queue.DropExpired(&again)), ElementsAre("late"));
  EXPECT_TRUE(queue.PushAlone(late, time_.Now()));
  EXPECT_THAT(Names(queue.TryTake().expired), ElementsAre("late"));

  EXPECT_TRUE(queue.PushAlone(late, time_.Now()));
  queue.Close();
  EXPECT_THAT(Names(queue.Drain()), ElementsAre("late"));
  EXPECT_FALSE(queue.PushAlone(late, time_.Now()));
}

}  // namespace
}  // namespace mindserve::batching
