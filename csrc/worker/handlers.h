// The users' handlers of gRPC methods, and how calls come to the threads that run them: what the runtime thread, the
// handlers' threads and the event loop's thread share.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/unique_fd.h"

namespace mindserve::worker {

class ServiceCall;

struct HandlerSpec {
  std::string path = {};  // "/pkg.Service/Method"
  bool idempotent = false;
  bool client_streaming = false;
  bool server_streaming = false;
  bool on_loop = false;  // its calls go to the event loop's thread, not to handler threads
};

// Shared by the runtime and by every call, since a handler may hold one that outlives the runtime. Thread-safe.
//
// Handler threads. Calls wait in one line. A handler mostly holds the interpreter's lock while it works, and a second
// thread would only contend for that; so one thread runs as long as it keeps up. Another is woken when all that run are
// blocked in a call's reading or writing, or when the oldest call has waited for a millisecond. A woken thread that
// gets the lock at once may wake the next one; one that had to wait for it shows that threads are not what lacks.
class Handlers : public std::enable_shared_from_this<Handlers> {
 public:
  // `wake` is called, on any thread and under no lock that another thread waits for, when the runtime thread sleeps and
  // there is something for it. `time` outlives the runtime's session.
  Handlers(const TimeSource& time, std::function<void()> wake);
  ~Handlers();
  Handlers(const Handlers&) = delete;
  Handlers& operator=(const Handlers&) = delete;

  // Before the first call. Returns its number, from 0.
  int Add(HandlerSpec spec);
  const HandlerSpec& spec(int handler) const { return specs_.at(static_cast<size_t>(handler)); }
  size_t size() const { return specs_.size(); }
  const TimeSource& time() const { return time_; }

  // Handler threads. The next call in line, whose handler is then to be run: null if there is none now, or the thread
  // has yet to Await.
  std::shared_ptr<ServiceCall> TryTake();
  // Waits until TryTake is worth trying; false: after Stop, once the line is empty. `step_back`: others do the work,
  // wait even if there are calls in line.
  bool Await(bool step_back = false);
  // How long the thread waited for the interpreter's lock once Await had returned. False: there are enough, step back.
  bool Stay(Duration waited);
  size_t idle_threads() const;  // that wait in Await
  // To be said around what blocks a handler's thread for long. On other threads they do nothing.
  void BeginBlocked();
  void EndBlocked();

  // The event loop's thread.
  enum Event : uint8_t { kOpened = 1, kReadable = 2, kWritable = 4, kCancelled = 8 };
  struct LoopEvents {
    std::shared_ptr<ServiceCall> call;
    uint8_t events = 0;
  };
  // Readable while there are events. Not to be read or closed.
  int loop_fd() const { return loop_bell_.get(); }
  // Swaps what there is into `events`, which is cleared before; an entry for each call.
  void TakeLoopEvents(std::vector<LoopEvents>* events);

  // Has a handler thread look around, or the event loop's: a thread returns from Await, take events without there being
  // any. For what only they can do, like letting go of Python's objects.
  void Nudge(bool loop);

  // Tells the gateway that this worker holds a multiplexed model, or does no more.
  void SetModel(std::string model_id, bool loaded);

  // For ServiceCall and the runtime thread.
  void Push(std::shared_ptr<ServiceCall> call);      // to the end of the line
  void PushBack(std::shared_ptr<ServiceCall> call);  // the same by a handler thread
  void Notify(std::shared_ptr<ServiceCall> call, uint8_t events);
  void Post(std::shared_ptr<ServiceCall> call);  // has something for the runtime thread

  // The runtime thread. Swaps what was posted into `calls`, and the models into `models`; both are cleared before.
  using Models = std::vector<std::pair<std::string, bool>>;
  void TakePosted(std::vector<std::shared_ptr<ServiceCall>>* calls, Models* models);
  // Before it sleeps; false if something was posted. Then, in any case: Awake.
  bool PrepareSleep();
  void Awake();
  // Wakes handler threads if too few run. When it wants to be called again (kNever: no time).
  TimePoint Tend(TimePoint now);

  // Makes Await return false. Any thread.
  void Stop();
  // Lets go of calls that nobody has taken, all of which are over: each of them holds this.
  void Clear();

 private:
  struct Waiting {
    std::shared_ptr<ServiceCall> call;
    TimePoint since;
  };
  bool WakeOne(TimePoint now);
  void Flush();

  const TimeSource& time_;
  const std::function<void()> wake_;
  std::vector<HandlerSpec> specs_;

  mutable std::mutex line_mutex_;
  // Guarded by line_mutex_.
  std::condition_variable woken_;
  std::deque<Waiting> line_;
  size_t idle_ = 0;      // threads in Await that nobody has woken
  size_t running_ = 0;   // threads that run handlers or are about to, those blocked not counted
  size_t permits_ = 0;   // threads that were woken and are not up yet
  TimePoint next_wake_;  // no further thread is woken before, unless none runs
  bool stopped_ = false;

  std::mutex loop_mutex_;
  std::vector<LoopEvents> loop_events_;  // guarded by loop_mutex_
  UniqueFd loop_bell_;

  std::atomic<bool> has_posted_{false};  // changed under post_mutex_
  std::mutex post_mutex_;
  // Guarded by post_mutex_.
  std::vector<std::shared_ptr<ServiceCall>> posted_;
  Models models_;
  std::atomic<bool> asleep_{false};  // the runtime thread; changed under post_mutex_
};

}  // namespace mindserve::worker
