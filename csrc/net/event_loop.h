// One thread's event loop, on epoll.
#pragma once

#include <functional>
#include <memory>

#include "base/clock.h"

namespace mindserve::net {

// A descriptor that is watched for reading and writing. Handlers run on the loop's thread; a handler is called once for
// each Await…, when the descriptor is ready or has failed (then the next read or write tells). Destroying the watch
// forgets its handlers; the descriptor itself is not closed. Only on the loop's thread.
class Watch {
 public:
  virtual ~Watch() = default;
  virtual void AwaitReadable(std::function<void()> handler) = 0;  // replaces none: must not be awaited already
  virtual void AwaitWritable(std::function<void()> handler) = 0;
};

// Runs a function at a time. For a few: many belong behind one. Only on the loop's thread. Destroying it cancels.
class Timer {
 public:
  virtual ~Timer() = default;
  virtual void Start(TimePoint at, std::function<void()> handler) = 0;  // replaces what was started before
  virtual void Cancel() = 0;
};

// What is done around each round of the loop: a round is all handlers that one wait for events made ready.
class RoundHooks {
 public:
  virtual ~RoundHooks() = default;
  // After a round's handlers have run. May post, watch, start timers.
  virtual void RoundEnd() = 0;
  // Just before blocking: false if there is work after all (RoundEnd is then called again instead of blocking).
  virtual bool PrepareSleep() = 0;
  // At the beginning of each round: after blocking, or instead of it.
  virtual void Awake() = 0;
};

class EventLoop {
 public:
  EventLoop();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Runs on the calling thread until Stop. `hooks` may be null and outlives the call. The round in which Stop is called
  // still gets its RoundEnd.
  void Run(RoundHooks* hooks);
  void Stop();                            // any thread; without a Run, the next one returns at once
  void Wake();                            // any thread; the loop does not sleep now, but goes on for a round
  void Post(std::function<void()> task);  // any thread; runs on the loop's thread, also after Stop if Run runs again

  // Only on the loop's thread, or while it does not run. At most one watch of a descriptor at a time, and the watch
  // goes before the descriptor is closed. A watch or timer that outlives its loop does nothing any more.
  std::unique_ptr<Watch> NewWatch(int fd);
  std::unique_ptr<Timer> NewTimer();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mindserve::net
