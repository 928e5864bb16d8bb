#include "worker/handlers.h"

#include <sys/eventfd.h>

#include <cerrno>
#include <system_error>

#include "worker/service_call.h"

namespace mindserve::worker {
namespace {

// So many answers are handed over without waking the runtime thread as long as there are more calls in line.
constexpr int kHandedOver = 16;

bool IsWithdrawn(const Handlers::LoopEvents& each) {
  return each.call == nullptr;
}

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

void Handlers::TakeLoopEvents(std::vector<LoopEvents>* events) {
  events->clear();
  {
    const std::lock_guard lock(loop_mutex_);
    eventfd_t count = 0;
    ::eventfd_read(loop_bell_.get(), &count);
    events->swap(loop_events_);
    if (std::exchange(loop_withdrawn_, size_t{0}) > 0) std::erase_if(*events, IsWithdrawn);
    for (LoopEvents& each : *events) each.events = std::exchange(each.call->loop_events, uint8_t{0});
  }
  const TimePoint now = time_.Now();
  std::erase_if(*events,
                [now](const LoopEvents& each) { return (each.events & kOpened) != 0 && !each.call->Begin(now); });
}

void Handlers::Notify(std::shared_ptr<ServiceCall> call, uint8_t events) {
  const std::lock_guard lock(loop_mutex_);
  const bool listed = call->loop_events != 0;
  call->loop_events |= events;
  if (listed) return;
  call->loop_place = loop_events_.size();
  loop_events_.push_back({std::move(call)});
  if (loop_events_.size() == 1) ::eventfd_write(loop_bell_.get(), 1);
}

// Its place stays until half of all are such: who cancels must not have to look at all the others.
void Handlers::WithdrawFromLoop(ServiceCall& call) {
  std::shared_ptr<ServiceCall> withdrawn;  // goes when the lock has gone
  const std::lock_guard lock(loop_mutex_);
  if (std::exchange(call.loop_events, uint8_t{0}) == 0) return;
  withdrawn = std::move(loop_events_[call.loop_place].call);
  if (++loop_withdrawn_ * 2 <= loop_events_.size()) return;
  loop_withdrawn_ = 0;
  std::erase_if(loop_events_, IsWithdrawn);
  for (size_t place = 0; place < loop_events_.size(); ++place) loop_events_[place].call->loop_place = place;
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
  Thread* const self = Self();
  {
    const std::lock_guard lock(post_mutex_);
    posted_.push_back(std::move(call));
    has_posted_.store(true);
    if (!asleep_) return;
    if (self != nullptr && self->defers && ++self->deferred < kHandedOver) return;
    asleep_ = false;
  }
  if (self != nullptr) self->deferred = 0;
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
  Thread* const self = Self();
  if (self == nullptr || std::exchange(self->deferred, 0) == 0) return;
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

void Handlers::Clear() {
  std::deque<std::shared_ptr<ServiceCall>> waiting;
  std::vector<LoopEvents> events;
  std::vector<std::shared_ptr<ServiceCall>> posted;
  {
    const std::scoped_lock lock(line_mutex_, loop_mutex_, post_mutex_);
    waiting.swap(assigned_);
    while (ServiceCall* const next = line_.Next(true)) waiting.push_back(line_.Take(*next));
    events.swap(loop_events_);
    for (const LoopEvents& each : events) {
      if (each.call != nullptr) each.call->loop_events = 0;
    }
    loop_withdrawn_ = 0;
    posted.swap(posted_);
  }
}

}  // namespace mindserve::worker
