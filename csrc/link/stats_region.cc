#include "link/stats_region.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <type_traits>

#include "link/frame.h"

namespace mindserve::link {
namespace {

// Entries begin here, so that they are aligned like nothing in them needs more.
constexpr size_t kEntriesBegin = 64;
static_assert(sizeof(StatsHeader) <= kEntriesBegin && alignof(StatsEntry) <= kEntriesBegin);
static_assert(std::is_standard_layout_v<StatsEntry>);

// The worker may write what it likes meanwhile: each value is read once and then checked.
template <typename T>
T ReadOnce(const T& value) {
  return *static_cast<const volatile T*>(&value);
}

size_t RegionSize(uint32_t entries) {
  return (kEntriesBegin + entries * sizeof(StatsEntry) + kPage - 1) / kPage * kPage;
}

}  // namespace

Result<StatsWriter> StatsWriter::Create(std::span<const StageName> stages) {
  if (stages.size() > kMaxStages) {
    return Status(Code::kInvalidArgument, "a servable has " + std::to_string(stages.size()) +
                                              " models, functions and handlers, expected at most " +
                                              std::to_string(kMaxStages));
  }
  StatsWriter writer;
  auto region = Region::Create("mindserve-stats", RegionSize(static_cast<uint32_t>(stages.size())));
  if (!region.ok()) return region.status();
  writer.region_ = *std::move(region);
  auto* header = new (writer.region_.data()) StatsHeader;
  header->entries = static_cast<uint32_t>(stages.size());
  for (size_t i = 0; i < stages.size(); ++i) {
    auto* entry = new (writer.region_.data() + kEntriesBegin + i * sizeof(StatsEntry)) StatsEntry;
    entry->kind = stages[i].kind;
    entry->name_size = static_cast<uint32_t>(std::min(stages[i].name.size(), StatsEntry::kNameBytes));
    std::memcpy(entry->name, stages[i].name.data(), entry->name_size);
  }
  return writer;
}

StageStats& StatsWriter::stage(size_t i) {
  return reinterpret_cast<StatsEntry*>(region_.data() + kEntriesBegin + i * sizeof(StatsEntry))->stats;
}

Result<StatsReader> StatsReader::Open(UniqueFd fd) {
  auto region = Region::Open(std::move(fd), kEntriesBegin);
  if (!region.ok()) return region.status();
  const auto& header = *reinterpret_cast<const StatsHeader*>(region->data());
  const uint32_t entries = ReadOnce(header.entries);
  const uint32_t entry_size = ReadOnce(header.entry_size);
  if (entry_size != sizeof(StatsEntry) || entries > kMaxStages || region->size() != RegionSize(entries)) {
    return Status(Code::kInvalidArgument, "the worker's statistics have " + std::to_string(entries) + " entries of " +
                                              std::to_string(entry_size) + " bytes in " +
                                              std::to_string(region->size()) + ", expected entries of " +
                                              std::to_string(sizeof(StatsEntry)));
  }
  StatsReader reader;
  reader.region_ = *std::move(region);
  reader.entries_ = entries;
  return reader;
}

const StatsEntry& StatsReader::entry(size_t i) const {
  return *reinterpret_cast<const StatsEntry*>(region_.data() + kEntriesBegin + i * sizeof(StatsEntry));
}

StageName StatsReader::Name(size_t i) const {
  const uint32_t size = ReadOnce(entry(i).name_size);
  const StageKind kind = ReadOnce(entry(i).kind);
  return {.kind = kind == StageKind::kModel || kind == StageKind::kHandler ? kind : StageKind::kFunction,
          .name = std::string(entry(i).name, std::min<size_t>(size, StatsEntry::kNameBytes))};
}

std::vector<StageSnapshot> StatsReader::Read() const {
  std::vector<StageSnapshot> stages;
  stages.reserve(entries_);
  for (size_t i = 0; i < entries_; ++i) {
    const StageStats& stats = entry(i).stats;
    stages.push_back({.stage = Name(i),
                      .batch_sizes = stats.batch_sizes.Read(),
                      .queue_ns = stats.queue_ns.Read(),
                      .run_ns = stats.run_ns.Read(),
                      .failed = stats.failed.value(),
                      .expired = stats.expired.value()});
  }
  return stages;
}

std::optional<TimePoint> StatsReader::LastBeat() const {
  const int64_t beat = header().beat_ns.load(std::memory_order_relaxed);
  if (beat == 0) return std::nullopt;
  return TimePoint(Duration(beat));
}

std::optional<StageName> StatsReader::HungStage() const {
  const uint32_t stage = header().hung.load(std::memory_order_acquire);
  if (stage == 0 || stage > entries_) return std::nullopt;
  return Name(stage - 1);
}

std::vector<std::optional<std::vector<ExecutionTag>>> StatsReader::Executing() const {
  std::vector<std::optional<std::vector<ExecutionTag>>> stages;
  stages.reserve(entries_);
  for (size_t i = 0; i < entries_; ++i) stages.push_back(entry(i).stats.execution.Read());
  return stages;
}

}  // namespace mindserve::link
