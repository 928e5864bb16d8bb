// A worker's state, in memory that the master reads at any time, also of a worker that hangs or is dead: when it last
// came round, and one entry a stage with its statistics and what it executes, written by the worker as it goes.
// docs/wire_format.md states the layout.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/execution.h"
#include "base/histogram.h"
#include "base/stage_stats.h"
#include "base/status.h"
#include "base/unique_fd.h"
#include "link/arena.h"

namespace mindserve::link {

// More than anybody needs; bounds what a reader can be made to look at.
inline constexpr uint32_t kMaxStages = 4096;

enum class StageKind : uint32_t { kModel = 0, kFunction = 1, kHandler = 2 };

struct StageName {
  StageKind kind = StageKind::kModel;
  std::string name;  // a model's file, "servable.function", a handler's path; cut to what an entry holds
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
  std::atomic<int64_t> beat_ns{0};  // on CLOCK_MONOTONIC: when the runtime thread last came round; 0: not yet
  std::atomic<uint32_t> hung{0};    // the number of the stage, from 1, that went beyond its timeout; 0: none has
};

// The worker's end.
class StatsWriter {
 public:
  // Stages beyond kMaxStages are refused: INVALID_ARGUMENT.
  static Result<StatsWriter> Create(std::span<const StageName> stages);
  int fd() const { return region_.fd(); }
  // Of the stages in their order. They live as long as the writer.
  StageStats& stage(size_t i);
  // The runtime thread comes round at this time.
  void Beat(TimePoint now) { header().beat_ns.store(now.time_since_epoch().count(), std::memory_order_relaxed); }
  // The worker is about to end because the stage went beyond its timeout.
  void SayHung(size_t stage) { header().hung.store(static_cast<uint32_t>(stage) + 1, std::memory_order_release); }

 private:
  StatsHeader& header() { return *reinterpret_cast<StatsHeader*>(region_.data()); }
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

  // When the runtime thread last came round; nothing before the first time.
  std::optional<TimePoint> LastBeat() const;
  // The stage of which the worker said that it went beyond its timeout.
  std::optional<StageName> HungStage() const;
  // The requests that are executed now, or were when the worker died, stage by stage; nothing for a stage that executes
  // more than it can name.
  std::vector<std::optional<std::vector<ExecutionTag>>> Executing() const;

 private:
  const StatsHeader& header() const { return *reinterpret_cast<const StatsHeader*>(region_.data()); }
  const StatsEntry& entry(size_t i) const;
  StageName Name(size_t i) const;
  Region region_;
  size_t entries_ = 0;
};

}  // namespace mindserve::link
