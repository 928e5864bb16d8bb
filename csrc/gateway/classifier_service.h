// io.seldon.api.rpc.Classifier/Predict: a request for the method that a servable classifies by, on the same way as
// Predict's.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gateway/predict_service.h"
#include "gateway/router.h"

namespace mindserve::gateway {

// Also what a servable's method is called among its worker's.
inline constexpr const char* kClassifierPath = "/io.seldon.api.rpc.Classifier/Predict";

class ClassifierService final : public Service {
 public:
  // All outlive the service.
  ClassifierService(ThreadContext& context, Router& router, PredictService& predict)
      : Service(context.stats.Of({.path = kClassifierPath})), context_(context), router_(router), predict_(predict) {}

  std::unique_ptr<CallHandler> Start(Call& call) override;
  void OnRefused(Call& call) override { predict_.OnRefused(call); }

  // The servables that answer, sorted.
  const std::vector<std::string>& Answering();

 private:
  ThreadContext& context_;
  Router& router_;
  PredictService& predict_;
  // What the router said, at this revision of it.
  std::vector<std::string> answering_;
  uint64_t revision_ = 0;
};

}  // namespace mindserve::gateway
