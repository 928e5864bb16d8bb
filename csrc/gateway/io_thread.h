// A thread that owns connections, a request arena and a lane to every worker. Nothing of it is shared on a call's way.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/unique_fd.h"
#include "gateway/auth.h"
#include "gateway/child_calls.h"
#include "gateway/direct_thread.h"
#include "gateway/health_service.h"
#include "gateway/http2_connection.h"
#include "gateway/mirrors.h"
#include "gateway/peer_count.h"
#include "gateway/router.h"
#include "gateway/served.h"
#include "gateway/thread_context.h"
#include "gateway/traffic.h"
#include "gateway/worker_calls.h"
#include "link/lane.h"
#include "net/event_loop.h"
#include "net/tls.h"

namespace mindserve::gateway {

// What the I/O threads of a gateway share. Thread-safe.
struct Shared {
  Admission admission;
  Admission mirrored;  // copies of calls, which count only here
  PeerCount peers;
  std::chrono::milliseconds most_suspense{};  // as it was when the threads began
  // A worker broke the link's rules: it is to be taken for dead.
  std::function<void(uint64_t worker, const Status& why)> worker_fault;
  // A worker that drains holds nothing of a thread's any more: told once by each.
  std::function<void(uint64_t worker)> worker_drained;
  ChildCalls children;
  TokenQueue tokens;
  // A call whose parent was given up: its thread is to give it up, too.
  std::function<void(const ChildCall& child)> child_given_up;
};

class PredictService;
class UserService;
struct UserCalls;

class IoThread final : private net::RoundHooks {
 public:
  // `shared` outlives the thread. `arena_bytes`: the most that requests may take here.
  static Result<std::unique_ptr<IoThread>> Create(Shared& shared, size_t arena_bytes, int number);
  // Closes everything at once, and ends.
  ~IoThread();

  // Any thread:
  net::EventLoop& loop() { return loop_; }
  bool current() const { return thread_.get_id() == std::this_thread::get_id(); }
  link::GatewayPort& port() { return *port_; }
  const std::shared_ptr<DirectDoor>& direct_door() const { return direct_.door(); }

  // On this thread only, by Post:
  void Serve(const Limits& limits);  // from now on connections come
  void AddConnection(UniqueFd socket, std::shared_ptr<const net::TlsContext> tls, bool internal);
  // Takes no more connections of the kind, clients' or internal ones, lets those that there are end for `grace`, then
  // ends them; `done` is called when there are none. With clients' the same for calls from inside the process.
  void Drain(bool internal, std::chrono::milliseconds grace, std::function<void()> done);

  // From now on clients are asked who they are.
  void RequireTokens();
  void OnVerdict(const std::string& text, uint64_t generation, const TokenCache::Verdict& verdict);
  void ForgetTokens();

  void DeclareServable(const std::string& name);
  void RemoveServable(const std::string& name);
  // Instead of what was served before. `served` is shared by all threads and the answers under way.
  void SetServices(std::shared_ptr<const Served> served);
  void SetTraffic(const std::vector<SplitSpec>& splits);
  void AddWorker(WorkerSpec spec, std::shared_ptr<VersionState> version, std::unique_ptr<link::Lane> lane);
  void DrainWorker(uint64_t id);
  void RemoveVersion(const std::string& servable, uint64_t version);
  void RemoveWorker(uint64_t id, const WorkerLoss& loss);
  // No-op for one that is over.
  void GiveUp(const ChildCall& child);

  const CallStats& stats() const { return context_.stats; }  // its `replies` on any thread
  size_t connections() const { return Connections(/*internal=*/false); }
  const std::vector<std::shared_ptr<WorkerEnd>>& workers() const { return workers_; }

 private:
  IoThread(Shared& shared, std::unique_ptr<link::GatewayPort> port, int number);

  void RoundEnd() override;
  bool PrepareSleep() override;
  void Awake() override;

  void MakeUserServices(const std::vector<ServiceSpec>& services);
  void AwaitBell();
  void SetTimer();
  void FlushConnections();
  size_t Connections(bool internal) const;
  void CheckDrained();
  void TearDown();
  std::shared_ptr<WorkerEnd> FindWorker(uint64_t id) const;

  Shared& shared_;
  net::EventLoop loop_;
  std::unique_ptr<link::GatewayPort> port_;
  RequestMemory memory_;
  ThreadContext context_;
  std::unique_ptr<TokenCache> tokens_;  // null: nobody is asked
  WorkerCalls calls_;
  Router router_;
  Traffic traffic_;
  Mirrors mirrors_;
  PredictService* predict_ = nullptr;  // of the context's services
  std::unique_ptr<UserCalls> user_calls_;
  // Of the context's services those of users, by their paths; and those that were replaced while they had calls.
  std::map<std::string, UserService*> users_;
  std::vector<std::unique_ptr<Service>> replaced_;
  Health health_;
  DirectThread direct_;
  std::shared_ptr<const Served> served_;  // null until it is first set; shared as SetServices says
  std::unique_ptr<net::Watch> bell_;
  std::unique_ptr<net::Timer> timer_;
  TimePoint timer_at_ = kNever;
  std::unique_ptr<net::Timer> grace_;
  std::function<void()> drained_;  // while connections end
  bool drains_internal_ = false;   // which
  bool takes_internal_ = false;    // connections of workers
  struct Connected {
    std::unique_ptr<Http2Connection> connection;
    std::optional<PeerCount::Place> place;  // of a client's
  };
  std::vector<Connected> connections_;
  std::vector<std::shared_ptr<WorkerEnd>> workers_;
  std::thread thread_;
};

}  // namespace mindserve::gateway
