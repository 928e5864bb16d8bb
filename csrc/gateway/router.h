// Servable -> versions -> workers, as one I/O thread knows them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/call_stats.h"
#include "gateway/service_table.h"
#include "gateway/worker_calls.h"

namespace mindserve::gateway {

inline constexpr const char* kPredictPath = "/mindspore.serving.proto.MSService/Predict";

inline constexpr const char* kPredictStreamPath = "/mindserve.StreamService/PredictStream";

// What a method that streams is called among a worker's methods.
inline std::string StreamPath(std::string_view method) {
  return std::string(kPredictStreamPath).append("/").append(method);
}
// Among a worker's methods those of users' services have paths for names, too: "/pkg.Service/Method". Predict has no
// method of such a name.
inline bool IsPath(std::string_view method) {
  return method.starts_with('/');
}
// Of such a path: "pkg.Service" and "Method".
inline std::string_view ServiceOf(std::string_view path) {
  return path.substr(1, path.rfind('/') - 1);
}
inline std::string_view RpcOf(std::string_view path) {
  return path.substr(path.rfind('/') + 1);
}

// As what calls of a worker's method are counted.
MethodKey KeyOf(const WorkerSpec& spec, const std::string& method);

// Belongs to one I/O thread.
class Router {
 public:
  // Calls are counted in `stats`, which outlives the router.
  explicit Router(CallStats& stats) : stats_(stats) {}

  void Declare(const std::string& servable);
  void Remove(const std::string& servable);
  void AddWorker(std::shared_ptr<WorkerEnd> worker);
  // The worker is gone for good. What it served stays known until its version or servable is removed.
  void RemoveWorker(const std::shared_ptr<WorkerEnd>& worker);

  // The version is not served any more. Its workers may still be removed.
  void RemoveVersion(const std::string& servable, uint64_t version);

  struct Target {
    std::shared_ptr<WorkerEnd> worker;
    uint16_t method = 0;
    MethodCounts* counts = nullptr;  // of the method in this version
  };
  enum class Outcome : uint8_t { kFound, kNoServable, kNoMethod, kNoWorker, kNoOther };
  // During an attack (quarantine.h) one worker of a version is kept for suspects.
  enum class Pick : uint8_t {
    kAny,
    kOrdinary,  // not that one, if there is another
    kSuspect,   // only that one; kNoOther if there is no other
    kAccused,   // only that one, or the only one
  };
  // Who can answer: up to `count` workers of one version, the least loaded first, those of equal load in turn. Version
  // 0: the newest that has a worker.
  Outcome Find(std::string_view servable, std::string_view method, uint64_t version, size_t count,
               std::vector<Target>* targets, Pick pick = Pick::kAny);
  // The servables of which a version is known to have a method of this gRPC service, in alphabetical order.
  std::vector<std::string> Answering(std::string_view service) const;
  // Another one after each change of what Answering says.
  uint64_t revision() const { return revision_; }
  // How many workers could answer.
  size_t Workers(std::string_view servable, uint64_t version) const;

  // For health: whether it is known, and whether a worker lives that takes requests.
  bool Known(std::string_view servable) const { return servables_.contains(servable); }
  bool Alive(std::string_view servable) const;
  // Of all that are known, sorted.
  std::vector<std::string> Servables() const;

 private:
  struct Version {
    std::vector<std::shared_ptr<WorkerEnd>> workers;
    struct Method {
      std::string name;
      MethodCounts* counts;
    };
    std::vector<Method> methods;  // of the worker that was added last of those that are there, or were at last
    size_t turn = 0;
    size_t Routable() const;
  };
  using Versions = std::map<uint64_t, Version, std::greater<>>;  // the newest first

  void SetMethods(Version& version, const WorkerSpec& spec);
  template <typename V>
  static auto Choose(V& versions, uint64_t version) -> decltype(&versions.begin()->second);

  CallStats& stats_;
  StringMap<Versions> servables_;
  uint64_t revision_ = 1;
};

}  // namespace mindserve::gateway
