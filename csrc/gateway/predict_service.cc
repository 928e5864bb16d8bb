#include "gateway/predict_service.h"

#include "gateway/predict_call.h"

namespace mindserve::gateway {

std::unique_ptr<CallHandler> PredictService::Start(Call& call) {
  return std::make_unique<PredictCall>(*this, call);
}

void PredictService::OnWorkerAdded() {
  // Each once: those that have to go on waiting stand at the end again. One's standing is not changed by this.
  for (auto& waiting : waiting_) {
    for (size_t i = waiting.size(); i > 0 && !waiting.empty(); --i) waiting.front()->TryAgain();
  }
}

}  // namespace mindserve::gateway
