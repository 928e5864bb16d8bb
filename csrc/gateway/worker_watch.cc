#include "gateway/worker_watch.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace mindserve::gateway {

WorkerWatch::WorkerWatch(net::EventLoop& loop, LossHandler on_loss)
    : loop_(loop), on_loss_(std::move(on_loss)), timer_(loop.NewTimer()) {}

void WorkerWatch::Add(uint64_t worker, std::shared_ptr<UniqueFd> socket, std::shared_ptr<const link::StatsReader> stats,
                      std::chrono::milliseconds heartbeat_timeout, TimePoint now) {
  Watched& watched = workers_[worker];
  watched.socket = std::move(socket);
  watched.stats = std::move(stats);
  watched.timeout = heartbeat_timeout;
  watched.seen = now;
  watched.watch = loop_.NewWatch(watched.socket->get());
  // A worker says nothing on its socket after the handshake: whatever comes is its end.
  watched.watch->AwaitReadable([this, worker] { Lose(worker, Sign::kClosed, "its process ended"); });
  Schedule(now);
}

// By value: what calls it goes with the watch.
void WorkerWatch::Lose(uint64_t worker, Sign sign, const std::string& why) {
  workers_.erase(worker);
  on_loss_(worker, sign, why);
}

bool WorkerWatch::Remove(uint64_t worker) {
  return workers_.erase(worker) > 0;
}

void WorkerWatch::Schedule(TimePoint now) {
  auto interval = kInterval;
  for (const auto& [number, watched] : workers_) interval = std::min(interval, watched.timeout / 4);
  if (due_ <= now + interval) return;
  due_ = now + interval;
  timer_->Start(due_, [this] { Check(Clock::now()); });
}

void WorkerWatch::Check(TimePoint now) {
  // This process may have been stopped itself, by a debugger or the like, and its workers with it, or they waited for
  // it: that it comes late says nothing of them.
  const bool late = now - kInterval > due_;
  due_ = kNever;
  std::vector<std::pair<uint64_t, std::chrono::milliseconds>> silent;
  for (auto& [number, watched] : workers_) {
    // Its word alone is not taken for it, since it may say any time: that it says another is its sign of life.
    const TimePoint beat = watched.stats->LastBeat().value_or(TimePoint());
    if (std::exchange(watched.beat, beat) != beat) watched.seen = std::clamp(beat, watched.seen, now);
    if (late) watched.seen = now;
    if (now - watched.seen > watched.timeout) silent.emplace_back(number, watched.timeout);
  }
  for (const auto& [number, timeout] : silent) {
    std::string seconds = std::to_string(static_cast<double>(timeout.count()) / 1000);
    seconds.erase(seconds.find_last_not_of('0') + 1);
    if (seconds.back() == '.') seconds.pop_back();
    Lose(number, Sign::kSilent, "it did not come round for its heartbeat_timeout of " + seconds + " s");
  }
  if (!workers_.empty()) Schedule(now);
}

}  // namespace mindserve::gateway
