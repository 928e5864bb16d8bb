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

void CallStats::OnRemoved(const std::string& servable, uint64_t version) {
  OnServed(servable, version);
  removed.emplace_back(servable, version);
  while (removed.size() > kMostRemoved) {
    const std::pair<std::string, uint64_t> oldest = removed.front();
    const auto of_oldest = [&](const auto& method) {
      return method.first.version == oldest.second && method.first.servable == oldest.first;
    };
    const auto under_way = [&](const auto& method) { return of_oldest(method) && method.second->under_way > 0; };
    if (std::ranges::any_of(methods, under_way)) return;
    for (auto method = methods.begin(); method != methods.end();) {
      if (!of_oldest(*method)) {
        ++method;
        continue;
      }
      MethodKey key = method->first;
      key.version = 0;
      Of(key).Add(*method->second);
      method = methods.erase(method);
      ++freed;
    }
    removed.pop_front();
  }
}

}  // namespace mindserve::gateway
