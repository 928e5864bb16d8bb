// Whether the workers live: their sockets, whose end-of-file is their death, and their heartbeats, which tell of those
// that are stopped or hang. Belongs to the first I/O thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/unique_fd.h"
#include "link/stats_region.h"
#include "net/event_loop.h"

namespace mindserve::gateway {

class WorkerWatch {
 public:
  enum class Sign : uint8_t { kClosed, kSilent };
  // Told of a worker at most once; the worker is watched no more by then.
  using LossHandler = std::function<void(uint64_t worker, Sign sign, const std::string& why)>;

  WorkerWatch(net::EventLoop& loop, LossHandler on_loss);

  void Add(uint64_t worker, std::shared_ptr<UniqueFd> socket, std::shared_ptr<const link::StatsReader> stats,
           std::chrono::milliseconds heartbeat_timeout, TimePoint now);
  // False if it is not watched. Its socket is closed.
  bool Remove(uint64_t worker);
  bool Watches(uint64_t worker) const { return workers_.contains(worker); }

  // Looks at all of them. Called by a timer.
  void Check(TimePoint now);

 private:
  struct Watched {
    std::shared_ptr<UniqueFd> socket;  // shared with the task that brings it here
    std::unique_ptr<net::Watch> watch;
    std::shared_ptr<const link::StatsReader> stats;  // shared with whoever reads statistics
    std::chrono::milliseconds timeout;
    TimePoint seen;       // alive then
    TimePoint beat = {};  // what it last said
  };
  // So often at least, and four times in each timeout.
  static constexpr std::chrono::milliseconds kInterval{1000};

  void Lose(uint64_t worker, Sign sign, const std::string& why);
  void Schedule(TimePoint now);

  net::EventLoop& loop_;
  LossHandler on_loss_;
  std::map<uint64_t, Watched> workers_;
  std::unique_ptr<net::Timer> timer_;
  TimePoint due_ = kNever;  // the next check; kNever: there is none to look at
};

}  // namespace mindserve::gateway
