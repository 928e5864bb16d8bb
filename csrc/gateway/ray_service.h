// ray.serve.RayServeAPIService: which servables there are, and whether the server is well, as clients and load
// balancers of Ray Serve ask. Both answer UNAVAILABLE while the server stops.
#pragma once

#include <memory>

#include "gateway/call.h"
#include "gateway/health_service.h"
#include "gateway/router.h"
#include "gateway/traffic.h"

namespace mindserve::gateway {

inline constexpr const char* kListApplicationsPath = "/ray.serve.RayServeAPIService/ListApplications";
inline constexpr const char* kHealthzPath = "/ray.serve.RayServeAPIService/Healthz";

class ListApplicationsService final : public Service {
 public:
  ListApplicationsService(MethodCounts& counts, const Router& router, const Traffic& traffic, const Health& health)
      : Service(counts), router_(router), traffic_(traffic), health_(health) {}
  std::unique_ptr<CallHandler> Start(Call& call) override;

 private:
  const Router& router_;
  const Traffic& traffic_;
  const Health& health_;
};

class HealthzService final : public Service {
 public:
  HealthzService(MethodCounts& counts, const Health& health) : Service(counts), health_(health) {}
  bool open_to_all() const override { return true; }
  std::unique_ptr<CallHandler> Start(Call& call) override;

 private:
  const Health& health_;
};

}  // namespace mindserve::gateway
