#include "gateway/traffic.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "base/siphash.h"
#include "base/utf8.h"

namespace mindserve::gateway {
namespace {

constexpr size_t kLongestName = 64;

// Nobody gains by choosing their variation, and over restarts values are to stay where they are.
constexpr SipHash::Key kStickyKey = {0x6d696e6473657276, 0x65207472616666ff};

std::string Quoted(std::string_view text) {
  return "'" + std::string(CutUtf8(text, 256)) + "'";
}

// What goes into a header field, a statistics row and a command line.
bool IsVariationName(std::string_view name) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
           c == '.';
  };
  return !name.empty() && name.size() <= kLongestName && std::ranges::all_of(name, plain);
}

Status CheckSplit(const SplitSpec& split) {
  const auto wrong = [&](const std::string& what) {
    return Status(Code::kInvalidArgument, "traffic of " + Quoted(split.name) + ": " + what);
  };
  if (split.name.empty()) return {Code::kInvalidArgument, "traffic of a name that is empty"};
  if (split.variations.empty()) return wrong("there are no variations, expected at least one");
  std::set<std::string_view> names;
  double sum = 0;
  for (const SplitSpec::Variation& each : split.variations) {
    const std::string which = "variation " + Quoted(each.name);
    if (!IsVariationName(each.name)) {
      return wrong(which + " should have a name of 1 to 64 letters, digits, '.', '_' and '-'");
    }
    if (!names.insert(each.name).second) return wrong(which + " is given twice");
    if (each.servable.empty()) return wrong(which + " has no servable");
    if (!std::isfinite(each.weight) || each.weight < 0) {
      return wrong(which + " has weight " + std::to_string(each.weight) + ", expected a number >= 0");
    }
    sum += each.weight;
  }
  if (!std::isfinite(sum) || sum <= 0) {
    return wrong("the weights sum to " + std::to_string(sum) + ", expected a number > 0");
  }
  for (const SplitSpec::Mirror& each : split.mirrors) {
    if (each.servable.empty()) return wrong("a mirror has no servable");
    if (!(each.fraction >= 0 && each.fraction <= 1)) {
      return wrong("the mirror " + Quoted(each.servable) + " has the fraction " + std::to_string(each.fraction) +
                   ", expected 0 to 1");
    }
  }
  return Status::Ok();
}

}  // namespace

Status CheckSplits(const std::vector<SplitSpec>& splits) {
  std::set<std::string_view> names;
  for (const SplitSpec& split : splits) {
    MS_RETURN_IF_ERROR(CheckSplit(split));
    if (!names.insert(split.name).second) {
      return {Code::kInvalidArgument, "traffic of " + Quoted(split.name) + " is given twice"};
    }
  }
  return Status::Ok();
}

MethodCounts& CountsOf::Find(CallStats& stats, const Router::Target& target, const std::string& split,
                             const std::string& variation) {
  if (freed_ != stats.freed) {
    known_.clear();
    freed_ = stats.freed;
  }
  const auto found = std::ranges::find(known_, target.counts, [](const auto& each) { return each.first; });
  if (found != known_.end()) return *found->second;
  const WorkerSpec& spec = target.worker->spec();
  MethodKey key = KeyOf(spec, spec.methods[target.method].name);
  key.split = split;
  key.variation = variation;
  key.mirrored = variation.empty();
  MethodCounts& counts = stats.Of(key);
  known_.emplace_back(target.counts, &counts);
  return counts;
}

bool Mirror::Due() {
  credit += share;
  if (credit < Split::kWhole) return false;
  credit -= Split::kWhole;
  return true;
}

Split::Split(const SplitSpec& spec) : name_(spec.name), sticky_(spec.sticky) {
  double sum = 0;
  for (const SplitSpec::Variation& each : spec.variations) sum += each.weight;
  for (const SplitSpec::Mirror& each : spec.mirrors) {
    mirrors_.push_back({.split = spec.name,
                        .servable = each.servable,
                        .version = each.version,
                        .share = static_cast<int64_t>(std::llround(each.fraction * static_cast<double>(kWhole)))});
  }
  for (const SplitSpec::Variation& each : spec.variations) {
    // However small, a weight is some.
    const auto share = static_cast<int64_t>(std::llround(each.weight / sum * static_cast<double>(kWhole)));
    variations_.push_back({.split = spec.name,
                           .name = each.name,
                           .servable = each.servable,
                           .version = each.version,
                           .weight = each.weight,
                           .share = each.weight > 0 ? std::max<int64_t>(share, 1) : 0,
                           .mirrors = mirrors_.empty() ? nullptr : &mirrors_});
    whole_ += variations_.back().share;
  }
}

Variation& Split::Next() {
  Variation* next = nullptr;
  for (Variation& each : variations_) {
    each.credit += each.share;
    if (each.share > 0 && (next == nullptr || each.credit > next->credit)) next = &each;
  }
  next->credit -= whole_;
  return *next;
}

Variation& Split::For(std::string_view value) {
  Variation* best = nullptr;
  double least = 0;
  for (Variation& each : variations_) {
    if (each.share == 0) continue;
    SipHash hash(kStickyKey);
    hash.Add(std::as_bytes(std::span<const char>(each.name.c_str(), each.name.size() + 1)));
    hash.Add(std::as_bytes(std::span<const char>(value)));
    // Uniform in (0, 1): the 53 bits that a double has, and a half.
    const double uniform = (static_cast<double>(hash.Finish() >> 11) + 0.5) * 0x1p-53;
    const double waits = -std::log(uniform) / static_cast<double>(each.share);
    if (best != nullptr && waits >= least) continue;
    best = &each;
    least = waits;
  }
  return *best;
}

void Traffic::Set(const std::vector<SplitSpec>& splits) {
  ++revision_;
  splits_.clear();
  for (const SplitSpec& spec : splits) splits_[spec.name] = std::make_shared<Split>(spec);
}

const Split* Traffic::Find(std::string_view name) const {
  const auto found = splits_.find(name);
  return found == splits_.end() ? nullptr : found->second.get();
}

std::vector<const Split*> Traffic::splits() const {
  std::vector<const Split*> splits;
  for (const auto& [name, split] : splits_) splits.push_back(split.get());
  std::ranges::sort(splits, {}, &Split::name);
  return splits;
}

std::shared_ptr<Variation> Traffic::Choose(std::string_view name, uint64_t version, const Call& call) {
  if (version != 0) return nullptr;
  const auto found = splits_.find(name);
  if (found == splits_.end()) return nullptr;
  const std::shared_ptr<Split>& split = found->second;
  const std::string_view value = split->sticky().empty() ? "" : call.metadata_value(split->sticky());
  return {split, value.empty() ? &split->Next() : &split->For(value)};
}

MethodCounts& Traffic::Counts(Variation& variation, const Router::Target& target) {
  return variation.counts.Find(stats_, target, variation.split, variation.name);
}

MethodCounts& Traffic::Unanswered(const Variation& variation, std::string_view path) {
  return stats_.Of({.path = std::string(path),
                    .servable = variation.servable,
                    .version = variation.version,
                    .split = variation.split,
                    .variation = variation.name});
}

MethodCounts& Traffic::Counts(Mirror& mirror, const Router::Target& target) {
  return mirror.counts.Find(stats_, target, mirror.split, "");
}

MethodCounts& Traffic::Unanswered(const Mirror& mirror, std::string_view path) {
  return stats_.Of({.path = std::string(path),
                    .servable = mirror.servable,
                    .version = mirror.version,
                    .split = mirror.split,
                    .mirrored = true});
}

}  // namespace mindserve::gateway
