// The worker runtime: takes requests from the link, walks their instances through the engine, writes the answers.
//
// One thread, the one that calls Serve, does all of it; models that are slow and Python functions have threads of their
// own (pipeline/engine.h).
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/stage_stats.h"
#include "base/status.h"
#include "base/unique_fd.h"
#include "link/stats_region.h"
#include "link/worker_link.h"
#include "net/event_loop.h"
#include "pipeline/engine.h"
#include "worker/classifier.h"
#include "worker/handlers.h"

namespace mindserve::worker {

// A stage that has gone beyond its timeout.
struct HungStage {
  size_t number = 0;   // among the engine's
  std::string report;  // for the log: the stage, its timeout, and the requests that it executes
};

struct RuntimeOptions {
  // Address space for answers, for each lane; pages cost memory once touched. A protobuf message ends at 2 GiB.
  size_t reply_arena_bytes = size_t{2} << 30;
  // A call that can't be done before its deadline, as things stand, is refused when it comes.
  bool refuse_late = false;
  // Called on the runtime thread, once for a stage, after the master's end of the statistics says which hangs. A worker
  // ends its process here.
  std::function<void(const HungStage&)> on_hung = {};
};

class Runtime {
 public:
  // `time` outlives the runtime.
  Runtime(const TimeSource& time, RuntimeOptions options);
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  // Models, functions and methods are added here before Serve; method i of the engine is method i of the link.
  pipeline::Engine& engine();
  // The handlers of users' services; handler i is method engine().methods() + i of the link. Their threads go on, until
  // Await says false, while Serve ends: what they wait for is cancelled then.
  Handlers& handlers();

  // Which method of the engine answers the Classifier, and how. Before Serve; without it none does.
  void SetClassifier(Classifier classifier) { classifier_ = std::move(classifier); }

  // Shakes hands over `socket` and serves. OK after Stop; UNAVAILABLE when the gateway is gone; what broke otherwise.
  Status Serve(UniqueFd socket, std::chrono::milliseconds handshake_timeout);
  // Makes Serve return, and stops the engine and the handlers. Any thread, any number of times.
  void Stop();

  // Bytes of requests that were answered while somebody still looks at them. Any thread.
  size_t retained_bytes() const;

 private:
  class Session;
  const TimeSource& time_;
  const RuntimeOptions options_;
  // Stages that have a timeout.
  struct Watched {
    size_t number;
    pipeline::Engine::StageName stage;
    bool hangs = false;
  };
  std::vector<Watched> watched_;
  std::shared_ptr<net::EventLoop> loop_;  // shared with the engine's and the releases' wake functions
  // Where takers count and mark what they execute: they go after the engine, which waits for its takers.
  std::optional<link::StatsWriter> stats_;
  std::vector<StageStats*> handler_stats_;  // in it, by handler
  std::unique_ptr<link::WorkerLink> link_;
  std::unique_ptr<pipeline::Engine> engine_;
  std::shared_ptr<class Releases> releases_;  // shared with every payload
  std::shared_ptr<Handlers> handlers_;        // shared with every call
  std::optional<Classifier> classifier_;
  std::atomic<bool> serving_{false};
};

}  // namespace mindserve::worker
