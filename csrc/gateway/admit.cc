#include "gateway/admit.h"

#include <string>
#include <utility>

#include "gateway/grpc_text.h"

namespace mindserve::gateway {
namespace {

std::string Over(const char* limit, size_t value) {
  return " exceeds the limit " + std::to_string(value) + " (" + limit + ")";
}

std::string Within(const std::string& what, size_t limit) {
  return "with " + what + " enqueued bytes" + Over("max_enqueued_bytes", limit);
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

std::unique_ptr<Refused> AdmitInstances(Admission& all, size_t instances, TimePoint now, CallStats& stats,
                                        Admitted* admitted) {
  if (instances <= kFewInstances) return nullptr;
  const size_t bytes = instances * kInstanceBytes;
  admitted->instances = BytesTicket(all);
  if (admitted->instances.GrowTo(bytes)) return nullptr;
  admitted->Release();
  // What never finds room lacks nothing that others hold.
  const bool never = bytes > all.max_bytes();
  if (!never) all.LackBytes(now);
  return Refuse(Within("the " + std::to_string(instances) + " instances of this request, each of which counts as " +
                           std::to_string(kInstanceBytes) + " bytes besides its own,",
                       all.max_bytes()),
                never ? TryNever() : TryLater(), Refusal::kMaxEnqueuedBytes, stats);
}

std::unique_ptr<Refused> AdmitBytes(Admission& of_servable, std::string_view servable, size_t bytes, CallStats& stats,
                                    BytesTicket* ticket) {
  if (of_servable.max_bytes() == 0) return nullptr;
  *ticket = BytesTicket(of_servable);
  if (ticket->GrowTo(bytes)) return nullptr;
  // What is larger than the limit by itself never finds room.
  return Refuse(Within("this request of " + std::to_string(bytes) + " bytes", of_servable.max_bytes()) + Of(servable),
                bytes > of_servable.max_bytes() ? TryNever() : TryLater(), Refusal::kMaxEnqueuedBytes, stats);
}

namespace {

// Over all servables.
std::unique_ptr<Refused> AdmitToAll(Admission& all, const Asker& asker, TimePoint now, CallStats& stats,
                                    Admitted* admitted) {
  using Place = Admission::Place;
  using Kind = Admission::Kind;
  const auto refuse = [&](std::string text) {
    admitted->Release();
    return Refuse(std::move(text), TryLater(), Refusal::kMaxEnqueuedRequests, stats);
  };
  const auto limit = [&] { return std::to_string(all.max_requests()) + " (max_enqueued_requests)"; };
  // Others find a place: nobody has to make room.
  const auto over_share = [&](const char* what) {
    return refuse(std::string("this connection has its share of ") + what + ", of which few are left under the limit " +
                  limit());
  };
  if (asker.streams) {
    admitted->stream = ShareTicket(all, asker.client, Kind::kStream, now);
    if (admitted->stream.place() == Place::kOverShare) return over_share("streams");
    if (admitted->stream.place() == Place::kNone) {
      all.LackRequests(now);
      const bool some = all.max_streams() < all.max_requests();
      return refuse("streams count exceeds " +
                    (some ? std::to_string(all.max_streams()) + ", three quarters of " : "") + "the limit " + limit());
    }
  }
  admitted->ticket = Ticket::Take(all);
  if (!admitted->ticket) {
    all.LackPlace(asker.client, now);
    return refuse("enqueued requests count" + Over("max_enqueued_requests", all.max_requests()));
  }
  if (all.crowded()) [[unlikely]] {
    admitted->crowded = ShareTicket(all, asker.client, Kind::kCrowded, now);
    if (admitted->crowded.place() == Place::kOverShare) return over_share("requests");
  }
  return nullptr;
}

}  // namespace

std::unique_ptr<Refused> Admit(Admission& all, Admission& of_servable, std::string_view servable, size_t bytes,
                               const Asker& asker, TimePoint now, CallStats& stats, Admitted* admitted) {
  if (auto refused = AdmitToAll(all, asker, now, stats, admitted)) return refused;
  if (of_servable.max_requests() > 0 && !(admitted->servable_ticket = Ticket::Take(of_servable))) {
    return Refuse("enqueued requests count" + Over("max_enqueued_requests", of_servable.max_requests()) + Of(servable),
                  TryLater(), Refusal::kMaxEnqueuedRequests, stats);
  }
  return AdmitBytes(of_servable, servable, bytes, stats, &admitted->servable_bytes);
}

}  // namespace mindserve::gateway
