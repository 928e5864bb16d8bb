#include "gateway/call_stats.h"

#include <algorithm>

namespace mindserve::gateway {

void MethodCounts::Add(const MethodCounts& other) {
  for (size_t i = 0; i < ended.size(); ++i) ended[i] += other.ended[i];
  with_errors += other.with_errors;
  for (size_t i = 0; i < errors.size(); ++i) errors[i] += other.errors[i];
  instances += other.instances;
  bytes_in += other.bytes_in;
  bytes_out += other.bytes_out;
  latency_ns.Add(other.latency_ns);
}

void CallStats::OnRemoved(const std::string& path, const std::string& servable, uint64_t version) {
  OnServed(servable, version);
  removed.emplace_back(servable, version);
  while (removed.size() > kMostRemoved) {
    const std::pair<std::string, uint64_t> oldest = removed.front();
    const auto& [name, number] = oldest;
    const auto begin = methods.lower_bound({path, name, number, ""});
    const auto end = std::find_if(begin, methods.end(), [&](const auto& method) {
      return method.first.path != path || std::pair(method.first.servable, method.first.version) != oldest;
    });
    if (std::any_of(begin, end, [](const auto& method) { return method.second->under_way > 0; })) return;
    for (auto method = begin; method != end; method = methods.erase(method)) {
      Of({path, name, 0, method->first.method}).Add(*method->second);
    }
    removed.pop_front();
  }
}

}  // namespace mindserve::gateway
