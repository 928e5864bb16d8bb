#include "batching/queue.h"
#include "batching/queue_fixture.h"

namespace mindserve::batching {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class QueueWindowTest : public QueueFixture {};

QueueOptions Window(size_t max_batch_size, Duration window) {
  return {.max_batch_size = max_batch_size, .max_queue_delay = window, .key = {}};
}
QueueOptions WindowByShape(size_t max_batch_size, Duration window) {
  return {.max_batch_size = max_batch_size, .max_queue_delay = window, .key = BatchKey({})};
}

TEST_F(QueueWindowTest, ABatchWaitsUntilItsOldestHasWaitedTheWindow) {
  Queue queue(time_, Window(8, 5ms));
  Push(queue, "a");
  time_.Advance(2ms);
  Push(queue, "b");
  Taken taken = queue.TryTake();
  EXPECT_TRUE(taken.batch.empty());
  EXPECT_EQ(taken.again, In(3ms));
  time_.Advance(3ms);
  EXPECT_THAT(TakeNames(queue), ElementsAre("a", "b"));
}

TEST_F(QueueWindowTest, AFullBatchGoesAtOnce) {
  Queue queue(time_, Window(2, 5ms));
  Push(queue, "a");
  EXPECT_THAT(TakeNames(queue), IsEmpty());
  Push(queue, "b");
  Push(queue, "c");
  EXPECT_THAT(TakeNames(queue), ElementsAre("a", "b"));
  Taken taken = queue.TryTake();
  EXPECT_TRUE(taken.batch.empty());
  EXPECT_EQ(taken.again, In(5ms));
}

TEST_F(QueueWindowTest, TheOldestCountsEvenIfAnotherLeads) {
  Queue queue(time_, Window(8, 5ms));
  Push(queue, "old", 1, In(10s));
  time_.Advance(4ms);
  Push(queue, "urgent", 1, In(10ms));
  EXPECT_EQ(queue.TryTake().again, In(1ms));
  time_.Advance(1ms);
  EXPECT_THAT(TakeNames(queue), ::testing::UnorderedElementsAre("urgent", "old"));
}

TEST_F(QueueWindowTest, AFullBatchOfAnotherShapeDoesNotWaitForTheFirst) {
  Queue queue(time_, WindowByShape(2, 5ms));
  PushRow(queue, "waits", 2, 1);
  PushRow(queue, "x", 3, 2);
  PushRow(queue, "y", 3, 2);
  EXPECT_THAT(TakeNames(queue), ElementsAre("x", "y"));
  EXPECT_THAT(TakeNames(queue), IsEmpty());
  time_.Advance(5ms);
  EXPECT_THAT(TakeNames(queue), ElementsAre("waits"));
}

TEST_F(QueueWindowTest, AnOldBatchOfAnotherShapeDoesNotWaitForTheFirst) {
  Queue queue(time_, WindowByShape(4, 5ms));
  PushRow(queue, "old", 3, 1, In(10s));
  time_.Advance(3ms);
  PushRow(queue, "leads", 2, 1, In(1s));
  time_.Advance(2ms);
  EXPECT_THAT(TakeNames(queue), ElementsAre("old"));
  Taken taken = queue.TryTake();
  EXPECT_TRUE(taken.batch.empty());
  EXPECT_EQ(taken.again, In(3ms));
}

TEST_F(QueueWindowTest, ExpiredOnesHoldNobodyUp) {
  Queue queue(time_, WindowByShape(4, 5ms));
  PushRow(queue, "expires", 3, 1, In(2ms));
  PushRow(queue, "waits", 2, 2);
  time_.Advance(2ms);
  Taken taken = queue.TryTake();
  EXPECT_TRUE(taken.batch.empty());
  EXPECT_THAT(Names(std::move(taken.expired)), ElementsAre("expires"));
  EXPECT_EQ(taken.again, In(3ms));
}

TEST_F(QueueWindowTest, ExpiredOnesOfAnotherClientHoldNobodyUp) {
  Queue queue(time_, WindowByShape(4, 5ms));
  PushRow(queue, "waits", 2, 2);
  PushRow(queue, "expires", 3, 1, In(2ms));
  PushRow(queue, "expires too", 3, 1, In(2ms));
  time_.Advance(4ms);
  Taken taken = queue.TryTake();
  EXPECT_EQ(Names(std::move(taken.expired)).size(), 2u);
  EXPECT_EQ(taken.again, In(1ms));
}

TEST_F(QueueWindowTest, AnEndlessWindowWaitsForAFullBatch) {
  Queue queue(time_, Window(2, Duration::max()));
  Push(queue, "a");
  time_.Advance(std::chrono::hours(1));
  Taken taken = queue.TryTake();
  EXPECT_TRUE(taken.batch.empty());
  EXPECT_EQ(taken.again, kNever);
  Push(queue, "b");
  EXPECT_THAT(TakeNames(queue), ElementsAre("a", "b"));
}

}  // namespace
}  // namespace mindserve::batching
