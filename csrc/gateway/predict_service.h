// MSService.Predict: read the route, pick the workers, join their answers.
#pragma once

#include <memory>
#include <vector>

#include "gateway/call.h"
#include "gateway/limits.h"
#include "gateway/router.h"
#include "gateway/worker_calls.h"
#include "wire/predict.h"

namespace mindserve::gateway {

class PredictService final : public Service {
 public:
  // All outlive the service; `limits` may change between calls.
  PredictService(CallStats& stats, const Limits& limits, Admission& admission, Router& router, WorkerCalls& calls)
      : Service(stats.Of({.path = kPredictPath})),
        stats_(stats),
        limits_(limits),
        admission_(admission),
        router_(router),
        calls_(calls) {}

  std::unique_ptr<CallHandler> Start(Call& call) override;
  AlignedAt aligned_at() const override { return wire::FirstLargeData; }

 private:
  friend class PredictCall;
  CallStats& stats_;
  const Limits& limits_;
  Admission& admission_;
  Router& router_;
  WorkerCalls& calls_;
  // Reused from call to call; nothing in them is kept longer than one step.
  wire::Route route_;
  std::vector<Router::Target> targets_;
};

}  // namespace mindserve::gateway
