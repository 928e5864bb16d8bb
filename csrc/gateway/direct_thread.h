// An I/O thread's calls from inside the process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/status.h"
#include "gateway/direct_call.h"
#include "gateway/health_service.h"
#include "gateway/thread_context.h"
#include "net/event_loop.h"

namespace mindserve::gateway {

class DirectThread;

// How a call ends that finds nobody to answer it.
inline Status ServerGone() {
  return {Code::kUnavailable, "the server is shutting down"};
}

// The way to an I/O thread from others, as long as it lives. Shared by the thread and every DirectCalls. Thread-safe.
class DirectDoor {
 public:
  DirectDoor(net::EventLoop& loop, DirectThread& thread) : loop_(&loop), thread_(thread) {}
  // The task runs on the thread. False: that one has ended, and nothing of it is used any more.
  bool Post(std::function<void(DirectThread&)> task);
  // On the thread: it ends.
  void Close();

 private:
  std::mutex mutex_;
  net::EventLoop* loop_;  // guarded by mutex_; null: closed
  DirectThread& thread_;
};

// Belongs to the I/O thread.
class DirectThread {
 public:
  // Of so many clients it is remembered how they stand; of more, those that called last.
  static constexpr size_t kMostClients = 4096;

  DirectThread(ThreadContext& context, const Health& health)
      : context_(context), health_(health), door_(std::make_shared<DirectDoor>(context.loop, *this)) {}

  const std::shared_ptr<DirectDoor>& door() const { return door_; }
  size_t going_on() const { return calls_.size(); }
  void Begin(const std::shared_ptr<DirectCall>& call);
  // Ends the calls that go on.
  void End(const Status& status);
  // The same, and takes no others. What was lent may still be given back.
  void Stop();
  // Destroys those that have ended. False: there were none. For the end of a round.
  bool Sweep();

  // For calls.
  ThreadContext& context() { return context_; }
  bool serving() const { return health_.serving(); }
  std::shared_ptr<DirectClient> ClientOf(uint64_t client);
  void Finished(DirectCall& call);

 private:
  ThreadContext& context_;
  const Health& health_;
  const std::shared_ptr<DirectDoor> door_;  // shared as it says itself
  bool stopped_ = false;
  std::vector<std::shared_ptr<DirectCall>> calls_;  // that go on; shared with tasks that give one up
  std::vector<std::shared_ptr<DirectCall>> ended_;  // the same, since the last Sweep
  using Clients = std::list<std::pair<uint64_t, std::shared_ptr<DirectClient>>>;
  Clients clients_;  // who called last first
  std::unordered_map<uint64_t, Clients::iterator> client_places_;
};

}  // namespace mindserve::gateway
