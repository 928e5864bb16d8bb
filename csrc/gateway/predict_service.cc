#include "gateway/predict_service.h"

#include "gateway/predict_call.h"

namespace mindserve::gateway {

std::unique_ptr<CallHandler> PredictService::Start(Call& call) {
  return std::make_unique<PredictCall>(*this, call);
}

void PredictService::OnWorkerAdded() {
  // Each once: those that have to go on waiting stand at the end again.
  for (size_t i = waiting_.size(); i > 0 && !waiting_.empty(); --i) waiting_.front()->TryAgain();
}

}  // namespace mindserve::gateway
