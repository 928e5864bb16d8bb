// grpc.health.v1: Check and Watch, for the server (""), and for servables and services by their names.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_set>

#include "gateway/call.h"
#include "gateway/router.h"
#include "gateway/served.h"
#include "gateway/traffic.h"
#include "wire/health.h"

namespace mindserve::gateway {

inline constexpr const char* kHealthCheckPath = "/grpc.health.v1.Health/Check";
inline constexpr const char* kHealthWatchPath = "/grpc.health.v1.Health/Watch";

// What an I/O thread knows of health, and who watches it there. Outlives the services and their calls.
class Health {
 public:
  // `served` is null until services are known.
  Health(const Router& router, const Traffic& traffic, const std::shared_ptr<const Served>& served)
      : router_(router), traffic_(traffic), served_(served) {}

  class Watcher {
   public:
    virtual ~Watcher() = default;
    virtual void OnHealthChange() = 0;
  };

  // Listening, and not about to stop.
  void SetServing(bool serving);
  bool serving() const { return serving_; }
  // Something in the router, the traffic, or what is served, changed.
  void Changed();

  // Of a servable; of a name that is split, which serves as long as a variation that gets calls does; or of a service:
  // one of users' serves as long as a servable that answers it does, a built-in one as long as the server does.
  // kServiceUnknown: there is none of this name.
  wire::ServingStatus Get(std::string_view name) const;

  void Add(Watcher& watcher) { watchers_.insert(&watcher); }
  void Remove(Watcher& watcher) { watchers_.erase(&watcher); }

 private:
  bool Known(std::string_view name) const;
  bool Alive(std::string_view name) const;

  const Router& router_;
  const Traffic& traffic_;
  const std::shared_ptr<const Served>& served_;
  bool serving_ = false;
  std::unordered_set<Watcher*> watchers_;
};

class HealthCheckService final : public Service {
 public:
  HealthCheckService(MethodCounts& counts, const Health& health) : Service(counts), health_(health) {}
  bool open_to_all() const override { return true; }
  size_t most_message_bytes() const override { return kMostNameBytes; }
  std::unique_ptr<CallHandler> Start(Call& call) override;

 private:
  const Health& health_;
};

class HealthWatchService final : public Service {
 public:
  HealthWatchService(MethodCounts& counts, Health& health) : Service(counts), health_(health) {}
  bool open_to_all() const override { return true; }
  size_t most_message_bytes() const override { return kMostNameBytes; }
  std::unique_ptr<CallHandler> Start(Call& call) override;

 private:
  Health& health_;
};

}  // namespace mindserve::gateway
