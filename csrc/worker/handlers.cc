#include "worker/handlers.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "worker/service_call.h"

namespace mindserve::worker {
namespace {

// A call that has waited so long in the line is reason to wake another thread.
constexpr Duration kPatience = std::chrono::milliseconds(1);
// After a thread was woken, until it is known what came of it.
constexpr Duration kTrial = std::chrono::milliseconds(10);
// After one that had to wait for the interpreter's lock. Of those that do, only so many go on.
constexpr Duration kContended = std::chrono::milliseconds(50);
constexpr size_t kEnough = 3;
// So many answers are handed over without waking the runtime thread as long as there are more calls in line.
constexpr int kHandedOver = 16;

// What the calling thread is to the handlers that it runs.
struct HandlerThread {
  const Handlers* handlers = nullptr;
  bool running = false;  // counted in running_
  bool defers = false;   // the runtime thread need not be woken at once: it comes round within kPatience
  int deferred = 0;
};
thread_local HandlerThread this_thread;

}  // namespace

Handlers::Handlers(const TimeSource& time, std::function<void()> wake)
    : time_(time), wake_(std::move(wake)), loop_bell_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (loop_bell_.get() < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
}

Handlers::~Handlers() = default;

int Handlers::Add(HandlerSpec spec) {
  specs_.push_back(std::move(spec));
  return static_cast<int>(specs_.size() - 1);
}

// With line_mutex_ held.
bool Handlers::WakeOne(TimePoint now) {
  if (idle_ == 0) return false;
  if (running_ > 0) next_wake_ = now + kTrial;
  --idle_;
  ++running_;
  ++permits_;
  woken_.notify_one();
  return true;
}

void Handlers::Push(std::shared_ptr<ServiceCall> call) {
  const TimePoint now = time_.Now();
  const std::lock_guard lock(line_mutex_);
  line_.push_back({std::move(call), now});
  if (running_ == 0) WakeOne(now);
}

void Handlers::PushBack(std::shared_ptr<ServiceCall> call) {
  Push(std::move(call));
  // It looks after the line only when it comes round.
  wake_();
}

std::shared_ptr<ServiceCall> Handlers::TryTake() {
  std::shared_ptr<ServiceCall> call;
  if (this_thread.handlers != this || !this_thread.running) return call;
  do {
    bool more = false;
    {
      const std::lock_guard lock(line_mutex_);
      if (line_.empty()) {
        call = nullptr;
      } else {
        call = std::move(line_.front().call);
        line_.pop_front();
        more = !line_.empty();
        if (more && idle_ > 0) {
          const TimePoint now = time_.Now();
          if (now >= next_wake_ && now - line_.front().since >= kPatience) WakeOne(now);
        }
      }
    }
    this_thread.defers = more;
    if (!more) Flush();
  } while (call != nullptr && !call->Begin());
  return call;
}

bool Handlers::Await(bool step_back) {
  this_thread.defers = false;
  Flush();
  this_thread.handlers = this;
  std::unique_lock lock(line_mutex_);
  const bool goes_on = std::exchange(this_thread.running, false);
  if (goes_on) --running_;
  if (!stopped_ && (line_.empty() || (running_ > 0 && (step_back || !goes_on)))) {
    ++idle_;
    woken_.wait(lock, [this] { return permits_ > 0 || stopped_; });
    if (permits_ > 0) {
      --permits_;
      this_thread.running = true;
      return true;
    }
    --idle_;
  }
  if (line_.empty()) return false;
  ++running_;
  this_thread.running = true;
  return true;
}

size_t Handlers::idle_threads() const {
  const std::lock_guard lock(line_mutex_);
  return idle_;
}

bool Handlers::Stay(Duration waited) {
  const std::lock_guard lock(line_mutex_);
  const TimePoint now = time_.Now();
  if (waited < kPatience) {
    next_wake_ = now;
    return true;
  }
  next_wake_ = now + kContended;
  return running_ <= kEnough || stopped_;
}

void Handlers::BeginBlocked() {
  if (this_thread.handlers != this || !std::exchange(this_thread.running, false)) return;
  this_thread.defers = false;
  Flush();
  const std::lock_guard lock(line_mutex_);
  if (--running_ == 0 && !line_.empty()) WakeOne(time_.Now());
}

void Handlers::EndBlocked() {
  if (this_thread.handlers != this || this_thread.running) return;
  this_thread.running = true;
  const std::lock_guard lock(line_mutex_);
  ++running_;
}

TimePoint Handlers::Tend(TimePoint now) {
  const std::lock_guard lock(line_mutex_);
  if (line_.empty()) return kNever;
  // Also without a thread to wake it is looked again: answers are handed over meanwhile without a wake.
  const TimePoint due = line_.front().since + kPatience;
  if (now < due) return due;
  if (running_ == 0 || now >= next_wake_) WakeOne(now);
  return now + kPatience;
}

void Handlers::TakeLoopEvents(std::vector<LoopEvents>* events) {
  events->clear();
  {
    const std::lock_guard lock(loop_mutex_);
    eventfd_t count = 0;
    ::eventfd_read(loop_bell_.get(), &count);
    events->swap(loop_events_);
    for (LoopEvents& each : *events) each.events = std::exchange(each.call->loop_events, uint8_t{0});
  }
  std::erase_if(*events, [](const LoopEvents& each) { return (each.events & kOpened) != 0 && !each.call->Begin(); });
}

void Handlers::Notify(std::shared_ptr<ServiceCall> call, uint8_t events) {
  const std::lock_guard lock(loop_mutex_);
  const bool listed = call->loop_events != 0;
  call->loop_events |= events;
  if (listed) return;
  loop_events_.push_back({std::move(call)});
  if (loop_events_.size() == 1) ::eventfd_write(loop_bell_.get(), 1);
}

void Handlers::Nudge(bool loop) {
  if (loop) {
    ::eventfd_write(loop_bell_.get(), 1);
  } else {
    const std::lock_guard lock(line_mutex_);
    if (running_ == 0) WakeOne(time_.Now());
  }
}

void Handlers::Post(std::shared_ptr<ServiceCall> call) {
  {
    const std::lock_guard lock(post_mutex_);
    posted_.push_back(std::move(call));
    has_posted_.store(true);
    if (!asleep_) return;
    if (this_thread.handlers == this && this_thread.defers && ++this_thread.deferred < kHandedOver) return;
    asleep_ = false;
  }
  this_thread.deferred = 0;
  wake_();
}

void Handlers::SetModel(std::string model_id, bool loaded) {
  {
    const std::lock_guard lock(post_mutex_);
    models_.emplace_back(std::move(model_id), loaded);
    has_posted_.store(true);
    if (!asleep_.exchange(false)) return;
  }
  wake_();
}

// Wakes the runtime thread for what was posted without that.
void Handlers::Flush() {
  if (this_thread.handlers != this || std::exchange(this_thread.deferred, 0) == 0) return;
  {
    const std::lock_guard lock(post_mutex_);
    if (posted_.empty() || !asleep_.exchange(false)) return;
  }
  wake_();
}

void Handlers::TakePosted(std::vector<std::shared_ptr<ServiceCall>>* calls, Models* models) {
  calls->clear();
  models->clear();
  if (!has_posted_.load(std::memory_order_acquire)) return;
  const std::lock_guard lock(post_mutex_);
  calls->swap(posted_);
  models->swap(models_);
  has_posted_.store(false);
}

bool Handlers::PrepareSleep() {
  const std::lock_guard lock(post_mutex_);
  if (!posted_.empty() || !models_.empty()) return false;
  asleep_ = true;
  return true;
}

void Handlers::Awake() {
  if (!asleep_.load(std::memory_order_relaxed)) return;
  const std::lock_guard lock(post_mutex_);
  asleep_ = false;
}

void Handlers::Stop() {
  const std::lock_guard lock(line_mutex_);
  stopped_ = true;
  woken_.notify_all();
}

void Handlers::Clear() {
  std::deque<Waiting> line;
  std::vector<LoopEvents> events;
  std::vector<std::shared_ptr<ServiceCall>> posted;
  {
    const std::scoped_lock lock(line_mutex_, loop_mutex_, post_mutex_);
    line.swap(line_);
    events.swap(loop_events_);
    posted.swap(posted_);
  }
}

}  // namespace mindserve::worker
