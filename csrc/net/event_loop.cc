#include "net/event_loop.h"

#include <array>
#include <asio/basic_waitable_timer.hpp>
#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/posix/basic_stream_descriptor.hpp>
#include <asio/post.hpp>
#include <atomic>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <new>
#include <string>
#include <utility>

#include "base/log.h"

namespace mindserve::net {
namespace {

using Executor = asio::io_context::executor_type;
using Descriptor = asio::posix::basic_stream_descriptor<Executor>;
using WaitableTimer = asio::basic_waitable_timer<Clock, asio::wait_traits<Clock>, Executor>;

// Memory for one asio operation at a time, so that waiting costs no allocation. asio's own recycling does not last from
// one run_one to the next.
class Slot {
 public:
  void* Take(size_t size) {
    if (taken_ || size > bytes_.size()) return ::operator new(size);
    taken_ = true;
    return bytes_.data();
  }
  void Give(void* memory) {
    if (memory == bytes_.data()) {
      taken_ = false;
    } else {
      ::operator delete(memory);
    }
  }

 private:
  bool taken_ = false;
  alignas(std::max_align_t) std::array<std::byte, 160> bytes_;
};

template <typename T>
struct SlotAllocator {
  using value_type = T;
  explicit SlotAllocator(Slot* from) : slot(from) {}
  template <typename U>
  SlotAllocator(const SlotAllocator<U>& other) : slot(other.slot) {}  // NOLINT: as allocators have to be
  T* allocate(size_t n) { return static_cast<T*>(slot->Take(n * sizeof(T))); }
  void deallocate(T* memory, size_t /*n*/) { slot->Give(memory); }
  template <typename U>
  bool operator==(const SlotAllocator<U>& other) const {
    return slot == other.slot;
  }
  Slot* slot;
};

// An asio handler that holds `Owner`, its memory and its state, until it has run or was dropped.
template <typename Owner>
struct Completion {
  using allocator_type = SlotAllocator<std::byte>;
  allocator_type get_allocator() const { return allocator_type(slot); }
  void operator()(const asio::error_code& error) const { owner->Complete(which, error); }

  std::shared_ptr<Owner> owner;
  Slot* slot;
  uint32_t which;
};

}  // namespace

struct EventLoop::State {
  Slot round_slot;  // before the context, which may still hold an operation in it when it ends
  asio::io_context context{1};
  asio::executor_work_guard<Executor> work{context.get_executor()};
  std::atomic<size_t> posted{0};
  std::atomic<bool> stop{false};
  RoundHooks* hooks = nullptr;
  bool asleep = false;
  bool round_over = false;

  // Each handler begins with this, so that Awake comes before the first of them.
  void Enter() {
    if (asleep) {
      asleep = false;
      hooks->Awake();
    }
  }

  struct RoundMark {
    using allocator_type = SlotAllocator<std::byte>;
    allocator_type get_allocator() const { return allocator_type(&state->round_slot); }
    void operator()() const { state->round_over = true; }
    State* state;
  };

  // Runs what is ready, and not what becomes ready meanwhile: a busy connection must not put off the end of the round.
  void RunReady() {
    round_over = false;
    asio::post(context, RoundMark{this});
    while (!round_over && context.poll_one() != 0) {
    }
  }
};

namespace {

enum Direction : uint32_t { kRead = 0, kWrite = 1 };

// Owned by the watch, and by the operations that have not come back yet.
template <typename LoopState>
class WatchState : public std::enable_shared_from_this<WatchState<LoopState>> {
 public:
  WatchState(LoopState& loop, int fd) : loop_(loop), descriptor_(loop.context) {
    asio::error_code error;
    descriptor_.assign(fd, error);
    if (error) {
      Log(LogLevel::kError, "cannot watch descriptor " + std::to_string(fd) + ": " + error.message());
      gone_ = true;
    }
  }

  void Await(Direction direction, std::function<void()> handler) {
    assert(!handlers_[direction]);
    if (gone_) return;
    handlers_[direction] = std::move(handler);
    descriptor_.async_wait(direction == kRead ? Descriptor::wait_read : Descriptor::wait_write,
                           Completion<WatchState>{this->shared_from_this(), &slots_[direction], direction});
  }

  void Forget() {
    if (!gone_) descriptor_.release();
    gone_ = true;
    for (auto& handler : handlers_) handler = nullptr;
  }

  void Complete(uint32_t direction, const asio::error_code& /*readiness or failure: the next read or write tells*/) {
    loop_.Enter();
    if (gone_) return;
    const auto handler = std::exchange(handlers_[direction], nullptr);
    handler();
  }

 private:
  LoopState& loop_;
  std::array<Slot, 2> slots_;
  Descriptor descriptor_;
  std::array<std::function<void()>, 2> handlers_;
  bool gone_ = false;
};

template <typename LoopState>
class AsioWatch final : public Watch {
 public:
  AsioWatch(LoopState& loop, int fd) : state_(std::make_shared<WatchState<LoopState>>(loop, fd)) {}
  ~AsioWatch() override { state_->Forget(); }
  void AwaitReadable(std::function<void()> handler) override { state_->Await(kRead, std::move(handler)); }
  void AwaitWritable(std::function<void()> handler) override { state_->Await(kWrite, std::move(handler)); }

 private:
  std::shared_ptr<WatchState<LoopState>> state_;
};

// Owned by the timer, and by the waits that have not come back yet.
template <typename LoopState>
class TimerState : public std::enable_shared_from_this<TimerState<LoopState>> {
 public:
  explicit TimerState(LoopState& loop) : loop_(loop), timer_(loop.context) {}

  void Start(TimePoint at, std::function<void()> handler) {
    Cancel();
    if (at == kNever) return;
    handler_ = std::move(handler);
    timer_.expires_at(at);
    timer_.async_wait(Completion<TimerState>{this->shared_from_this(), &slot_, ++started_});
  }

  void Cancel() {
    if (!handler_) return;
    handler_ = nullptr;
    timer_.cancel();
  }

  void Complete(uint32_t start, const asio::error_code& error) {
    loop_.Enter();
    // A wait that was already over when it was replaced comes back without an error.
    if (error || start != started_ || !handler_) return;
    const auto handler = std::exchange(handler_, nullptr);
    handler();
  }

 private:
  LoopState& loop_;
  Slot slot_;
  WaitableTimer timer_;
  std::function<void()> handler_;
  uint32_t started_ = 0;
};

template <typename LoopState>
class AsioTimer final : public Timer {
 public:
  explicit AsioTimer(LoopState& loop) : state_(std::make_shared<TimerState<LoopState>>(loop)) {}
  ~AsioTimer() override { state_->Cancel(); }
  void Start(TimePoint at, std::function<void()> handler) override { state_->Start(at, std::move(handler)); }
  void Cancel() override { state_->Cancel(); }

 private:
  std::shared_ptr<TimerState<LoopState>> state_;
};

}  // namespace

EventLoop::EventLoop() : state_(std::make_unique<State>()) {}
EventLoop::~EventLoop() = default;

void EventLoop::Run(RoundHooks* hooks) {
  State& state = *state_;
  state.hooks = hooks;
  state.context.restart();
  while (!state.stop.load()) {
    if (hooks == nullptr) {
      state.context.run_one();
    } else if (state.posted.load() == 0) {
      state.asleep = true;
      if (hooks->PrepareSleep()) state.context.run_one();
      state.Enter();
    }
    state.RunReady();
    if (hooks != nullptr) hooks->RoundEnd();
  }
  state.stop.store(false);
  state.hooks = nullptr;
}

void EventLoop::Stop() {
  state_->stop.store(true);
  state_->context.stop();
}

void EventLoop::Post(std::function<void()> task) {
  State& state = *state_;
  ++state.posted;
  asio::post(state.context, [&state, task = std::move(task)] {
    --state.posted;
    state.Enter();
    task();
  });
}

std::unique_ptr<Watch> EventLoop::NewWatch(int fd) {
  return std::make_unique<AsioWatch<State>>(*state_, fd);
}
std::unique_ptr<Timer> EventLoop::NewTimer() {
  return std::make_unique<AsioTimer<State>>(*state_);
}

}  // namespace mindserve::net
