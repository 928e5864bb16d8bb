// A method of a user's gRPC service: finds the servable that answers it, and the worker.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gateway/answering.h"
#include "gateway/call.h"
#include "gateway/mirrors.h"
#include "gateway/router.h"
#include "gateway/thread_context.h"
#include "gateway/traffic.h"
#include "gateway/worker_calls.h"

namespace mindserve::gateway {

// The built-in schema of ray_serve's, which a servable answers that has a driver.
inline constexpr const char* kDriverPath = "/ray.serve.PredictAPIsService/Predict";

// What the users' services of an I/O thread have together; all outlive them.
struct UserCalls {
  ThreadContext& context;
  Admission& admission;
  Router& router;
  Traffic& traffic;
  Mirrors& mirrors;
  WorkerCalls& calls;
  std::vector<Router::Target> targets = {};  // reused from call to call
};

class UserService final : public Service {
 public:
  // Who is to answer a call.
  struct Goal {
    std::string servable;
    std::string method;                         // a path
    uint64_t version = 0;                       // 0: the newest
    std::shared_ptr<Variation> variation = {};  // that this is; null: none. Shared as Traffic says
  };
  struct Kind {
    bool client_streaming = false;
    bool server_streaming = false;
    bool operator==(const Kind&) const = default;
  };

  UserService(UserCalls& shared, std::string path, Kind kind)
      : Service(shared.context.stats.Of({.path = path})),
        shared_(shared),
        path_(std::move(path)),
        kind_(kind),
        answering_(ServiceOf(path_), shared.router, shared.traffic) {}

  bool client_streaming() const override { return kind_.client_streaming; }
  bool server_streaming() const override { return kind_.server_streaming; }
  bool counts_as_request() const override { return true; }
  bool holds_messages() const override { return kind_.client_streaming; }
  std::unique_ptr<CallHandler> Start(Call& call) override { return StartAt(call, std::nullopt); }
  // For the goal that was chosen for it already, and that its client may call. Nothing: whom metadata names.
  std::unique_ptr<CallHandler> StartAt(Call& call, std::optional<Goal> goal);
  void OnRefused(Call& call) override;

  Kind kind() const { return kind_; }
  // Whether calls refer to it; also those that wait until it is known who makes them, and have no handler of its yet.
  bool in_use() { return calls_ > 0 || counts().under_way > 0; }

 private:
  friend class UserCall;
  // Who answers: the servable that metadata names, or else the only one that can; a variation, if that is split. What
  // the client has to be allowed is the name, not what stands behind it.
  Result<Goal> ChooseGoal(const Call& call);
  Result<std::string> ChooseServable(const Call& call);
  // And there the worker.
  Result<Router::Target> ChooseWorker(const Goal& goal, std::string_view model, const Call& call);
  // Among workers of one version, the least loaded first: the best for the model.
  static const Router::Target& Choose(const std::vector<Router::Target>& targets, std::string_view model);
  std::string Described() const;  // "service 'pkg.Service'"

  UserCalls& shared_;
  const std::string path_;
  const Kind kind_;
  size_t calls_ = 0;
  Answering answering_;
};

}  // namespace mindserve::gateway
