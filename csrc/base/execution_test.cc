#include "base/execution.h"

#include <gtest/gtest.h>

namespace mindserve {
namespace {

TEST(ExecutionTest, NamesWhatRuns) {
  Execution execution;
  EXPECT_EQ(execution.Read(), std::vector<ExecutionTag>{});
  execution.Begin(5);
  execution.Add({.tag = 0});
  execution.Add({.tag = 7});
  execution.Add({.tag = 7});
  execution.Add({.tag = 9});
  EXPECT_EQ(execution.since_ns(), 5);
  EXPECT_EQ(execution.Read(), (std::vector<ExecutionTag>{0, 7, 9}));
  execution.End();
  EXPECT_EQ(execution.since_ns(), 0);
  EXPECT_EQ(execution.Read(), std::vector<ExecutionTag>{});
}

TEST(ExecutionTest, MoreThanItNamesMayBeAny) {
  Execution execution;
  execution.Begin(1);
  for (uint64_t i = 0; i < Execution::kMost; ++i) execution.Add({.tag = i});
  ASSERT_TRUE(execution.Read().has_value());
  EXPECT_EQ(execution.Read()->size(), Execution::kMost);
  execution.Add({.tag = Execution::kMost - 1});  // of the last one's request
  EXPECT_TRUE(execution.Read().has_value());
  execution.Add({.tag = 5000});
  execution.Add({.tag = 5001});
  EXPECT_EQ(execution.Read(), std::nullopt);
  execution.End();
  execution.Begin(2);
  execution.Add({.tag = 1});
  EXPECT_EQ(execution.Read(), std::vector<ExecutionTag>{1});
}

TEST(ExecutionTest, AMarkTellsRequestsOfOnePlaceApart) {
  std::atomic<uint32_t> begun{0};
  const ExecutionTag first = 17;
  const ExecutionTag second = ExecutionTag{1} << 32 | 17;
  EXPECT_NE(begun.load(), ExecutionMark::Value(first));
  Execution execution;
  execution.Add({.tag = first, .begun = &begun});
  EXPECT_EQ(begun.load(), ExecutionMark::Value(first));
  EXPECT_NE(begun.load(), ExecutionMark::Value(second));
}

}  // namespace
}  // namespace mindserve
