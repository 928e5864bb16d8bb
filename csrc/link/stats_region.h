// A worker's statistics, in memory that the master reads at any time, also of a worker that hangs: one entry a stage,
// counted in by the worker as it goes. docs/wire_format.md states the layout.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/histogram.h"
#include "base/stage_stats.h"
#include "base/status.h"
#include "base/unique_fd.h"
#include "link/arena.h"

namespace mindserve::link {

// More than anybody needs; bounds what a reader can be made to look at.
inline constexpr uint32_t kMaxStages = 4096;

enum class StageKind : uint32_t { kModel = 0, kFunction = 1 };

struct StageName {
  StageKind kind = StageKind::kModel;
  std::string name;  // a model's file, "servable.function"; cut to what an entry holds
};

struct StatsEntry {
  static constexpr size_t kNameBytes = 120;
  StageKind kind = StageKind::kModel;
  uint32_t name_size = 0;
  char name[kNameBytes] = {};
  StageStats stats;
};

struct StatsHeader {
  uint32_t entries = 0;
  uint32_t entry_size = sizeof(StatsEntry);
};

// The worker's end.
class StatsWriter {
 public:
  // Stages beyond kMaxStages are refused: INVALID_ARGUMENT.
  static Result<StatsWriter> Create(std::span<const StageName> stages);
  int fd() const { return region_.fd(); }
  // Of the stages in their order. They live as long as the writer.
  StageStats& stage(size_t i);

 private:
  Region region_;
};

// What an entry said when it was read.
struct StageSnapshot {
  StageName stage;
  HistogramSnapshot batch_sizes;
  HistogramSnapshot queue_ns;
  HistogramSnapshot run_ns;
  uint64_t failed = 0;
  uint64_t expired = 0;
};

// The master's end.
class StatsReader {
 public:
  // INVALID_ARGUMENT if the region is not what a worker of this version makes.
  static Result<StatsReader> Open(UniqueFd fd);
  std::vector<StageSnapshot> Read() const;

 private:
  Region region_;
  size_t entries_ = 0;
};

}  // namespace mindserve::link
