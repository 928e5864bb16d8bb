// The part of Handlers that is about threads: who takes which call, and when another one is woken.
#include <pthread.h>

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "worker/handlers.h"
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
// After an extra thread could not be started.
constexpr Duration kRetryExtra = std::chrono::seconds(1);
// Between looks for calls that rest.
constexpr Duration kLook = std::chrono::milliseconds(10);
// Which part of the threads streams leave to whole calls.
constexpr size_t kKeptPart = 4;

}  // namespace

thread_local constinit Handlers::Thread* Handlers::this_thread_ = nullptr;

Handlers::Thread* Handlers::Self() const {
  return this_thread_ != nullptr && this_thread_->handlers == this ? this_thread_ : nullptr;
}

Handlers::Thread& Handlers::Enter(bool extra) {
  if (Thread* const self = Self()) return *self;
  const std::lock_guard lock(line_mutex_);
  threads_.push_back(std::unique_ptr<Thread>(new Thread{this, extra, static_cast<uint64_t>(::pthread_self())}));
  this_thread_ = threads_.back().get();
  if (!extra) {
    ++ordinary_;
  } else {
    ++extra_idle_;
    if (starting_ > 0) --starting_;
  }
  return *this_thread_;
}

// With line_mutex_ held, and no call.
void Handlers::Leave(Thread& self) {
  --(self.extra ? extra_idle_ : ordinary_);
  this_thread_ = nullptr;
  std::erase_if(threads_, [&self](const auto& each) { return each.get() == &self; });
}

void Handlers::Count(Thread& thread) {
  const bool runs = thread.up && thread.blocked == 0 && thread.calls == 0;
  if (std::exchange(thread.runs, runs) != runs) running_ += runs ? 1 : size_t{0} - 1;
  const bool waits = thread.calls > 0 || (thread.call != nullptr && thread.call->calls > 0);
  if (std::exchange(thread.waits_for_servable, waits) != waits) waiting_for_servables_ += waits ? 1 : size_t{0} - 1;
}

bool Handlers::WakeOne(TimePoint now) {
  if (idle_ == 0) return Assign(now);
  if (running_ > 0) next_wake_ = now + kTrial;
  --idle_;
  ++running_;
  ++permits_;
  woken_.notify_one();
  return true;
}

// Gives an inner call to an extra thread. See the class for why it may, or not.
bool Handlers::Assign(TimePoint now) {
  if (line_.inner() == 0 || !tended_ || now < next_extra_ || extra_held_ >= waiting_for_servables_) return false;
  ServiceCall* const call = OldestForExtra();
  if (call == nullptr) return false;
  if (running_ > 0) next_wake_ = now + kTrial;
  assigned_.push_back(line_.Take(*call));
  ++extra_by_depth_.at(call->depth());
  ++extra_held_;
  ++running_;
  if (assigned_.size() > extra_idle_ + starting_) {
    ++starting_;
    ++wanted_;
    needs_changed_.notify_one();
  } else {
    extra_woken_.notify_one();
  }
  return true;
}

ServiceCall* Handlers::OldestForExtra() const {
  ServiceCall* oldest = nullptr;
  for (size_t depth = 1; depth < extra_by_depth_.size(); ++depth) {
    ServiceCall* const call = line_.OldestOf(depth);
    if (call == nullptr || extra_by_depth_.at(depth) >= ordinary_) continue;
    if (oldest == nullptr || call->place.since < oldest->place.since) oldest = call;
  }
  return oldest;
}

bool Handlers::StreamsMayTake() const {
  if (!keeps_free_ || stopped_ || ordinary_ < 2) return true;
  return streams_held_ + std::max<size_t>(1, ordinary_ / kKeptPart) < ordinary_;
}

// Whether an ordinary thread finds a call.
bool Handlers::MayTake() const {
  return line_.whole() > 0 || (line_.size() > 0 && StreamsMayTake());
}

// Whether something waits for another thread than those that run.
bool Handlers::IsDue(TimePoint now) const {
  if (!MayTake()) return false;
  return running_ == 0 || (now >= next_wake_ && now - line_.Oldest(StreamsMayTake())->place.since >= kPatience);
}

void Handlers::Push(std::shared_ptr<ServiceCall> call) {
  const TimePoint now = time_.Now();
  const CallLine::Kind kind = call->depth() == 0 && call->ClientMaySend() ? CallLine::kStream : CallLine::kWhole;
  const std::lock_guard lock(line_mutex_);
  line_.Push(std::move(call), kind, now);
  if (running_ == 0 && MayTake()) WakeOne(now);
}

void Handlers::Withdraw(ServiceCall& call) {
  if (call.spec().on_loop) return WithdrawFromLoop(call);
  std::shared_ptr<ServiceCall> withdrawn;  // goes when the lock has gone
  const std::lock_guard lock(line_mutex_);
  if (CallLine::Contains(call)) withdrawn = line_.Take(call);
}

void Handlers::BecomeWhole(ServiceCall& call) {
  const TimePoint now = time_.Now();
  const std::lock_guard lock(line_mutex_);
  if (CallLine::Contains(call)) {
    if (call.place.kind == CallLine::kStream) line_.Push(line_.Take(call), CallLine::kWhole, now);
    if (running_ == 0 && MayTake()) WakeOne(now);
  } else if (auto* const holder = static_cast<Thread*>(call.holder); holder != nullptr && !holder->extra) {
    if (std::exchange(holder->kind, CallLine::kWhole) == CallLine::kStream) --streams_held_;
  }
}

void Handlers::PushBack(std::shared_ptr<ServiceCall> call) {
  Push(std::move(call));
  // It looks after the line only when it comes round.
  wake_();
}

std::shared_ptr<ServiceCall> Handlers::LetGo(Thread& self) {
  std::shared_ptr<ServiceCall> call = std::move(self.call);
  // One that was parked may be another thread's by now.
  if (call != nullptr && call->holder == &self) call->holder = nullptr;
  self.blocked = 0;
  self.calls = 0;
  if (call != nullptr && self.extra) {
    self.up = false;
    --extra_by_depth_.at(call->depth());
    --extra_held_;
    ++extra_idle_;
  } else if (call != nullptr) {
    line_.LetGo(call->client());
    if (self.kind == CallLine::kStream) --streams_held_;
  }
  Count(self);
  return call;
}

void Handlers::Hold(Thread& self, std::shared_ptr<ServiceCall> call, TimePoint now) {
  call->holder = &self;
  self.call = std::move(call);
  self.since = now;
  if (!self.extra) {
    self.kind = self.call->place.kind;
    if (self.kind == CallLine::kStream) ++streams_held_;
  }
  Count(self);
}

void Handlers::TakeNext(Thread& self, TimePoint now) {
  ServiceCall* const next = line_.Next(StreamsMayTake());
  if (next == nullptr) return;
  line_.Hold(next->client());
  Hold(self, line_.Take(*next), now);
  ++taken_;
  if (std::exchange(stuck_, false)) needs_changed_.notify_one();
  if ((idle_ > 0 || line_.inner() > 0) && IsDue(now)) WakeOne(now);
}

void Handlers::TakeAssigned(Thread& self, TimePoint now) {
  if (IsDue(now)) WakeOne(now);
  if (assigned_.empty()) return;
  --extra_idle_;
  // It was counted when the call was assigned.
  self.up = true;
  self.runs = true;
  std::shared_ptr<ServiceCall> call = std::move(assigned_.front());
  assigned_.pop_front();
  Hold(self, std::move(call), now);
}

const std::shared_ptr<ServiceCall>& Handlers::TryTake() {
  static const std::shared_ptr<ServiceCall> kNone;
  Thread* const self = Self();
  if (self == nullptr || !(self->up || self->extra)) return kNone;
  do {
    const TimePoint now = time_.Now();
    std::shared_ptr<ServiceCall> before;  // goes when the lock has gone
    {
      const std::lock_guard lock(line_mutex_);
      before = LetGo(*self);
      self->extra ? TakeAssigned(*self, now) : TakeNext(*self, now);
      self->defers = self->call != nullptr && MayTake();
    }
    if (!self->defers) Flush();
    if (self->call == nullptr || self->call->Begin(now)) break;
  } while (true);
  return self->call;
}

bool Handlers::Await(bool step_back) {
  Thread& self = Enter(false);
  self.defers = false;
  Flush();
  std::shared_ptr<ServiceCall> before;
  std::unique_lock lock(line_mutex_);
  before = LetGo(self);
  const bool goes_on = std::exchange(self.up, false);
  Count(self);
  if (!stopped_ && (!MayTake() || (running_ > 0 && (step_back || !goes_on)))) {
    ++idle_;
    woken_.wait(lock, [this] { return permits_ > 0 || stopped_; });
    if (permits_ > 0) {
      --permits_;
      self.up = true;
      self.runs = true;
      return true;
    }
    --idle_;
  }
  if (line_.size() == 0) {
    Leave(self);
    return false;
  }
  self.up = true;
  Count(self);
  return true;
}

bool Handlers::AwaitExtra(std::chrono::milliseconds idle_for) {
  Thread& self = Enter(true);
  self.defers = false;
  Flush();
  std::unique_lock lock(line_mutex_);
  if (extra_woken_.wait_for(lock, idle_for, [this] { return !assigned_.empty() || stopped_; }) && !assigned_.empty()) {
    return true;
  }
  Leave(self);
  return false;
}

size_t Handlers::idle_threads() const {
  const std::lock_guard lock(line_mutex_);
  return idle_;
}

size_t Handlers::waiting() const {
  const std::lock_guard lock(line_mutex_);
  return line_.size();
}

std::vector<Handlers::Held> Handlers::held() const {
  const TimePoint now = time_.Now();
  std::vector<Held> held;
  const std::lock_guard lock(line_mutex_);
  for (const auto& thread : threads_) {
    if (thread->call != nullptr) held.push_back({thread->id, thread->call->handler(), now - thread->since});
  }
  return held;
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

void Handlers::BeginBlocked(const ServiceCall* reads, TimePoint silent_since) {
  Thread* const self = Self();
  if (self == nullptr) return;
  self->defers = false;
  Flush();
  const std::lock_guard lock(line_mutex_);
  ++self->blocked;
  if (reads != nullptr && reads == self->call.get()) {
    self->call->rests_since = silent_since == kNever ? time_.Now() : silent_since;
  }
  Count(*self);
  if (running_ == 0 && MayTake()) WakeOne(time_.Now());
}

void Handlers::EndBlocked() {
  Thread* const self = Self();
  if (self == nullptr) return;
  const std::lock_guard lock(line_mutex_);
  if (self->blocked > 0) --self->blocked;
  if (self->call != nullptr && self->call->holder == self) self->call->rests_since = kNever;
  Count(*self);
}

void Handlers::BeginCall(ServiceCall* call) {
  Thread* const self = Self();
  if (self == nullptr && call == nullptr) return;
  if (self != nullptr) {
    self->defers = false;
    Flush();
  }
  const std::lock_guard lock(line_mutex_);
  ++(self != nullptr ? self->calls : call->calls);
  auto* const thread = self != nullptr ? self : static_cast<Thread*>(call->holder);
  if (thread != nullptr) Count(*thread);
  if (IsDue(time_.Now())) WakeOne(time_.Now());
}

void Handlers::EndCall(ServiceCall* call) {
  Thread* const self = Self();
  if (self == nullptr && call == nullptr) return;
  const std::lock_guard lock(line_mutex_);
  size_t& calls = self != nullptr ? self->calls : call->calls;
  if (calls > 0) --calls;
  auto* const thread = self != nullptr ? self : static_cast<Thread*>(call->holder);
  if (thread != nullptr) Count(*thread);
}

bool Handlers::Rests(const ServiceCall& call, TimePoint since) const {
  const std::lock_guard lock(line_mutex_);
  return call.rests_since == since;
}

bool Handlers::Dismiss(ServiceCall& call, TimePoint since) {
  const std::lock_guard lock(line_mutex_);
  if (call.rests_since != since || call.holder == nullptr) return false;
  call.dismissed = true;
  return true;
}

TimePoint Handlers::Tend(TimePoint now, std::vector<Resting>* resting) {
  if (resting != nullptr) resting->clear();
  const std::lock_guard lock(line_mutex_);
  if (now >= kept_free_until_) keeps_free_ = false;
  if (line_.size() == 0) {
    if (std::exchange(stuck_, false)) needs_changed_.notify_one();
    return kNever;
  }
  FindStuck(now, resting);
  if (!MayTake()) return now + kPatience;
  // Also without a thread to wake it is looked again: answers are handed over meanwhile without a wake.
  const TimePoint due = line_.Oldest(StreamsMayTake())->place.since + kPatience;
  if (now < due) return due;
  if (running_ == 0 || now >= next_wake_) WakeOne(now);
  return now + kPatience;
}

void Handlers::FindStuck(TimePoint now, std::vector<Resting>* resting) {
  if (std::exchange(taken_before_, taken_) != taken_ || idle_ + permits_ > 0) last_taken_ = now;
  const TimePoint oldest = line_.Oldest(true)->place.since;
  if (now - oldest < kStuck || now < next_look_) return;
  next_look_ = now + kLook;
  if (resting != nullptr) FindResting(now, resting);
  if (resting != nullptr && !resting->empty()) {
    // Their threads will take some.
    last_taken_ = now;
  } else if (!stuck_ && now - std::max(last_taken_, oldest) >= kStuck) {
    stuck_ = true;
    needs_changed_.notify_one();
  }
}

// Among ordinary threads: others take none of the calls that clients make. One for each thread that is lacked is
// enough; those that were found before and still have theirs count.
void Handlers::FindResting(TimePoint now, std::vector<Resting>* resting) {
  const TimePoint long_ago = now - kStuck;
  const size_t share = line_.FairShare(ordinary_);
  const CallLine::Lack lack = line_.Lacking(share, long_ago, ordinary_);
  std::unordered_map<uint64_t, CallLine::Share> clients;
  const auto client_of = [&](const Thread* thread) -> CallLine::Share& {
    const uint64_t client = thread->call->client();
    return clients.try_emplace(client, line_.Of(client, long_ago)).first->second;
  };
  size_t found = 0;
  const auto count = [&](CallLine::Share& client) {
    ++found;
    --client.held;
    if (client.waiting > 0) --client.waiting;
  };
  std::vector<const Thread*> candidates;
  for (const auto& thread : threads_) {
    const ServiceCall* const call = thread->call.get();
    if (thread->extra || call == nullptr || call->holder != thread.get()) continue;
    if (call->dismissed) {
      count(client_of(thread.get()));
    } else if (call->rests_since != kNever || thread->kind == CallLine::kStream) {
      candidates.push_back(thread.get());
    }
  }
  // Those that wait for their clients longest come first, those that don't last.
  std::ranges::sort(candidates, {}, [](const Thread* each) { return std::pair(each->call->rests_since, each->since); });
  const auto rests = [&](const Thread* thread) {
    return thread->call->rests_since != kNever && now - thread->call->rests_since >= kRest;
  };
  const auto take_if = [&](auto condition) {
    std::erase_if(candidates, [&](const Thread* thread) {
      CallLine::Share& client = client_of(thread);
      if (!condition(thread, client)) return false;
      resting->push_back({.call = thread->call, .since = thread->call->rests_since, .rested = rests(thread)});
      count(client);
      return true;
    });
  };
  using Share = CallLine::Share;
  // Whoever rests makes room for its client's own calls; for those of clients that have less than their share first of
  // all who have more, be it that they rest, or that their streams have had their threads for long.
  take_if([&](const Thread* each, const Share& client) { return rests(each) && client.waiting > 0; });
  const auto others_lack = [&] { return found < lack.for_all; };
  take_if([&](const Thread* each, const Share& client) { return rests(each) && client.held > share && others_lack(); });
  take_if([&](const Thread* each, const Share& client) {
    const bool streams_for_long = each->kind == CallLine::kStream && now - each->since >= kRest;
    return streams_for_long && client.held > share && others_lack();
  });
  take_if([&](const Thread* each, const Share&) { return rests(each) && others_lack(); });
  if (resting->empty() || lack.for_whole == 0) return;
  keeps_free_ = true;
  kept_free_until_ = now + kKeptFree;
}

Handlers::Needs Handlers::AwaitNeeds(bool stuck) {
  std::unique_lock lock(line_mutex_);
  // From now on there may be extra threads.
  const TimePoint now = time_.Now();
  if (!std::exchange(tended_, true) && IsDue(now)) WakeOne(now);
  needs_changed_.wait(lock, [&] { return wanted_ > 0 || stuck_ != stuck || stopped_; });
  return {.threads = std::exchange(wanted_, size_t{0}), .stuck = stuck_, .stopped = stopped_};
}

void Handlers::ThreadsFailed(size_t count) {
  const std::lock_guard lock(line_mutex_);
  starting_ -= std::min(starting_, count);
  next_extra_ = time_.Now() + kRetryExtra;
  // Ordinary threads may take them meanwhile.
  while (assigned_.size() > extra_idle_ + starting_) {
    const uint32_t depth = assigned_.back()->depth();
    line_.PutBack(std::move(assigned_.back()));
    assigned_.pop_back();
    --extra_by_depth_.at(depth);
    --extra_held_;
    --running_;
  }
}

void Handlers::Stop() {
  const std::lock_guard lock(line_mutex_);
  stopped_ = true;
  woken_.notify_all();
  extra_woken_.notify_all();
  needs_changed_.notify_all();
}

}  // namespace mindserve::worker
