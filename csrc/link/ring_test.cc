#include "link/ring.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <memory>
#include <thread>

#include "link/handshake.h"

namespace mindserve::link {
namespace {

class RingTest : public testing::Test {
 protected:
  std::unique_ptr<RingBlock> left_ = std::make_unique<RingBlock>();
  std::unique_ptr<RingBlock> right_ = std::make_unique<RingBlock>();
  RingWriter writer_{left_.get(), right_.get()};
  RingReader reader_{right_.get(), left_.get()};

  static Frame Numbered(uint64_t number) {
    Frame frame{};
    frame.type = FrameType::kReply;
    frame.call = number;
    return frame;
  }
};

TEST_F(RingTest, NothingIsSeenBeforePublish) {
  Frame frame;
  EXPECT_FALSE(writer_.Publish());
  ASSERT_TRUE(writer_.Put(Numbered(5)));
  EXPECT_FALSE(reader_.HasFrames());
  EXPECT_EQ(reader_.Take(&frame), RingReader::Outcome::kEmpty);
  EXPECT_TRUE(writer_.Publish());
  EXPECT_TRUE(reader_.HasFrames());
  ASSERT_EQ(reader_.Take(&frame), RingReader::Outcome::kFrame);
  EXPECT_EQ(frame.call, 5u);
  EXPECT_EQ(reader_.Take(&frame), RingReader::Outcome::kEmpty);
}

TEST_F(RingTest, IsFullUntilTheReaderSaysItHasRead) {
  for (uint64_t i = 0; i < kRingFrames; ++i) ASSERT_TRUE(writer_.Put(Numbered(i)));
  EXPECT_FALSE(writer_.Put(Numbered(0)));
  writer_.Publish();
  Frame frame;
  ASSERT_EQ(reader_.Take(&frame), RingReader::Outcome::kFrame);
  EXPECT_FALSE(writer_.HasRoom());
  EXPECT_FALSE(reader_.Publish());
  EXPECT_TRUE(writer_.HasRoom());
  EXPECT_TRUE(writer_.Put(Numbered(kRingFrames)));
  EXPECT_FALSE(writer_.Put(Numbered(0)));
  for (uint64_t i = 1; i < kRingFrames; ++i) {
    ASSERT_EQ(reader_.Take(&frame), RingReader::Outcome::kFrame);
    ASSERT_EQ(frame.call, i);
  }
  EXPECT_TRUE(reader_.Publish()) << "a writer may wait for so much room";
}

TEST_F(RingTest, ACountThatCannotBeIsAFault) {
  Frame frame;
  left_->written.value = kRingFrames + 1;
  EXPECT_EQ(reader_.Take(&frame), RingReader::Outcome::kFault);
  right_->read.value = kRingFrames + 1;
  for (uint64_t i = 0; i < kRingFrames; ++i) ASSERT_TRUE(writer_.Put(Numbered(i)));
  EXPECT_FALSE(writer_.Put(Numbered(0))) << "a reader that claims to have read more than was written gives no room";
}

TEST_F(RingTest, CountsWrapAround) {
  Frame frame;
  for (uint64_t i = 0; i < 5 * kRingFrames; ++i) {
    ASSERT_TRUE(writer_.Put(Numbered(i)));
    writer_.Publish();
    ASSERT_EQ(reader_.Take(&frame), RingReader::Outcome::kFrame);
    ASSERT_EQ(frame.call, i);
    reader_.Publish();
  }
}

TEST(Bell, RingsOnceASleep) {
  auto bell = NewBell();
  ASSERT_TRUE(bell.ok());
  SleepFlag flag;
  uint32_t last = 0;
  const auto count = [&] {
    eventfd_t rung = 0;
    return ::eventfd_read(bell->get(), &rung) == 0 ? rung : 0;
  };
  RingIfAsleep(flag, bell->get(), &last);
  EXPECT_EQ(count(), 0u) << "awake";
  flag.epoch = 1;
  RingIfAsleep(flag, bell->get(), &last);
  RingIfAsleep(flag, bell->get(), &last);
  EXPECT_EQ(count(), 1u);
  flag.epoch = 3;
  RingIfAsleep(flag, bell->get(), &last);
  EXPECT_EQ(count(), 1u);
}

// A lost wakeup shows here as a test that hangs: both ends sleep whenever they have nothing to do.
TEST_F(RingTest, NoWakeupIsLostBetweenTwoThreads) {
  constexpr uint64_t kFrames = 300'000;
  auto bell = NewBell();
  auto room = NewBell();
  ASSERT_TRUE(bell.ok() && room.ok());
  SleepFlag reader_flag;
  SleepFlag writer_flag;
  const auto sleep = [](SleepFlag& flag, int fd, auto ready) {
    flag.epoch.fetch_add(1);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (!ready()) {
      pollfd waiting{fd, POLLIN, 0};
      ::poll(&waiting, 1, -1);
    }
    flag.epoch.fetch_add(1);
    EmptyBell(fd);
  };
  std::thread writer([&] {
    uint32_t last = 0;
    for (uint64_t i = 0; i < kFrames; ++i) {
      while (!writer_.Put(Numbered(i))) sleep(writer_flag, room->get(), [&] { return writer_.HasRoom(); });
      if (i % 7 == 0 || i + 1 == kFrames) {
        writer_.Publish();
        RingIfAsleep(reader_flag, bell->get(), &last);
      }
    }
  });
  uint32_t last = 0;
  for (uint64_t expected = 0; expected < kFrames;) {
    Frame frame;
    while (reader_.Take(&frame) == RingReader::Outcome::kFrame) ASSERT_EQ(frame.call, expected++);
    if (reader_.Publish()) RingIfAsleep(writer_flag, room->get(), &last);
    if (expected < kFrames) sleep(reader_flag, bell->get(), [&] { return reader_.HasFrames(); });
  }
  writer.join();
}

}  // namespace
}  // namespace mindserve::link
