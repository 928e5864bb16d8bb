// The users' handlers of gRPC methods, and how calls come to the threads that run them: what the runtime thread, the
// handlers' threads and the event loop's thread share.
#pragma once

#include <array>
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
#include "wire/call_head.h"
#include "worker/call_line.h"

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
// Handler threads. Calls wait in one line, in which clients take turns (CallLine). A handler mostly holds the
// interpreter's lock while it works, and a second thread would only contend for that; so one thread runs as long as it
// keeps up. Another is woken when all that run are blocked in a call's reading or writing, or when the oldest call has
// waited for a millisecond. A woken thread that gets the lock at once may wake the next one; one that had to wait for
// it shows that threads are not what lacks.
//
// Extra threads. A handler that calls another servable holds its thread until that has answered, for which one of this
// worker's threads may be needed again. So when all ordinary threads are held, an inner call, one that another servable
// makes, may go to an extra thread, if
//   1. fewer extra threads are held than threads, of both kinds, wait for servables that their handlers have called;
//   2. fewer extra threads are held by calls of its depth than there are ordinary ones.
// By 1 no more handlers work at a time than there are ordinary threads, but for those whose calls come back meanwhile.
// By 2 there are at most kMostDepth times as many extra threads as ordinary ones. And handlers can't all wait for each
// other: suppose that none works and some inner calls are in line, anywhere in the server, and take the deepest of
// these. Where it waits, all ordinary threads are held by handlers that wait for servables, so that 1 allows it a
// thread. If 2 does not, then calls of its depth wait for deeper ones, and those for still deeper ones, of which none
// is in line: so one of them works, since calls are not deeper than kMostDepth. What isn't known to wait for a servable
// is taken to work; that is calls from threads that know of no call (docs/composition.md).
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
  // has yet to Await. The thread holds the one before until then.
  const std::shared_ptr<ServiceCall>& TryTake();
  // Waits until TryTake is worth trying; false: after Stop, once the line is empty. `step_back`: others do the work,
  // wait even if there are calls in line.
  bool Await(bool step_back = false);
  // How long the thread waited for the interpreter's lock once Await had returned. False: there are enough, step back.
  bool Stay(Duration waited);
  size_t idle_threads() const;  // that wait in Await
  // To be said around what blocks a handler's thread for long. On other threads they do nothing. `reads`: the call of
  // which it waits for the client's next message; `silent_since`: kNever: since now, else for longer.
  void BeginBlocked(const ServiceCall* reads = nullptr, TimePoint silent_since = kNever);
  void EndBlocked();
  // The same around a call of another servable. `call`: for which it is made, if that is known; on other threads than
  // handlers' it says whose thread waits.
  void BeginCall(ServiceCall* call);
  void EndCall(ServiceCall* call);

  // Extra threads: as Await; false also after `idle_for` without a call.
  bool AwaitExtra(std::chrono::milliseconds idle_for);
  // For the one thread that starts extra threads, without which there are none, and tells the log who is stuck.
  struct Needs {
    size_t threads = 0;  // to be started
    bool stuck = false;  // for kStuck no ordinary thread has taken a call, while calls wait, and none rests
    bool stopped = false;
  };
  static constexpr Duration kStuck = std::chrono::seconds(5);
  // Waits until threads are needed, or `stuck` is not what is so, or Stop.
  Needs AwaitNeeds(bool stuck);
  // So many threads that were needed can't be started. They are asked for again.
  void ThreadsFailed(size_t count);
  struct Held {
    uint64_t thread = 0;  // pthread_self
    int handler = 0;
    Duration time{0};
  };
  // What handler threads do now.
  std::vector<Held> held() const;
  size_t waiting() const;  // calls in line

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

  // For ServiceCall and the runtime thread. None of them with the call's lock held.
  void Push(std::shared_ptr<ServiceCall> call);      // to the end of the line
  void PushBack(std::shared_ptr<ServiceCall> call);  // the same by a handler thread
  // The client of a call has sent all.
  void BecomeWhole(ServiceCall& call);
  // A call that is over, and of which nobody knows but this, waits no more.
  void Withdraw(ServiceCall& call);
  void Notify(std::shared_ptr<ServiceCall> call, uint8_t events);
  void Post(std::shared_ptr<ServiceCall> call);  // has something for the runtime thread

  // The runtime thread. Swaps what was posted into `calls`, and the models into `models`; both are cleared before.
  using Models = std::vector<std::pair<std::string, bool>>;
  void TakePosted(std::vector<std::shared_ptr<ServiceCall>>* calls, Models* models);
  // Before it sleeps; false if something was posted. Then, in any case: Awake.
  bool PrepareSleep();
  void Awake();
  // A call whose handler holds a thread while it waits for the client's next message, and since when. Before the first
  // one that is since the call came: else those that say nothing would have their rest one after the other. kNever: the
  // handler works, and its client has messages enough.
  struct Resting {
    std::shared_ptr<ServiceCall> call;
    TimePoint since;
    bool rested;  // for kRest; else its client holds more threads than its share
  };
  // So long at least a client may rest between messages even if others lack the thread.
  static constexpr Duration kRest = kStuck;
  // So long after calls were ended for the threads, streams leave a quarter of all threads to whole calls: these would
  // have to wait again for kStuck, each of them, where clients come back with new streams.
  static constexpr Duration kKeptFree = std::chrono::minutes(1);
  // Wakes handler threads if too few run. When it wants to be called again (kNever: no time). `resting`, unless null,
  // is cleared, and filled when a call has waited in line for kStuck: with calls that are to be ended for their threads
  // (FindResting).
  TimePoint Tend(TimePoint now, std::vector<Resting>* resting = nullptr);
  // Whether the call's thread still waits for the message for which it has waited since then.
  bool Rests(const ServiceCall& call, TimePoint since) const;
  // The same, of a call that is to be ended for its thread if so.
  bool Dismiss(ServiceCall& call, TimePoint since);

  // Makes Await return false. Any thread.
  void Stop();
  // Lets go of calls that nobody has taken, all of which are over: each of them holds this.
  void Clear();

 private:
  struct Thread {
    const Handlers* handlers;
    bool extra;
    uint64_t id;
    // Guarded by line_mutex_.
    std::shared_ptr<ServiceCall> call = {};  // that it handles
    CallLine::Kind kind = {};                // as which that came
    TimePoint since = {};                    // of that
    size_t blocked = 0;                      // BeginBlocked without EndBlocked
    size_t calls = 0;                        // BeginCall without EndCall
    bool up = false;                         // runs a handler or is about to
    bool runs = false;                       // counted in running_
    bool waits_for_servable = false;         // counted in waiting_for_servables_
    // Only the thread's own.
    bool defers = false;  // the runtime thread need not be woken at once: it comes round within kPatience
    int deferred = 0;
  };
  static thread_local constinit Thread* this_thread_;
  Thread* Self() const;
  Thread& Enter(bool extra);
  void Leave(Thread& self);
  // With line_mutex_ held.
  void Count(Thread& thread);
  std::shared_ptr<ServiceCall> LetGo(Thread& self);
  void Hold(Thread& self, std::shared_ptr<ServiceCall> call, TimePoint now);
  void TakeNext(Thread& self, TimePoint now);
  void TakeAssigned(Thread& self, TimePoint now);
  bool StreamsMayTake() const;
  bool MayTake() const;
  bool IsDue(TimePoint now) const;
  bool WakeOne(TimePoint now);
  ServiceCall* OldestForExtra() const;
  bool Assign(TimePoint now);
  void FindStuck(TimePoint now, std::vector<Resting>* resting);
  void FindResting(TimePoint now, std::vector<Resting>* resting);

  void Flush();
  void WithdrawFromLoop(ServiceCall& call);

  const TimeSource& time_;
  const std::function<void()> wake_;
  std::vector<HandlerSpec> specs_;

  mutable std::mutex line_mutex_;
  // Guarded by line_mutex_.
  std::condition_variable woken_;
  CallLine line_;
  std::vector<std::unique_ptr<Thread>> threads_;
  size_t idle_ = 0;                   // ordinary threads in Await that nobody has woken
  size_t running_ = 0;                // threads that run handlers or are about to, those blocked not counted
  size_t permits_ = 0;                // ordinary threads that were woken and are not up yet
  TimePoint next_wake_;               // no further thread is woken before, unless none runs
  size_t ordinary_ = 0;               // threads
  size_t waiting_for_servables_ = 0;  // threads
  size_t streams_held_ = 0;           // ordinary threads that hold a call which came as a stream
  bool keeps_free_ = false;           // a quarter of the threads, until:
  TimePoint kept_free_until_;
  TimePoint next_look_;  // for calls that rest, and whether all are stuck
  bool stopped_ = false;
  // Of extra threads:
  std::condition_variable extra_woken_;
  std::deque<std::shared_ptr<ServiceCall>> assigned_;          // calls that await one
  std::array<size_t, wire::kMostDepth + 1> extra_by_depth_{};  // calls assigned or held, by depth
  size_t extra_held_ = 0;                                      // their sum
  size_t extra_idle_ = 0;                                      // threads without a call
  size_t starting_ = 0;                                        // threads that were asked for
  TimePoint next_extra_;                                       // none before
  // Of AwaitNeeds:
  std::condition_variable needs_changed_;
  bool tended_ = false;  // somebody is there
  size_t wanted_ = 0;    // threads of which it was not told
  bool stuck_ = false;
  size_t taken_ = 0;         // by ordinary threads
  size_t taken_before_ = 0;  // when it was looked last
  TimePoint last_taken_;     // about, or when calls were ended so that some can be

  std::mutex loop_mutex_;
  // Guarded by loop_mutex_.
  std::vector<LoopEvents> loop_events_;  // without a call: it was withdrawn
  size_t loop_withdrawn_ = 0;
  UniqueFd loop_bell_;

  std::atomic<bool> has_posted_{false};  // changed under post_mutex_
  std::mutex post_mutex_;
  // Guarded by post_mutex_.
  std::vector<std::shared_ptr<ServiceCall>> posted_;
  Models models_;
  std::atomic<bool> asleep_{false};  // the runtime thread; changed under post_mutex_
};

}  // namespace mindserve::worker
