// What came of calls. Belongs to an I/O thread, like the calls.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "base/counter.h"
#include "base/histogram.h"
#include "base/status.h"
#include "wire/predict.h"

namespace mindserve::gateway {

// What refuses work or ends it, and the names that limits have everywhere (limits.h, docs/limits.md).
enum class Refusal : uint8_t {
  kMaxMsgMbSize,
  kMaxInstancesPerRequest,
  kMaxEnqueuedRequests,
  kMaxEnqueuedBytes,
  kMaxConnections,
  kMaxConcurrentStreams,
  kMaxMetadataBytes,
  kMaxResetsPerSecond,
  kMaxControlFramesPerSecond,
  kHeaderTimeout,
  kBodyIdleTimeout,
  kMinBytesPerSecond,
  kIdleConnectionTimeout,
  kKeepaliveTimeout,
  kMaxAttempts,
  kMaxMirroredRequests,
  kMaxMirroredBytes,
  kQuarantine,  // no limit: quarantine.h
  kRate,        // these of a client: auth.h
  kMaxInFlight,
  kTokenQueue,
};
inline constexpr std::array<std::string_view, 21> kRefusalNames = {
    "max_msg_mb_size",
    "max_instances_per_request",
    "max_enqueued_requests",
    "max_enqueued_bytes",
    "max_connections",
    "max_concurrent_streams",
    "max_metadata_bytes",
    "max_resets_per_second",
    "max_control_frames_per_second",
    "header_timeout",
    "body_idle_timeout",
    "min_bytes_per_second",
    "idle_connection_timeout",
    "keepalive_timeout",
    "max_attempts",
    "max_mirrored_requests",
    "max_mirrored_bytes",
    "quarantine",
    "rate",
    "max_in_flight",
    "token_queue",
};

// Calls of one method that are over.
struct MethodCounts {
  std::array<uint64_t, kCodeCount> ended{};  // by gRPC status code; a client that cancels counts as CANCELLED
  uint64_t with_errors = 0;  // of those that ended OK: answered with an error for an instance, or for all
  std::array<uint64_t, wire::kErrorCodes> errors{};  // in those, by wire::ErrorCode; those of code 0 are none
  uint64_t instances = 0;
  uint64_t bytes_in = 0;  // messages, without framing
  uint64_t bytes_out = 0;
  Histogram latency_ns;  // from the headers to the answer; both as of the round in which they were handled
  size_t under_way = 0;  // calls that will be counted here

  void Add(const MethodCounts& other);
};

// A method as it is told apart from others. Empty where nothing was found to serve it.
struct MethodKey {
  std::string path = {};       // of the gRPC method
  std::string servable = {};   // that answers; for Predict and users' services
  uint64_t version = 0;        // with a servable, 0: those that were served long ago
  std::string method = {};     // of the servable
  std::string split = {};      // the name that the client asked for, where it stands for several servables, and
  std::string variation = {};  // which of them this is (traffic.h), or
  bool mirrored = false;       // that it is one of those that get copies
  auto operator<=>(const MethodKey&) const = default;
};

struct CallStats {
  // Of so many versions that are served no more the counts are kept apart: of what is reloaded for years there are any
  // number of them.
  static constexpr size_t kMostRemoved = 64;

  MethodCounts& Of(const MethodKey& key) {
    auto& counts = methods[key];
    if (counts == nullptr) counts = std::make_unique<MethodCounts>();
    return *counts;
  }
  // The version is served no more, or is again. The counts of those that left first become the servable's of version 0,
  // once no call is under way with them.
  void OnRemoved(const std::string& servable, uint64_t version);
  void OnServed(const std::string& servable, uint64_t version) { std::erase(removed, std::pair(servable, version)); }
  void Refuse(Refusal by) { ++refused[static_cast<size_t>(by)]; }

  // Kept while workers come and go: what they are counted for comes back.
  std::map<MethodKey, std::unique_ptr<MethodCounts>> methods;
  std::deque<std::pair<std::string, uint64_t>> removed;  // versions of servables, what left first first
  std::array<uint64_t, kRefusalNames.size()> refused{};
  uint64_t freed = 0;     // how often counts of `methods` were: who keeps places among them has to look again
  uint64_t begun = 0;     // calls
  Counter replies;        // calls that ended OK
  uint64_t accepted = 0;  // connections
};

}  // namespace mindserve::gateway
