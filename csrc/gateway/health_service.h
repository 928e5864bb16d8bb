// grpc.health.v1: Check and Watch, for the server ("") and each servable by its name.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_set>

#include "gateway/call.h"
#include "gateway/router.h"
#include "wire/health.h"

namespace mindserve::gateway {

inline constexpr const char* kHealthCheckPath = "/grpc.health.v1.Health/Check";
inline constexpr const char* kHealthWatchPath = "/grpc.health.v1.Health/Watch";

// What an I/O thread knows of health, and who watches it there. Outlives the services and their calls.
class Health {
 public:
  explicit Health(const Router& router) : router_(router) {}

  class Watcher {
   public:
    virtual ~Watcher() = default;
    virtual void OnHealthChange() = 0;
  };

  // Listening, and not about to stop.
  void SetServing(bool serving);
  bool serving() const { return serving_; }
  // Something in the router changed.
  void Changed();

  // kServiceUnknown: there is none of this name.
  wire::ServingStatus Get(std::string_view service) const;

  void Add(Watcher& watcher) { watchers_.insert(&watcher); }
  void Remove(Watcher& watcher) { watchers_.erase(&watcher); }

 private:
  const Router& router_;
  bool serving_ = false;
  std::unordered_set<Watcher*> watchers_;
};

class HealthCheckService final : public Service {
 public:
  HealthCheckService(MethodCounts& counts, const Health& health) : Service(counts), health_(health) {}
  bool open_to_all() const override { return true; }
  std::unique_ptr<CallHandler> Start(Call& call) override;

 private:
  const Health& health_;
};

class HealthWatchService final : public Service {
 public:
  HealthWatchService(MethodCounts& counts, Health& health) : Service(counts), health_(health) {}
  bool open_to_all() const override { return true; }
  std::unique_ptr<CallHandler> Start(Call& call) override;

 private:
  Health& health_;
};

}  // namespace mindserve::gateway
