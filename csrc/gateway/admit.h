// Whether a request finds room under the limits on what is enqueued: over all, and of its servable.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "base/sharer.h"
#include "gateway/admission.h"
#include "gateway/call.h"
#include "gateway/call_stats.h"

namespace mindserve::gateway {

// What an admitted request counts as, besides the bytes of its messages over all; until this is gone.
struct Admitted {
  Ticket ticket;
  ShareTicket stream;          // empty where it is none
  ShareTicket crowded;         // empty where there is room enough
  BytesTicket instances;       // what a worker holds of them besides their bytes; empty where they are few
  Ticket servable_ticket;      // for the servable's own limits; empty where there are none
  BytesTicket servable_bytes;  // the same

  void Release() {
    ticket.Release();
    stream.Release();
    crowded.Release();
    instances = BytesTicket();
    servable_ticket.Release();
    servable_bytes = BytesTicket();
  }
};

// How a call ends that is refused.
struct Refused {
  Status status;
  Metadata trailing;  // when to try again
};

// Who asks.
struct Asker {
  uint64_t client = kNobody;
  bool streams = false;  // messages or answers are many
};

inline Asker AskerOf(const Call& call, bool streams) {
  return {.client = SharerOf(call.client(), call.inner().depth), .streams = streams};
}

// What a worker takes of its own memory for an instance while it waits, more or less, however small it is: each counts
// as so many bytes, where a request has more than a few.
inline constexpr size_t kInstanceBytes = 1024;
inline constexpr size_t kFewInstances = 64;

// Counts the instances of a request, besides its bytes, in `admitted`. Null: there is room for them.
std::unique_ptr<Refused> AdmitInstances(Admission& all, size_t instances, TimePoint now, CallStats& stats,
                                        Admitted* admitted);

// Counts a request with `bytes` of messages, which comes `now`. Null: it is admitted, and counted in `admitted`.
std::unique_ptr<Refused> Admit(Admission& all, Admission& of_servable, std::string_view servable, size_t bytes,
                               const Asker& asker, TimePoint now, CallStats& stats, Admitted* admitted);

// Counts another message of a stream for the servable, in `ticket`. Null: there is room for it.
std::unique_ptr<Refused> AdmitBytes(Admission& of_servable, std::string_view servable, size_t bytes, CallStats& stats,
                                    BytesTicket* ticket);

// Trailing metadata for clients that try again by themselves: that they may, after a while, or are not to.
Metadata TryLater();
Metadata TryNever();

}  // namespace mindserve::gateway
