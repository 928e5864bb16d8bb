#include "gateway/worker_watch.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <optional>
#include <vector>

namespace mindserve::gateway {
namespace {

using std::chrono::milliseconds;

class WorkerWatchTest : public testing::Test {
 protected:
  static constexpr milliseconds kTimeout{2000};

  WorkerWatchTest() {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    worker_.reset(fds[1]);
    auto reader = link::StatsReader::Open(UniqueFd(::fcntl(stats_.fd(), F_DUPFD_CLOEXEC, 0)));
    EXPECT_TRUE(reader.ok()) << reader.status().ToString();
    watch_->Add(1, std::make_shared<UniqueFd>(fds[0]), std::make_shared<const link::StatsReader>(*std::move(reader)),
                kTimeout, now_);
  }
  // As the timer does it.
  void Check(milliseconds after = milliseconds(500)) {
    now_ += after;
    watch_->Check(now_);
  }

  TimePoint now_ = Clock::now();
  link::StatsWriter stats_ = *link::StatsWriter::Create({});
  net::EventLoop loop_;
  UniqueFd worker_;
  std::vector<std::pair<WorkerWatch::Sign, std::string>> lost_;
  std::optional<WorkerWatch> watch_{std::in_place, loop_,
                                    [this](uint64_t worker, WorkerWatch::Sign sign, const std::string& why) {
                                      EXPECT_EQ(worker, 1u);
                                      lost_.emplace_back(sign, why);
                                      loop_.Stop();
                                    }};
};

TEST_F(WorkerWatchTest, OneThatComesRoundIsNotLost) {
  for (int i = 0; i < 100; ++i) {
    stats_.Beat(now_);
    Check();
  }
  EXPECT_TRUE(lost_.empty());
}

TEST_F(WorkerWatchTest, OneThatIsSilentIsLostOnce) {
  stats_.Beat(now_);
  for (int i = 0; i < 4; ++i) Check();
  EXPECT_TRUE(lost_.empty());
  for (int i = 0; i < 4; ++i) Check();
  ASSERT_EQ(lost_.size(), 1u);
  EXPECT_EQ(lost_[0].first, WorkerWatch::Sign::kSilent);
  EXPECT_EQ(lost_[0].second, "it did not come round for its heartbeat_timeout of 2 s");
  EXPECT_FALSE(watch_->Remove(1));
}

TEST_F(WorkerWatchTest, OneThatNeverCameRoundCountsFromItsBeginning) {
  for (int i = 0; i < 4; ++i) Check();
  EXPECT_TRUE(lost_.empty());
  Check();
  EXPECT_EQ(lost_.size(), 1u);
}

TEST_F(WorkerWatchTest, ATimeToComeIsNoSignOfLife) {
  stats_.Beat(now_ + std::chrono::hours(1));
  for (int i = 0; i < 5; ++i) Check();
  EXPECT_TRUE(lost_.empty());
  Check();
  EXPECT_EQ(lost_.size(), 1u);
}

TEST_F(WorkerWatchTest, AMasterThatWasStoppedItselfCountsAnew) {
  Check();
  Check(std::chrono::hours(1));
  EXPECT_TRUE(lost_.empty());
  for (int i = 0; i < 4; ++i) Check();
  EXPECT_TRUE(lost_.empty());
  Check();
  EXPECT_EQ(lost_.size(), 1u);
}

TEST_F(WorkerWatchTest, AClosedSocketIsTheEnd) {
  worker_.reset();
  loop_.Run(nullptr);
  ASSERT_EQ(lost_.size(), 1u);
  EXPECT_EQ(lost_[0].first, WorkerWatch::Sign::kClosed);
  Check(milliseconds(5000));
  EXPECT_EQ(lost_.size(), 1u);
}

}  // namespace
}  // namespace mindserve::gateway
