// io.seldon.api.rpc.Classifier/Predict: a request for the method that a servable classifies by, on the same way as
// Predict's.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "gateway/answering.h"
#include "gateway/predict_service.h"
#include "gateway/router.h"

namespace mindserve::gateway {

// Also what a servable's method is called among its worker's.
inline constexpr const char* kClassifierPath = "/io.seldon.api.rpc.Classifier/Predict";

class ClassifierService final : public Service {
 public:
  // All outlive the service.
  ClassifierService(ThreadContext& context, const Router& router, const Traffic& traffic, PredictService& predict)
      : Service(context.stats.Of({.path = kClassifierPath})),
        context_(context),
        predict_(predict),
        answering_(ServiceOf(kClassifierPath), router, traffic) {}

  std::unique_ptr<CallHandler> Start(Call& call) override;
  void OnRefused(Call& call) override { predict_.OnRefused(call); }

  // The servables that answer.
  Answering& answering() { return answering_; }

 private:
  ThreadContext& context_;
  PredictService& predict_;
  Answering answering_;
};

}  // namespace mindserve::gateway
