#include "net/event_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cassert>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/unique_fd.h"
#include "net/socket.h"

namespace mindserve::net {
namespace {

// Descriptors that one round looks at; the others are ready still in the next.
constexpr int kEventsPerRound = 256;

// The loop's own descriptors in an event's data; no watch has these keys.
constexpr uint64_t kWakeup = 0;
constexpr uint64_t kAlarm = 1;

class EpollWatch;
class EpollTimer;

UniqueFd CheckedFd(int fd, const char* what) {
  if (fd < 0) throw std::system_error(errno, std::generic_category(), what);
  return UniqueFd(fd);
}

// What a loop, its watches and its timers share; the last of them frees it. Once closed it does nothing.
struct Core {
  Core();
  void Close();

  uint64_t Enlist(EpollWatch* watch);
  void Leave(uint64_t key);
  EpollWatch* Find(uint64_t key) const;

  void Own(const UniqueFd& fd, uint64_t key) const;
  void Wake() const { [[maybe_unused]] const int full = ::eventfd_write(wakeup.get(), 1); }
  void SetAlarm();
  void Dispatch(int count);
  void RunTasks();
  void RunTimers();

  bool closed = false;
  const UniqueFd epoll = CheckedFd(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
  const UniqueFd wakeup = CheckedFd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "eventfd");
  const UniqueFd alarm = CheckedFd(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), "timerfd_create");
  std::array<epoll_event, kEventsPerRound> events;

  // A watch's key is its place here in the lower half and the place's generation in the upper, so that an event for a
  // watch that has gone since finds nothing.
  struct Place {
    EpollWatch* watch = nullptr;
    uint32_t generation = 1;
  };
  std::vector<Place> places;
  std::vector<uint32_t> free_places;

  // By their times, then by the order of their starts.
  std::map<std::pair<TimePoint, uint64_t>, EpollTimer*> timers;
  uint64_t timers_started = 0;
  TimePoint alarm_at = kNever;  // what the alarm is set to; never later than the first timer while the loop sleeps

  std::atomic<bool> stop{false};
  std::atomic<bool> has_tasks{false};
  std::mutex mutex;
  std::vector<std::function<void()>> tasks;  // guarded by the mutex
};

// Interest in a direction stays registered with the kernel from the first time it is awaited until an event finds
// nobody awaiting it: a connection that is read again and again costs no system call for that.
class EpollWatch final : public Watch {
 public:
  EpollWatch(std::shared_ptr<Core> core, int fd) : core_(std::move(core)), fd_(fd), key_(core_->Enlist(this)) {}

  ~EpollWatch() override {
    Register(0);
    core_->Leave(key_);
  }

  void AwaitReadable(std::function<void()> handler) override { Await(0, std::move(handler)); }
  void AwaitWritable(std::function<void()> handler) override { Await(1, std::move(handler)); }

  // May destroy the watch.
  void OnEvents(uint32_t events) {
    // An error is for whoever reads or writes next to find.
    if ((events & (EPOLLHUP | EPOLLERR)) != 0) events |= kDirections[0] | kDirections[1];
    const Core& core = *core_;  // the loop that calls this keeps it
    const uint64_t key = key_;
    uint32_t unwanted = 0;
    for (size_t i = 0; i < kDirections.size(); ++i) {
      if ((events & kDirections[i]) == 0) continue;
      if (!handlers_[i]) {
        unwanted |= kDirections[i];
        continue;
      }
      std::exchange(handlers_[i], nullptr)();
      if (core.Find(key) == nullptr) return;
    }
    // What the first handler awaited of the second direction is wanted after all.
    for (size_t i = 0; i < kDirections.size(); ++i) {
      if (handlers_[i]) unwanted &= ~kDirections[i];
    }
    if ((registered_ & unwanted) != 0) Register(registered_ & ~unwanted);
  }

  std::array<std::function<void()>, 2> TakeHandlers() { return std::exchange(handlers_, {}); }

 private:
  static constexpr std::array<uint32_t, 2> kDirections = {EPOLLIN, EPOLLOUT};

  void Await(size_t direction, std::function<void()> handler) {
    assert(!handlers_[direction]);
    if (core_->closed) return;
    handlers_[direction] = std::move(handler);
    if ((registered_ & kDirections[direction]) == 0) Register(registered_ | kDirections[direction]);
  }

  void Register(uint32_t wanted) {
    if (wanted == registered_) return;
    // With nothing wanted it has to leave: errors and hang-ups would be told all the same.
    const int operation = wanted == 0 ? EPOLL_CTL_DEL : registered_ == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    epoll_event event{};
    event.events = wanted;
    event.data.u64 = key_;
    if (::epoll_ctl(core_->epoll.get(), operation, fd_, &event) != 0) {
      Log(LogLevel::kError, "cannot watch descriptor " + std::to_string(fd_) + ": " + ErrorText(errno));
      return;  // the next time that it is awaited this is tried again
    }
    registered_ = wanted;
  }

  const std::shared_ptr<Core> core_;  // shared as Core says
  const int fd_;
  const uint64_t key_;
  uint32_t registered_ = 0;  // what the kernel tells of
  std::array<std::function<void()>, 2> handlers_;
};

class EpollTimer final : public Timer {
 public:
  explicit EpollTimer(std::shared_ptr<Core> core) : core_(std::move(core)) {}
  ~EpollTimer() override { Cancel(); }

  void Start(TimePoint at, std::function<void()> handler) override {
    Cancel();
    if (core_->closed || at == kNever) return;
    handler_ = std::move(handler);
    place_ = core_->timers.emplace(std::pair(at, core_->timers_started++), this).first;
  }

  void Cancel() override {
    if (!handler_) return;
    core_->timers.erase(place_);
    const auto dropped = std::exchange(handler_, nullptr);  // at the end: it may own anything
  }

  // Off the list. The handler may destroy the timer.
  std::function<void()> Take() {
    core_->timers.erase(place_);
    return std::exchange(handler_, nullptr);
  }

 private:
  const std::shared_ptr<Core> core_;  // shared as Core says
  std::function<void()> handler_;     // set: it is in the core's list
  decltype(Core::timers)::iterator place_;
};

Core::Core() {
  Own(wakeup, kWakeup);
  Own(alarm, kAlarm);
}

void Core::Own(const UniqueFd& fd, uint64_t key) const {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;  // everything that happens to it is told once, so that it need not be read
  event.data.u64 = key;
  if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd.get(), &event) != 0) {
    throw std::system_error(errno, std::generic_category(), "epoll_ctl");
  }
}

void Core::Close() {
  closed = true;
  // Handlers may own anything, watches and timers too: they are dropped when nothing here is looked at any more.
  std::vector<std::function<void()>> dropped = std::exchange(tasks, {});
  for (const Place& place : places) {
    if (place.watch == nullptr) continue;
    for (auto& handler : place.watch->TakeHandlers()) dropped.push_back(std::move(handler));
  }
  while (!timers.empty()) dropped.push_back(timers.begin()->second->Take());
}

uint64_t Core::Enlist(EpollWatch* watch) {
  if (free_places.empty()) {
    free_places.push_back(static_cast<uint32_t>(places.size()));
    places.emplace_back();
  }
  const uint32_t index = free_places.back();
  free_places.pop_back();
  places[index].watch = watch;
  return static_cast<uint64_t>(places[index].generation) << 32 | index;
}

void Core::Leave(uint64_t key) {
  const auto index = static_cast<uint32_t>(key);
  places[index].watch = nullptr;
  if (++places[index].generation == 0) places[index].generation = 1;  // so that no key is one of the loop's own
  free_places.push_back(index);
}

EpollWatch* Core::Find(uint64_t key) const {
  const auto index = static_cast<uint32_t>(key);
  return index < places.size() && places[index].generation == key >> 32 ? places[index].watch : nullptr;
}

// One that comes too early, for a timer that was cancelled, finds nothing to do.
void Core::SetAlarm() {
  if (timers.empty() || timers.begin()->first.first >= alarm_at) return;
  alarm_at = timers.begin()->first.first;
  // All zero would switch it off.
  const auto ns = std::max<int64_t>(std::chrono::nanoseconds(alarm_at.time_since_epoch()).count(), 1);
  itimerspec at{};
  at.it_value.tv_sec = ns / 1'000'000'000;
  at.it_value.tv_nsec = ns % 1'000'000'000;
  ::timerfd_settime(alarm.get(), TFD_TIMER_ABSTIME, &at, nullptr);
}

void Core::Dispatch(int count) {
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<size_t>(i)];
    if (event.data.u64 == kAlarm) alarm_at = kNever;
    if (EpollWatch* watch = Find(event.data.u64)) watch->OnEvents(event.events);
  }
}

// Those that are there now: what they post is for the next round.
void Core::RunTasks() {
  if (!has_tasks.load(std::memory_order_acquire)) return;
  std::vector<std::function<void()>> now;
  {
    const std::lock_guard lock(mutex);
    now.swap(tasks);
    has_tasks.store(false, std::memory_order_release);
  }
  for (auto& task : now) std::exchange(task, nullptr)();
}

// Those that are due now and were started before: what they start is for the next round.
void Core::RunTimers() {
  if (timers.empty() || alarm_at != kNever) return;
  const TimePoint now = Clock::now();
  const uint64_t started = timers_started;
  for (;;) {
    const auto due = std::ranges::find_if(timers, [&](const auto& timer) { return timer.first.second < started; });
    if (due == timers.end() || due->first.first > now) return;
    due->second->Take()();
  }
}

}  // namespace

struct EventLoop::State {
  const std::shared_ptr<Core> core = std::make_shared<Core>();  // shared as Core says
};

EventLoop::EventLoop() : state_(std::make_unique<State>()) {}
EventLoop::~EventLoop() {
  state_->core->Close();
}

void EventLoop::Run(RoundHooks* hooks) {
  Core& core = *state_->core;
  while (!core.stop.load()) {
    const bool idle = !core.has_tasks.load(std::memory_order_acquire);
    const bool sleeps = idle && (hooks == nullptr || hooks->PrepareSleep());
    core.SetAlarm();
    const int count = ::epoll_wait(core.epoll.get(), core.events.data(), kEventsPerRound, sleeps ? -1 : 0);
    if (hooks != nullptr) hooks->Awake();
    core.Dispatch(count);
    core.RunTasks();
    core.RunTimers();
    if (hooks != nullptr) hooks->RoundEnd();
  }
  core.stop.store(false);
}

void EventLoop::Stop() {
  const auto core = state_->core;  // the loop may end, and be destroyed, before it is woken
  core->stop.store(true);
  core->Wake();
}

void EventLoop::Wake() {
  state_->core->Wake();
}

void EventLoop::Post(std::function<void()> task) {
  const auto core = state_->core;  // as in Stop
  {
    const std::lock_guard lock(core->mutex);
    core->tasks.push_back(std::move(task));
    core->has_tasks.store(true, std::memory_order_release);
    if (core->tasks.size() > 1) return;  // the loop was woken for the first
  }
  core->Wake();
}

std::unique_ptr<Watch> EventLoop::NewWatch(int fd) {
  return std::make_unique<EpollWatch>(state_->core, fd);
}
std::unique_ptr<Timer> EventLoop::NewTimer() {
  return std::make_unique<EpollTimer>(state_->core);
}

}  // namespace mindserve::net
