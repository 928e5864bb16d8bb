#include "link/stats_region.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace mindserve::link {
namespace {

UniqueFd Duplicate(int fd) {
  return UniqueFd(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

TEST(StatsRegionTest, TheReaderSeesWhatTheWriterCounts) {
  const std::vector<StageName> names = {{StageKind::kModel, "add.onnx"}, {StageKind::kFunction, "bench.cast"}};
  auto writer = StatsWriter::Create(names);
  ASSERT_TRUE(writer.ok());
  const auto reader = StatsReader::Open(Duplicate(writer->fd()));
  ASSERT_TRUE(reader.ok()) << reader.status().ToString();

  StageStats& cast = writer->stage(1);
  cast.batch_sizes.Add(3);
  cast.batch_sizes.Add(5);
  cast.queue_ns.AddTime(std::chrono::microseconds(7));
  cast.run_ns.AddTime(std::chrono::microseconds(9));
  cast.failed.Add(2);
  cast.expired.Add();

  const std::vector<StageSnapshot> stages = reader->Read();
  ASSERT_EQ(stages.size(), 2u);
  EXPECT_EQ(stages[0].stage.kind, StageKind::kModel);
  EXPECT_EQ(stages[0].stage.name, "add.onnx");
  EXPECT_EQ(stages[0].batch_sizes.count, 0u);
  EXPECT_EQ(stages[1].stage.kind, StageKind::kFunction);
  EXPECT_EQ(stages[1].stage.name, "bench.cast");
  EXPECT_EQ(stages[1].batch_sizes.count, 2u);
  EXPECT_EQ(stages[1].batch_sizes.sum, 8u);
  EXPECT_EQ(stages[1].queue_ns.sum, 7000u);
  EXPECT_EQ(stages[1].run_ns.sum, 9000u);
  EXPECT_EQ(stages[1].failed, 2u);
  EXPECT_EQ(stages[1].expired, 1u);
}

TEST(StatsRegionTest, LongNamesAreCut) {
  const std::vector<StageName> names = {{StageKind::kFunction, std::string(1000, 'x')}};
  const auto writer = StatsWriter::Create(names);
  ASSERT_TRUE(writer.ok());
  const auto reader = StatsReader::Open(Duplicate(writer->fd()));
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ(reader->Read().at(0).stage.name, std::string(StatsEntry::kNameBytes, 'x'));
}

TEST(StatsRegionTest, WhatIsNoSuchRegionIsRefused) {
  // Not sealed at all.
  UniqueFd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(StatsReader::Open(std::move(null)).status().code(), Code::kInvalidArgument);

  const auto claims = [](uint32_t entries, uint32_t entry_size) {
    auto region = Region::Create("stats", 4096);
    auto* header = reinterpret_cast<StatsHeader*>(region->data());
    header->entries = entries;
    header->entry_size = entry_size;
    return StatsReader::Open(Duplicate(region->fd())).status().code();
  };
  EXPECT_EQ(claims(0, sizeof(StatsEntry)), Code::kOk);
  EXPECT_EQ(claims(0, sizeof(StatsEntry) - 8), Code::kInvalidArgument);
  EXPECT_EQ(claims(1, sizeof(StatsEntry)), Code::kInvalidArgument) << "more than there is room for";
  EXPECT_EQ(claims(UINT32_MAX, sizeof(StatsEntry)), Code::kInvalidArgument);
  // Room for what is claimed, and for far more.
  const auto large = Region::Create("stats", size_t{1} << 30);
  ASSERT_TRUE(large.ok());
  reinterpret_cast<StatsHeader*>(large->data())->entries = 1;
  reinterpret_cast<StatsHeader*>(large->data())->entry_size = sizeof(StatsEntry);
  EXPECT_EQ(StatsReader::Open(Duplicate(large->fd())).status().code(), Code::kInvalidArgument);
}

TEST(StatsRegionTest, MoreStagesThanThereCanBeAreRefused) {
  EXPECT_EQ(StatsWriter::Create(std::vector<StageName>(kMaxStages + 1)).status().code(), Code::kInvalidArgument);
}

TEST(StatsRegionTest, NonsenseInAnEntryIsReadAsNothingWorse) {
  const std::vector<StageName> names = {{StageKind::kModel, "m"}};
  auto writer = StatsWriter::Create(names);
  ASSERT_TRUE(writer.ok());
  auto* entry =
      reinterpret_cast<StatsEntry*>(reinterpret_cast<std::byte*>(&writer->stage(0)) - offsetof(StatsEntry, stats));
  entry->kind = static_cast<StageKind>(77);
  entry->name_size = UINT32_MAX;
  const auto reader = StatsReader::Open(Duplicate(writer->fd()));
  ASSERT_TRUE(reader.ok());
  const StageSnapshot stage = reader->Read().at(0);
  EXPECT_EQ(stage.stage.kind, StageKind::kFunction);
  EXPECT_EQ(stage.stage.name.size(), StatsEntry::kNameBytes);
}

TEST(StatsRegionTest, SaysWhatIsExecutedAndThatTheWorkerLives) {
  const StageName names[] = {{StageKind::kModel, "add.onnx"}, {StageKind::kFunction, "add.half"}};
  auto writer = StatsWriter::Create(names);
  ASSERT_TRUE(writer.ok());
  auto reader = StatsReader::Open(UniqueFd(dup(writer->fd())));
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ(reader->LastBeat(), std::nullopt);
  EXPECT_EQ(reader->HungStage(), std::nullopt);
  EXPECT_EQ(reader->Executing()[1], std::vector<ExecutionTag>{});

  const TimePoint now(std::chrono::seconds(9));
  writer->Beat(now);
  writer->stage(1).execution.Begin(1);
  writer->stage(1).execution.Add({.tag = 42});
  writer->SayHung(1);
  EXPECT_EQ(reader->LastBeat(), now);
  ASSERT_TRUE(reader->HungStage().has_value());
  EXPECT_EQ(reader->HungStage()->name, "add.half");
  EXPECT_EQ(reader->Executing()[0], std::vector<ExecutionTag>{});
  EXPECT_EQ(reader->Executing()[1], std::vector<ExecutionTag>{42});
}

}  // namespace
}  // namespace mindserve::link
