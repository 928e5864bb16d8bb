#include "base/unique_fd.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>

namespace mindserve {
namespace {

// A pipe tells whether its other end was closed without looking at descriptor numbers, which other threads may reuse.
class UniqueFdTest : public testing::Test {
 protected:
  void SetUp() override {
    std::array<int, 2> ends{};
    ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK), 0);
    reader_ = ends[0];
    writer_ = ends[1];
  }
  void TearDown() override { ::close(reader_); }

  // read() answers 0 (end of file) once the writing end is closed, and -1 (would block) until then.
  bool WriterClosed() const {
    char byte = 0;
    return ::read(reader_, &byte, 1) == 0;
  }

  int reader_ = -1;
  int writer_ = -1;
};

TEST(UniqueFd, IsEmptyByDefault) {
  const UniqueFd fd;
  EXPECT_FALSE(fd);
  EXPECT_EQ(fd.get(), -1);
}

TEST_F(UniqueFdTest, ClosesAtItsEnd) {
  {
    const UniqueFd fd(writer_);
    EXPECT_TRUE(fd);
    EXPECT_EQ(fd.get(), writer_);
    EXPECT_FALSE(WriterClosed());
  }
  EXPECT_TRUE(WriterClosed());
}

TEST_F(UniqueFdTest, ResetClosesAtOnce) {
  UniqueFd fd(writer_);
  fd.reset();
  EXPECT_FALSE(fd);
  EXPECT_TRUE(WriterClosed());
}

TEST_F(UniqueFdTest, ResetTakesAnother) {
  UniqueFd fd(writer_);
  const int other = ::dup(reader_);
  fd.reset(other);
  EXPECT_TRUE(WriterClosed());
  EXPECT_EQ(fd.get(), other);
}

TEST_F(UniqueFdTest, ReleaseGivesItAway) {
  int given = -1;
  {
    UniqueFd fd(writer_);
    given = fd.release();
    EXPECT_FALSE(fd);
  }
  EXPECT_EQ(given, writer_);
  EXPECT_FALSE(WriterClosed());
  ::close(given);
}

TEST_F(UniqueFdTest, MovesItsOwnership) {
  UniqueFd first(writer_);
  UniqueFd second(std::move(first));
  EXPECT_FALSE(first);  // NOLINT: a moved-from descriptor is empty on purpose
  EXPECT_EQ(second.get(), writer_);
  UniqueFd third;
  third = std::move(second);
  EXPECT_FALSE(second);  // NOLINT
  EXPECT_EQ(third.get(), writer_);
  EXPECT_FALSE(WriterClosed());
}

TEST_F(UniqueFdTest, MoveAssignmentClosesWhatWasThere) {
  UniqueFd fd(writer_);
  fd = UniqueFd();
  EXPECT_TRUE(WriterClosed());
}

TEST_F(UniqueFdTest, SurvivesBeingMovedToItself) {
  UniqueFd fd(writer_);
  UniqueFd& same = fd;
  fd = std::move(same);
  EXPECT_EQ(fd.get(), writer_);
  EXPECT_FALSE(WriterClosed());
}

}  // namespace
}  // namespace mindserve
