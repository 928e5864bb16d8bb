#include "gateway/admit.h"

#include <string>
#include <utility>

#include "gateway/grpc_text.h"

namespace mindserve::gateway {
namespace {

std::string Over(const char* limit, size_t value) {
  return " exceeds the limit " + std::to_string(value) + " (" + limit + ")";
}

std::string Of(std::string_view servable) {
  return " of servable '" + std::string(servable) + "'";
}

}  // namespace

Metadata TryLater() {
  return {{kRetryPushbackKey, kRetryPushbackMs}};
}

Metadata TryNever() {
  return {{kRetryPushbackKey, "-1"}};
}

std::optional<Refused> AdmitBytes(Admission& of_servable, std::string_view servable, size_t bytes, CallStats& stats,
                                  BytesTicket* ticket) {
  if (of_servable.max_bytes() == 0) return std::nullopt;
  *ticket = BytesTicket(of_servable);
  if (ticket->GrowTo(bytes)) return std::nullopt;
  stats.Refuse(Refusal::kMaxEnqueuedBytes);
  // What is larger than the limit by itself never finds room.
  return Refused{{Code::kResourceExhausted, "with this request of " + std::to_string(bytes) + " bytes enqueued bytes" +
                                                Over("max_enqueued_bytes", of_servable.max_bytes()) + Of(servable)},
                 bytes > of_servable.max_bytes() ? TryNever() : TryLater()};
}

std::optional<Refused> Admit(Admission& all, Admission& of_servable, std::string_view servable, size_t bytes,
                             CallStats& stats, Admitted* admitted) {
  admitted->ticket = Ticket::Take(all);
  if (!admitted->ticket) {
    stats.Refuse(Refusal::kMaxEnqueuedRequests);
    return Refused{
        {Code::kResourceExhausted, "enqueued requests count" + Over("max_enqueued_requests", all.max_requests())},
        TryLater()};
  }
  if (of_servable.max_requests() > 0 && !(admitted->servable_ticket = Ticket::Take(of_servable))) {
    stats.Refuse(Refusal::kMaxEnqueuedRequests);
    return Refused{
        {Code::kResourceExhausted,
         "enqueued requests count" + Over("max_enqueued_requests", of_servable.max_requests()) + Of(servable)},
        TryLater()};
  }
  return AdmitBytes(of_servable, servable, bytes, stats, &admitted->servable_bytes);
}

}  // namespace mindserve::gateway
