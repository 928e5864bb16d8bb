#include "gateway/router.h"

#include <algorithm>

namespace mindserve::gateway {

MethodKey KeyOf(const WorkerSpec& spec, const std::string& method) {
  MethodKey key{kPredictPath, spec.servable, spec.version, method};
  if (IsPath(method)) {
    key.method = RpcOf(method);
    key.path = method == StreamPath(key.method) ? kPredictStreamPath : method;
  }
  return key;
}

size_t Router::Version::Routable() const {
  return static_cast<size_t>(std::ranges::count_if(workers, [](const auto& worker) { return worker->routable(); }));
}

void Router::Declare(const std::string& servable) {
  servables_.try_emplace(servable);
}

void Router::Remove(const std::string& servable) {
  ++revision_;
  servables_.erase(servable);
}

void Router::AddWorker(std::shared_ptr<WorkerEnd> worker) {
  const WorkerSpec& spec = worker->spec();
  Version& version = servables_[spec.servable][spec.version];
  stats_.OnServed(spec.servable, spec.version);
  SetMethods(version, spec);
  version.workers.push_back(std::move(worker));
}

void Router::SetMethods(Version& version, const WorkerSpec& spec) {
  ++revision_;
  version.methods.clear();
  for (const auto& [name, idempotent] : spec.methods) {
    version.methods.push_back({name, &stats_.Of(KeyOf(spec, name))});
  }
}

void Router::RemoveWorker(const std::shared_ptr<WorkerEnd>& worker) {
  const auto servable = servables_.find(worker->spec().servable);
  if (servable == servables_.end()) return;
  const auto found = servable->second.find(worker->spec().version);
  if (found == servable->second.end()) return;
  Version& version = found->second;
  const bool was_last = !version.workers.empty() && version.workers.back() == worker;
  std::erase(version.workers, worker);
  if (was_last && !version.workers.empty()) SetMethods(version, version.workers.back()->spec());
}

std::vector<std::string> Router::Servables() const {
  std::vector<std::string> names;
  for (const auto& [name, versions] : servables_) names.push_back(name);
  std::ranges::sort(names);
  return names;
}

void Router::RemoveVersion(const std::string& servable, uint64_t version) {
  const auto found = servables_.find(servable);
  if (found == servables_.end() || found->second.erase(version) == 0) return;
  ++revision_;
  stats_.OnRemoved(servable, version);
}

std::vector<std::string> Router::Answering(std::string_view service) const {
  std::vector<std::string> names;
  const auto answers = [&](const auto& version) {
    return std::ranges::any_of(version.second.methods, [&](const Version::Method& method) {
      return IsPath(method.name) && ServiceOf(method.name) == service;
    });
  };
  for (const auto& [name, versions] : servables_) {
    if (std::ranges::any_of(versions, answers)) names.push_back(name);
  }
  std::ranges::sort(names);
  return names;
}

template <typename V>
auto Router::Choose(V& versions, uint64_t version) -> decltype(&versions.begin()->second) {
  if (version != 0) {
    const auto found = versions.find(version);
    return found == versions.end() ? nullptr : &found->second;
  }
  for (auto& [number, candidate] : versions) {
    if (candidate.Routable() > 0) return &candidate;
  }
  return versions.empty() ? nullptr : &versions.begin()->second;
}

size_t Router::Workers(std::string_view servable, uint64_t version) const {
  const auto found = servables_.find(servable);
  if (found == servables_.end()) return 0;
  const Version* chosen = Choose(found->second, version);
  return chosen == nullptr ? 0 : chosen->Routable();
}

Router::Outcome Router::Find(std::string_view servable, std::string_view method, uint64_t number, size_t count,
                             std::vector<Target>* targets, Pick pick) {
  targets->clear();
  const auto found = servables_.find(servable);
  if (found == servables_.end()) return Outcome::kNoServable;
  Version* version = Choose(found->second, number);
  // A servable that is declared and has never had a worker is being started: its versions are not known yet.
  if (version == nullptr) return found->second.empty() ? Outcome::kNoWorker : Outcome::kNoServable;
  const auto called = std::ranges::find(version->methods, method, &Version::Method::name);
  if (called == version->methods.end()) return Outcome::kNoMethod;
  const size_t n = version->workers.size();
  if (n > 0) version->turn = (version->turn + 1) % n;
  for (size_t i = 0; i < n; ++i) {
    const std::shared_ptr<WorkerEnd>& worker = version->workers[(version->turn + i) % n];
    if (!worker->routable()) continue;
    const int index = worker->MethodIndex(method);
    if (index >= 0) targets->push_back({worker, static_cast<uint16_t>(index), called->counts});
  }
  if (targets->empty()) return Outcome::kNoWorker;
  if (pick != Pick::kAny) [[unlikely]] {
    if (targets->size() == 1) return pick == Pick::kSuspect ? Outcome::kNoOther : Outcome::kFound;
    const auto kept =
        std::ranges::max_element(*targets, {}, [](const Target& target) { return target.worker->spec().id; });
    std::iter_swap(targets->begin(), kept);
    pick == Pick::kOrdinary ? targets->erase(targets->begin()) : targets->erase(targets->begin() + 1, targets->end());
  }
  if (targets->size() > 1) {
    std::ranges::stable_sort(*targets, {}, [](const Target& target) { return target.worker->load; });
  }
  if (targets->size() > count) targets->erase(targets->begin() + static_cast<ptrdiff_t>(count), targets->end());
  return Outcome::kFound;
}

bool Router::Alive(std::string_view servable) const {
  const auto found = servables_.find(servable);
  return found != servables_.end() &&
         std::ranges::any_of(found->second, [](const auto& version) { return version.second.Routable() > 0; });
}

}  // namespace mindserve::gateway
