#include "gateway/answering.h"

#include <algorithm>
#include <set>

#include "gateway/auth.h"

namespace mindserve::gateway {

const std::vector<std::string>& Answering::Names() {
  const std::pair revisions(router_.revision(), traffic_.revision());
  if (std::exchange(revisions_, revisions) == revisions) return names_;
  const std::vector<std::string> servables = router_.Answering(service_);
  const auto answers = [&](const Variation& each) { return std::ranges::binary_search(servables, each.servable); };
  std::set<std::string> names(servables.begin(), servables.end());
  std::vector<const Split*> splits = traffic_.splits();
  std::erase_if(splits, [&](const Split* split) { return std::ranges::none_of(split->variations(), answers); });
  for (const Split* split : splits) {
    for (const Variation& each : split->variations()) names.erase(each.servable);
    for (const Mirror& each : split->mirrors()) names.erase(each.servable);
  }
  for (const Split* split : splits) names.insert(split->name());
  names_.assign(names.begin(), names.end());
  return names_;
}

std::vector<std::string> Answering::NamesFor(const Call& call) {
  std::vector<std::string> names = Names();
  if (const ClientIdentity* identity = call.identity(); identity != nullptr) {
    std::erase_if(names, [&](const std::string& name) { return !identity->MayCall(name); });
  }
  return names;
}

Result<std::string> Answering::Meant(const Call& call, const std::string& what) {
  const std::vector<std::string>& all = Names();
  const ClientIdentity* identity = call.identity();
  if (all.empty()) return std::string();
  if (all.size() == 1 && (identity == nullptr || identity->MayCall(all.front()))) return all.front();
  std::vector<std::string> names = NamesFor(call);
  if (names.size() == 1) return std::move(names.front());
  if (names.empty()) return identity->DenyAll(what);
  return Status(Code::kNotFound, "Application metadata not set: " + what + " is answered by the servables " +
                                     Quoted(names) + ", metadata 'application' has to name one of them");
}

std::string Quoted(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text.append(text.empty() ? "'" : ", '").append(name).append("'");
  return text;
}

}  // namespace mindserve::gateway
