#include "base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace mindserve {
namespace {

using testing::ElementsAre;
using testing::Pair;

class LogTest : public testing::Test {
 protected:
  void SetUp() override {
    SetLogLevel(LogLevel::kInfo);
    SetLogSink([this](LogLevel level, std::string_view message) {
      std::lock_guard lock(mutex_);
      lines_.emplace_back(level, message);
    });
  }
  void TearDown() override {
    SetLogSink({});
    SetLogLevel(LogLevel::kInfo);
  }

  std::mutex mutex_;
  std::vector<std::pair<LogLevel, std::string>> lines_;
};

TEST_F(LogTest, GoesToTheSink) {
  Log(LogLevel::kInfo, "one");
  Log(LogLevel::kError, "two");
  EXPECT_THAT(lines_, ElementsAre(Pair(LogLevel::kInfo, "one"), Pair(LogLevel::kError, "two")));
}

TEST_F(LogTest, DropsWhatIsBelowTheLevel) {
  EXPECT_FALSE(LogEnabled(LogLevel::kDebug));
  EXPECT_TRUE(LogEnabled(LogLevel::kInfo));
  Log(LogLevel::kDebug, "dropped");
  SetLogLevel(LogLevel::kError);
  EXPECT_FALSE(LogEnabled(LogLevel::kWarning));
  Log(LogLevel::kWarning, "dropped");
  Log(LogLevel::kError, "kept");
  SetLogLevel(LogLevel::kDebug);
  Log(LogLevel::kDebug, "kept too");
  EXPECT_THAT(lines_, ElementsAre(Pair(LogLevel::kError, "kept"), Pair(LogLevel::kDebug, "kept too")));
}

TEST_F(LogTest, WithoutASinkWritesLinesToStderr) {
  SetLogSink({});
  testing::internal::CaptureStderr();
  Log(LogLevel::kWarning, "half full");
  Log(LogLevel::kDebug, "dropped");
  Log(LogLevel::kError, std::string_view("no terminator here", 13));
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "[WARNING] half full\n[ERROR] no terminator\n");
  EXPECT_TRUE(lines_.empty());
}

TEST_F(LogTest, ASinkMayReplaceItself) {
  int second = 0;
  SetLogSink(
      [&second](LogLevel, std::string_view) { SetLogSink([&second](LogLevel, std::string_view) { ++second; }); });
  Log(LogLevel::kInfo, "first");
  Log(LogLevel::kInfo, "second");
  EXPECT_EQ(second, 1);
}

TEST_F(LogTest, AReplacedSinkIsLetGo) {
  auto owned = std::make_shared<int>(0);
  SetLogSink([owned](LogLevel, std::string_view) {});
  EXPECT_EQ(owned.use_count(), 2);
  SetLogSink({});
  EXPECT_EQ(owned.use_count(), 1);
}

TEST_F(LogTest, ThreadsLogAndReplaceSinksAtOnce) {
  constexpr int kThreads = 4;
  constexpr int kLines = 200;
  std::atomic<int> seen{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&seen] {
      for (int line = 0; line < kLines; ++line) {
        SetLogSink([&seen](LogLevel, std::string_view) { ++seen; });
        Log(LogLevel::kInfo, "line");
      }
    });
  }
  for (auto& thread : threads) thread.join();
  // A line may still have gone to the fixture's sink, before the first replacement: none may be lost.
  EXPECT_EQ(seen.load() + static_cast<int>(lines_.size()), kThreads * kLines);
}

}  // namespace
}  // namespace mindserve
