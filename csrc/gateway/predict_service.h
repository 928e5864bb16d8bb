// MSService.Predict: read the route, pick the workers, join their answers.
#pragma once

#include <array>
#include <chrono>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "gateway/call.h"
#include "gateway/mirrors.h"
#include "gateway/router.h"
#include "gateway/thread_context.h"
#include "gateway/traffic.h"
#include "gateway/worker_calls.h"
#include "wire/predict.h"

namespace mindserve::gateway {

class PredictCall;

class PredictService final : public Service {
 public:
  // All outlive the service. A suspect waits for `most_suspense` for a worker that may execute it, all its waits
  // together.
  PredictService(ThreadContext& context, Admission& admission, Router& router, Traffic& traffic, Mirrors& mirrors,
                 WorkerCalls& calls, std::chrono::milliseconds most_suspense)
      : Service(context.stats.Of({.path = kPredictPath})),
        context_(context),
        admission_(admission),
        router_(router),
        traffic_(traffic),
        mirrors_(mirrors),
        calls_(calls),
        most_suspense_(most_suspense) {}

  std::unique_ptr<CallHandler> Start(Call& call) override { return StartAt(call, nullptr); }
  // For the variation that was chosen for it already; null: none was.
  std::unique_ptr<CallHandler> StartAt(Call& call, std::shared_ptr<Variation> variation);
  void OnRefused(Call& call) override;
  AlignedAt aligned_at() const override { return wire::FirstLargeData; }

  // The router knows another worker: what waits for one goes to it.
  void OnWorkerAdded();

 private:
  friend class PredictCall;
  ThreadContext& context_;
  Admission& admission_;
  Router& router_;
  Traffic& traffic_;
  Mirrors& mirrors_;
  WorkerCalls& calls_;
  const std::chrono::milliseconds most_suspense_;
  // For a worker that may execute suspects: by the standing of their clients, the oldest first.
  std::array<std::list<PredictCall*>, 3> waiting_;
  // Reused from call to call; nothing in them is kept longer than one step.
  wire::Route route_;
  std::vector<Router::Target> targets_;
};

}  // namespace mindserve::gateway
