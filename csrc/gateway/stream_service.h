// StreamService.PredictStream: Predict of one instance, whose results come one by one.
#pragma once

#include <memory>
#include <vector>

#include "gateway/call.h"
#include "gateway/predict_service.h"
#include "gateway/router.h"
#include "gateway/user_service.h"
#include "wire/predict.h"

namespace mindserve::gateway {

// A method that streams is answered like one of a user's service, by the worker's handler for it. Everything else, the
// errors of Predict included, is Predict's.
class StreamService final : public Service {
 public:
  // Both outlive the service.
  StreamService(UserCalls& shared, PredictService& predict)
      : Service(shared.context.stats.Of({.path = kPredictStreamPath})),
        shared_(shared),
        predict_(predict),
        streams_(shared, kPredictStreamPath, {.server_streaming = true}) {}

  bool server_streaming() const override { return true; }
  bool counts_as_request() const override { return true; }
  std::unique_ptr<CallHandler> Start(Call& call) override;
  void OnRefused(Call& call) override { streams_.OnRefused(call); }
  AlignedAt aligned_at() const override { return predict_.aligned_at(); }

 private:
  friend class StreamCall;
  UserCalls& shared_;
  PredictService& predict_;
  UserService streams_;
  // Reused from call to call.
  wire::Route route_;
  std::vector<Router::Target> targets_;
};

}  // namespace mindserve::gateway
