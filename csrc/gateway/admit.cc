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

std::unique_ptr<Refused> Refuse(std::string text, Metadata trailing, Refusal by, CallStats& stats) {
  stats.Refuse(by);
  return std::make_unique<Refused>(Refused{{Code::kResourceExhausted, std::move(text)}, std::move(trailing)});
}

}  // namespace

Metadata TryLater() {
  return {{kRetryPushbackKey, kRetryPushbackMs}};
}

Metadata TryNever() {
  return {{kRetryPushbackKey, "-1"}};
}

std::unique_ptr<Refused> AdmitBytes(Admission& of_servable, std::string_view servable, size_t bytes, CallStats& stats,
                                    BytesTicket* ticket) {
  if (of_servable.max_bytes() == 0) return nullptr;
  *ticket = BytesTicket(of_servable);
  if (ticket->GrowTo(bytes)) return nullptr;
  // What is larger than the limit by itself never finds room.
  return Refuse("with this request of " + std::to_string(bytes) + " bytes enqueued bytes" +
                    Over("max_enqueued_bytes", of_servable.max_bytes()) + Of(servable),
                bytes > of_servable.max_bytes() ? TryNever() : TryLater(), Refusal::kMaxEnqueuedBytes, stats);
}

std::unique_ptr<Refused> Admit(Admission& all, Admission& of_servable, std::string_view servable, size_t bytes,
                               bool stream, TimePoint now, CallStats& stats, Admitted* admitted) {
  admitted->ticket = Ticket::Take(all, stream, now);
  if (!admitted->ticket) {
    all.LackRequests(now);
    return Refuse("enqueued requests count" + Over("max_enqueued_requests", all.max_requests()), TryLater(),
                  Refusal::kMaxEnqueuedRequests, stats);
  }
  if (of_servable.max_requests() > 0 && !(admitted->servable_ticket = Ticket::Take(of_servable, stream, now))) {
    return Refuse("enqueued requests count" + Over("max_enqueued_requests", of_servable.max_requests()) + Of(servable),
                  TryLater(), Refusal::kMaxEnqueuedRequests, stats);
  }
  return AdmitBytes(of_servable, servable, bytes, stats, &admitted->servable_bytes);
}

}  // namespace mindserve::gateway
