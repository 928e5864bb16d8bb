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

size_t RegionSize(uint32_t entries) {
  return (kEntriesBegin + entries * sizeof(StatsEntry) + kPage - 1) / kPage * kPage;
}

}  // namespace

Result<StatsWriter> StatsWriter::Create(std::span<const StageName> stages) {
  if (stages.size() > kMaxStages) {
    return Status(Code::kInvalidArgument, "a servable has " + std::to_string(stages.size()) +
                                              " models and functions, expected at most " + std::to_string(kMaxStages));
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
  StatsHeader header;
  std::memcpy(&header, region->data(), sizeof header);
  if (header.entry_size != sizeof(StatsEntry) || header.entries > kMaxStages ||
      region->size() != RegionSize(header.entries)) {
    return Status(Code::kInvalidArgument, "the worker's statistics have " + std::to_string(header.entries) +
                                              " entries of " + std::to_string(header.entry_size) + " bytes in " +
                                              std::to_string(region->size()) + ", expected entries of " +
                                              std::to_string(sizeof(StatsEntry)));
  }
  StatsReader reader;
  reader.region_ = *std::move(region);
  reader.entries_ = header.entries;
  return reader;
}

std::vector<StageSnapshot> StatsReader::Read() const {
  std::vector<StageSnapshot> stages;
  stages.reserve(entries_);
  for (size_t i = 0; i < entries_; ++i) {
    const auto& entry = *reinterpret_cast<const StatsEntry*>(region_.data() + kEntriesBegin + i * sizeof(StatsEntry));
    // The worker may write what it likes meanwhile: each value is read once and then checked.
    const uint32_t size = *static_cast<const volatile uint32_t*>(&entry.name_size);
    const StageKind kind = *static_cast<const volatile StageKind*>(&entry.kind);
    StageSnapshot& stage = stages.emplace_back();
    stage.stage.kind = kind == StageKind::kModel ? StageKind::kModel : StageKind::kFunction;
    stage.stage.name.assign(entry.name, std::min<size_t>(size, StatsEntry::kNameBytes));
    stage.batch_sizes = entry.stats.batch_sizes.Read();
    stage.queue_ns = entry.stats.queue_ns.Read();
    stage.run_ns = entry.stats.run_ns.Read();
    stage.failed = entry.stats.failed.value();
    stage.expired = entry.stats.expired.value();
  }
  return stages;
}

}  // namespace mindserve::link
