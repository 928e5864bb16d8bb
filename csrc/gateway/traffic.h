// Names that stand for several servables or versions, and which of those answers a call.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "gateway/call.h"
#include "gateway/call_stats.h"
#include "gateway/gateway.h"
#include "gateway/router.h"
#include "gateway/service_table.h"

namespace mindserve::gateway {

// A key of trailing metadata: which variation has answered.
inline constexpr std::string_view kVariationKey = "mindserve-variation";

// INVALID_ARGUMENT, with what is wrong and where.
Status CheckSplits(const std::vector<SplitSpec>& splits);

// Among what a method counts, the places for one that is counted apart. Belongs to an I/O thread.
class CountsOf {
 public:
  // Of the method that `target` is. `variation` empty: of a mirror.
  MethodCounts& Find(CallStats& stats, const Router::Target& target, const std::string& split,
                     const std::string& variation);

 private:
  // By the method's own counts: to look a key up costs more than the rest of a choice.
  std::vector<std::pair<const MethodCounts*, MethodCounts*>> known_;
  uint64_t freed_ = 0;  // CallStats::freed of when they were found
};

// Who gets copies of a share of a split's calls (mirrors.h).
struct Mirror {
  std::string split;
  std::string servable;
  uint64_t version = 0;
  int64_t share = 0;  // of kWhole
  int64_t credit = 0;
  CountsOf counts = {};

  // Whether it gets the next call: exactly its share of them, and as evenly as that allows.
  bool Due();
};

// One of those that a name stands for.
struct Variation {
  std::string split;  // the name
  std::string name;
  std::string servable;
  uint64_t version = 0;  // 0: the newest
  double weight = 1;
  int64_t share = 0;   // the weight, of kWhole for all
  int64_t credit = 0;  // what it is owed, in the same unit
  CountsOf counts = {};
  std::vector<Mirror>* mirrors = nullptr;  // the split's; null: none
};

// What to call it where an answer always has a variation; null: none was chosen.
inline std::string_view NameOf(const Variation* variation) {
  return variation == nullptr ? std::string_view("default") : variation->name;
}

// A name and its variations, as one I/O thread has them.
class Split {
 public:
  // Weights are counted in whole parts, so that nothing is lost to rounding however many calls there are.
  static constexpr int64_t kWhole = int64_t{1} << 32;

  explicit Split(const SplitSpec& spec);
  Split(const Split&) = delete;  // its variations refer to its mirrors

  const std::string& name() const { return name_; }
  const std::string& sticky() const { return sticky_; }
  const std::vector<Variation>& variations() const { return variations_; }
  const std::vector<Mirror>& mirrors() const { return mirrors_; }

  // Each in proportion to its weight, and as evenly in between as that allows: after any number of calls each has had
  // its share of them to within one (smooth weighted round robin; with many variations of unequal weight to within a
  // few).
  Variation& Next();
  // The same for the same value, as long as weights stay, in every thread and process. When they change, no more values
  // go elsewhere than have to, and none between two whose weights stay in proportion (weighted rendezvous hashing).
  Variation& For(std::string_view value);

 private:
  std::string name_;
  std::string sticky_;
  std::vector<Variation> variations_;
  std::vector<Mirror> mirrors_;
  int64_t whole_ = 0;  // of all shares
};

// The names that are split. Belongs to one I/O thread.
class Traffic {
 public:
  // Calls are counted in `stats`, which outlives it.
  explicit Traffic(CallStats& stats) : stats_(stats) {}

  // Instead of those before. Calls keep what was chosen for them.
  void Set(const std::vector<SplitSpec>& splits);

  bool empty() const { return splits_.empty(); }
  // Null: the name is none that is split.
  const Split* Find(std::string_view name) const;
  // In alphabetical order.
  std::vector<const Split*> splits() const;
  // Another one after each change.
  uint64_t revision() const { return revision_; }

  // Who is to answer a call of this name. Null: the name itself, for it is not split, or the client asks for a version:
  // versions are a servable's. Shared with the table, and whoever else was chosen from the same split.
  std::shared_ptr<Variation> Choose(std::string_view name, uint64_t version, const Call& call);

  // As what a call is counted that goes to a worker, and one for which there is none.
  MethodCounts& Counts(Variation& variation, const Router::Target& target);
  MethodCounts& Unanswered(const Variation& variation, std::string_view path);
  MethodCounts& Counts(Mirror& mirror, const Router::Target& target);
  MethodCounts& Unanswered(const Mirror& mirror, std::string_view path);

 private:
  CallStats& stats_;
  StringMap<std::shared_ptr<Split>> splits_;  // shared as Choose says
  uint64_t revision_ = 0;
};

}  // namespace mindserve::gateway
