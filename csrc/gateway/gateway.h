// The gateway: listening sockets, I/O threads, and the services on them.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/unique_fd.h"
#include "gateway/auth.h"
#include "gateway/call_stats.h"
#include "gateway/direct_calls.h"
#include "gateway/limits.h"
#include "link/stats_region.h"
#include "net/listener.h"
#include "net/tls.h"
#include "wire/health.h"
#include "wire/predict.h"

namespace mindserve::gateway {

struct GatewayOptions {
  int io_threads = 0;  // 0: one for each four cores, at least one
  // A serialized google.protobuf.FileDescriptorSet of the built-in services, for reflection. Empty: they are named, but
  // not described.
  std::string descriptors = {};
  // A request that may kill workers waits so long for one that may execute it: see quarantine.h.
  std::chrono::milliseconds most_suspense{10'000};
};

struct ListenerSpec {
  net::Address address;
  net::ListenOptions options;
  std::shared_ptr<const net::TlsContext> tls;  // null: plaintext
  // Sockets that listen there already, of another process: adopted instead of bound.
  std::optional<net::SharedSockets> inherited;
  // For this server's own workers, by which handlers call other servables: whoever connects is trusted. Its connections
  // count against no limit on connections, and while clients' connections drain they go on.
  bool internal = false;
};

// What a worker serves.
struct WorkerSpec {
  struct Method {
    std::string name;
    bool idempotent = true;  // to execute a request again does no harm
  };
  uint64_t id = 0;  // the master's number for it; in log lines and errors
  std::string servable;
  uint64_t version = 1;
  std::vector<Method> methods;                          // in the order of their numbers on the link
  std::chrono::milliseconds heartbeat_timeout{10'000};  // without a sign of life it is lost
};

// A service of users' protos.
struct ServiceSpec {
  struct Method {
    std::string name;
    bool client_streaming = false;
    bool server_streaming = false;
  };
  std::string name;  // in full: "pkg.Service"
  std::vector<Method> methods;
};

// A name that stands for several servables or versions, which answer its calls by turns.
struct SplitSpec {
  struct Variation {
    std::string name;  // letters, digits, '.', '_' and '-'
    std::string servable;
    uint64_t version = 0;  // 0: the newest
    double weight = 1;     // in proportion to the others'; 0: it gets nothing
  };
  std::string name;
  std::vector<Variation> variations;
  // Gets copies of calls, whose answers are dropped.
  struct Mirror {
    std::string servable;
    uint64_t version = 0;
    double fraction = 1;  // of the calls, 0 to 1
  };
  std::vector<Mirror> mirrors = {};
  std::string sticky = {};  // a key of metadata: calls with the same value go to the same variation; empty: none
};

// Limits of a servable, in all of its versions, besides those over all. 0: none.
struct ServableLimits {
  size_t max_enqueued_requests = 0;
  size_t max_enqueued_bytes = 0;
};

// Thread-safe: the master's Python threads call it. No method but GetStats is called from an I/O thread (by a log
// sink). All but SetMaxEnqueuedRequests and replies wait until the I/O threads have taken the change in, so that it
// holds when they return; a caller must not hold a lock that the log sink takes (Python's).
class Gateway {
 public:
  static Result<std::unique_ptr<Gateway>> Create(const GatewayOptions& options);
  ~Gateway();  // stops at once

  // What Predict knows besides live workers: a servable that was started answers UNAVAILABLE while it has no worker,
  // one that never was answers with the text "servable is not available". Health follows the same. Declared again, it
  // gets other limits.
  void DeclareServable(const std::string& name, const ServableLimits& limits = {});
  void RemoveServable(const std::string& name);

  // The users' services, instead of those that were set before. `descriptors`: a serialized FileDescriptorSet of them,
  // for reflection. INVALID_ARGUMENT, and nothing is changed, if it doesn't parse, or a service has no name that
  // protobuf allows, is given twice, or is a built-in one.
  Status SetServices(std::vector<ServiceSpec> services, std::string_view descriptors);

  // The names that are split, instead of those before. A name may be a servable's: calls that ask for no version of it
  // are split, then. INVALID_ARGUMENT, and nothing is changed, as CheckSplits says (traffic.h). That a servable is not
  // known is no error: its share of the calls is answered so.
  Status SetTraffic(const std::vector<SplitSpec>& splits);

  // Binds, listens, and begins to answer, all or none. Returns the addresses bound. FAILED_PRECONDITION if already
  // listening; but while only internal ones listen, or none at all, for calls from inside the process, it may be called
  // again with others, whose limits hold then. INVALID_ARGUMENT if an internal listener is not behind all others.
  // Without `accept`, connections wait until Accept.
  Result<std::vector<net::Address>> Listen(std::vector<ListenerSpec> listeners, const Limits& limits,
                                           bool accept = true);
  void Accept();

  // For a handover to another process, by their places in what was given to Listen: descriptors of the listeners'
  // sockets, but of no internal ones; and leaving the files of their Unix sockets to that process.
  Result<std::vector<net::SharedSockets>> ShareListeners();
  void DisownListeners(const std::vector<size_t>& which);

  // From now on the listener of this place in Listen's `listeners` speaks TLS by `tls`, not null, to the connections
  // that it accepts; those that it has accepted go on as they are. FAILED_PRECONDITION if not listening;
  // INVALID_ARGUMENT if there is no such listener, or it is plaintext.
  Status SetTls(size_t listener, std::shared_ptr<const net::TlsContext> tls);

  // Max enqueued requests may be changed while listening; Listen sets it from its limits.
  void SetMaxEnqueuedRequests(size_t n);

  // The worker at the other end of `socket` is ready: shakes hands (blocking, up to `timeout`), then routes to it until
  // the socket's end-of-file, DetachWorker, a fault on the link, or its heartbeat_timeout without a sign of life.
  Status AttachWorker(UniqueFd socket, WorkerSpec spec, std::chrono::milliseconds timeout);
  // No new requests for this worker; what it holds goes on. Once it holds nothing it is detached, upon which it ends.
  // No-op for one that is gone.
  void DrainWorker(uint64_t id);
  // The version is not served any more: a request for it is answered like one for a version that never was, instead of
  // UNAVAILABLE as long as it has no worker. What its workers hold goes on. No-op for one that is not known.
  void RemoveVersion(const std::string& servable, uint64_t version);
  // The worker is to be forgotten, or has died (`dead`: its process is over): what it holds is sent to another worker
  // of its version, if there is one and limits allow another attempt, or is answered UNAVAILABLE.
  void DetachWorker(uint64_t id, bool dead = false);

  // Workers that were lost though their processes may go on: to be killed and replaced. Readable when there are any.
  struct LostWorker {
    uint64_t id = 0;
    std::string why;
  };
  int lost_workers_fd() const;
  // Each once; none: the descriptor is not readable any more.
  std::vector<LostWorker> TakeLostWorkers();

  // From now on, for good, clients are asked who they are, those of calls from inside the process too: all calls but
  // health checks, and those of our own workers. Before Listen.
  void RequireTokens();
  // Waits for tokens and certificates that are not known; takes at most so many. None: CloseTokens was called.
  std::vector<TokenQueue::Question> TakeTokens(size_t most);
  void AnswerToken(const TokenQueue::Question& question, TokenCache::Verdict verdict);
  // The keys are others now: what was known of tokens holds no more when it returns.
  void ForgetTokens();
  // Nobody looks at tokens any more.
  void CloseTokens();

  // Stops listening, sends GOAWAY, lets what is in flight finish until `grace` is over, closes: first of clients, then
  // of internal listeners. Workers stay attached. May be followed by Listen.
  void StopListening(std::chrono::milliseconds grace);

  // For calls from inside the process, which are answered while it listens, and count as clients' when it stops. May
  // outlive the gateway. RESOURCE_EXHAUSTED: no descriptor is left.
  Result<std::unique_ptr<DirectCalls>> NewDirectCalls();

  // All that is counted, over all I/O threads.
  struct MethodStats {
    MethodKey key;
    std::array<uint64_t, kCodeCount> ended{};  // these as in MethodCounts
    uint64_t with_errors = 0;
    std::array<uint64_t, wire::kErrorCodes> errors{};
    uint64_t instances = 0;
    uint64_t bytes_in = 0;
    uint64_t bytes_out = 0;
    HistogramSnapshot latency_ns;
  };
  struct WorkerStats {
    uint64_t id = 0;
    uint64_t load = 0;      // instances that it holds
    uint64_t requests = 0;  // sent to it, or parts of such
    std::vector<link::StageSnapshot> stages;
  };
  struct Stats {
    uint64_t requests = 0;        // gRPC calls begun, of every service
    uint64_t replies = 0;         // that ended OK; here and below copies of calls (mirrors.h) count only in `methods`
    uint64_t errors = 0;          // that ended otherwise, or were cancelled
    uint64_t in_flight = 0;       // Predict requests held now, as max_enqueued_requests counts them
    uint64_t enqueued_bytes = 0;  // of them, and of what else counts, as max_enqueued_bytes counts them
    uint64_t connections = 0;     // of clients, open now
    uint64_t accepted = 0;        // connections of clients since the start
    std::array<uint64_t, kRefusalNames.size()> refused{};
    std::vector<MethodStats> methods;
    std::vector<WorkerStats> workers;  // that are attached
  };
  Stats GetStats() const;
  // Calls that ended OK. Waits for nobody.
  uint64_t replies() const;

 private:
  struct State;
  explicit Gateway(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace mindserve::gateway
