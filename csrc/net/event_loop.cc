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
#include <optional>
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

// What belongs to a loop and may outlive it, doing nothing then.
class Member {
 public:
  Member() = default;
  Member(const Member&) = delete;
  Member& operator=(const Member&) = delete;
  virtual void Detach() = 0;  // leaves the list; drops what is asio's

 protected:
  ~Member() = default;

  void Enlist(Member*& first) {
    list_ = &first;
    next_ = first;
    if (next_ != nullptr) next_->previous_ = this;
    first = this;
  }

  // False if it had left before.
  bool Leave() {
    if (list_ == nullptr) return false;
    (previous_ != nullptr ? previous_->next_ : *list_) = next_;
    if (next_ != nullptr) next_->previous_ = previous_;
    list_ = nullptr;
    return true;
  }

 private:
  Member** list_ = nullptr;  // its first
  Member* previous_ = nullptr;
  Member* next_ = nullptr;
};

struct Core {
  Core() = default;
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;
  ~Core() {
    while (members != nullptr) members->Detach();
  }

  Slot round_slot;  // before the context, which may still hold an operation in it when it ends
  asio::io_context context{1};
  asio::executor_work_guard<Executor> work{context.get_executor()};
  Member* members = nullptr;
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
    allocator_type get_allocator() const { return allocator_type(&core->round_slot); }
    void operator()() const { core->round_over = true; }
    Core* core;
  };

  // Runs what is ready, and not what becomes ready meanwhile: a busy connection must not put off the end of the round.
  void RunReady() {
    round_over = false;
    asio::post(context, RoundMark{this});
    while (!round_over && context.poll_one() != 0) {
    }
  }
};

enum Direction : uint32_t { kRead = 0, kWrite = 1 };

// Owned by the watch, and by the operations that have not come back yet.
class WatchState final : public Member, public std::enable_shared_from_this<WatchState> {
 public:
  WatchState(Core& core, int fd) : core_(core), descriptor_(std::in_place, core.context) {
    Enlist(core.members);
    asio::error_code error;
    descriptor_->assign(fd, error);
    if (error) {
      Log(LogLevel::kError, "cannot watch descriptor " + std::to_string(fd) + ": " + error.message());
      Detach();
    }
  }

  void Await(Direction direction, std::function<void()> handler) {
    assert(!handlers_[direction]);
    if (!descriptor_) return;
    handlers_[direction] = std::move(handler);
    descriptor_->async_wait(direction == kRead ? Descriptor::wait_read : Descriptor::wait_write,
                            Completion<WatchState>{shared_from_this(), &slots_[direction], direction});
  }

  void Detach() override {
    if (!Leave()) return;
    if (descriptor_->is_open()) descriptor_->release();
    descriptor_.reset();
    const auto dropped = std::exchange(handlers_, {});  // at the end: they may own anything
  }

  // Ready or failed: the next read or write tells which.
  void Complete(uint32_t direction, const asio::error_code& /*error*/) {
    core_.Enter();
    if (!descriptor_) return;
    const auto handler = std::exchange(handlers_[direction], nullptr);
    handler();
  }

 private:
  Core& core_;
  std::array<Slot, 2> slots_;
  std::optional<Descriptor> descriptor_;  // none once detached
  std::array<std::function<void()>, 2> handlers_;
};

class AsioWatch final : public Watch {
 public:
  AsioWatch(Core& core, int fd) : state_(std::make_shared<WatchState>(core, fd)) {}
  ~AsioWatch() override { state_->Detach(); }
  void AwaitReadable(std::function<void()> handler) override { state_->Await(kRead, std::move(handler)); }
  void AwaitWritable(std::function<void()> handler) override { state_->Await(kWrite, std::move(handler)); }

 private:
  std::shared_ptr<WatchState> state_;
};

// Owned by the timer, and by the waits that have not come back yet.
class TimerState final : public Member, public std::enable_shared_from_this<TimerState> {
 public:
  explicit TimerState(Core& core) : core_(core), timer_(std::in_place, core.context) { Enlist(core.members); }

  void Start(TimePoint at, std::function<void()> handler) {
    Cancel();
    if (!timer_ || at == kNever) return;
    handler_ = std::move(handler);
    timer_->expires_at(at);
    timer_->async_wait(Completion<TimerState>{shared_from_this(), &slot_, ++started_});
  }

  void Cancel() {
    if (!handler_) return;
    const auto dropped = std::exchange(handler_, nullptr);  // at the end: it may own anything
    timer_->cancel();
  }

  void Detach() override {
    if (!Leave()) return;
    timer_.reset();
    const auto dropped = std::exchange(handler_, nullptr);
  }

  void Complete(uint32_t start, const asio::error_code& error) {
    core_.Enter();
    // A wait that was already over when it was replaced comes back without an error.
    if (error || start != started_ || !handler_) return;
    const auto handler = std::exchange(handler_, nullptr);
    handler();
  }

 private:
  Core& core_;
  Slot slot_;
  std::optional<WaitableTimer> timer_;  // none once detached
  std::function<void()> handler_;
  uint32_t started_ = 0;
};

class AsioTimer final : public Timer {
 public:
  explicit AsioTimer(Core& core) : state_(std::make_shared<TimerState>(core)) {}
  ~AsioTimer() override { state_->Detach(); }
  void Start(TimePoint at, std::function<void()> handler) override { state_->Start(at, std::move(handler)); }
  void Cancel() override { state_->Cancel(); }

 private:
  std::shared_ptr<TimerState> state_;
};

}  // namespace

struct EventLoop::State : Core {};

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
  return std::make_unique<AsioWatch>(*state_, fd);
}
std::unique_ptr<Timer> EventLoop::NewTimer() {
  return std::make_unique<AsioTimer>(*state_);
}

}  // namespace mindserve::net
