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

namespace {

std::unique_ptr<Refused> AdmitStream(Admission& all, uint64_t client, TimePoint now, CallStats& stats,
                                     StreamTicket* ticket) {
  *ticket = StreamTicket(all, client);
  const std::string limit = std::to_string(all.max_requests()) + " (max_enqueued_requests)";
  switch (ticket->place()) {
    case Admission::StreamPlace::kGiven:
      return nullptr;
    case Admission::StreamPlace::kNone:
      all.LackRequests(now);
      return Refuse(
          "streams count exceeds " + std::to_string(all.max_streams()) + ", three quarters of the limit " + limit,
          TryLater(), Refusal::kMaxEnqueuedRequests, stats);
    case Admission::StreamPlace::kOverShare:
      // Others find a place: nobody has to make room.
      return Refuse("this connection has more streams than are left under the limit " + limit, TryLater(),
                    Refusal::kMaxEnqueuedRequests, stats);
  }
  return nullptr;
}

}  // namespace

std::unique_ptr<Refused> Admit(Admission& all, Admission& of_servable, std::string_view servable, size_t bytes,
                               std::optional<uint64_t> streams, TimePoint now, CallStats& stats, Admitted* admitted) {
  if (streams) {
    if (auto refused = AdmitStream(all, *streams, now, stats, &admitted->stream)) return refused;
  }
  admitted->ticket = Ticket::Take(all);
  if (!admitted->ticket) {
    all.LackRequests(now);
    return Refuse("enqueued requests count" + Over("max_enqueued_requests", all.max_requests()), TryLater(),
                  Refusal::kMaxEnqueuedRequests, stats);
  }
  if (of_servable.max_requests() > 0 && !(admitted->servable_ticket = Ticket::Take(of_servable))) {
    return Refuse("enqueued requests count" + Over("max_enqueued_requests", of_servable.max_requests()) + Of(servable),
                  TryLater(), Refusal::kMaxEnqueuedRequests, stats);
  }
  return AdmitBytes(of_servable, servable, bytes, stats, &admitted->servable_bytes);
}

}  // namespace mindserve::gateway
