#include "gateway/predict_service.h"

#include <utility>

#include "gateway/predict_call.h"
#include "gateway/request_id.h"

namespace mindserve::gateway {

std::unique_ptr<CallHandler> PredictService::StartAt(Call& call, std::shared_ptr<Variation> variation) {
  RequestId id;
  Status status = Identify(call, context_.keys, &id);
  auto handler = std::make_unique<PredictCall>(*this, call, std::move(id), std::move(variation), counts());
  if (!status.ok()) call.Finish(std::move(status));
  return handler;
}

void PredictService::OnRefused(Call& call) {
  RequestId id;
  (void)Identify(call, context_.keys, &id);
}

void PredictService::OnWorkerAdded() {
  // Each once: those that have to go on waiting stand at the end again. One's standing is not changed by this.
  for (auto& waiting : waiting_) {
    for (size_t i = waiting.size(); i > 0 && !waiting.empty(); --i) waiting.front()->TryAgain();
  }
}

}  // namespace mindserve::gateway
