#include "pipeline/local_call.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <iterator>
#include <utility>

#include "pipeline/local_calls.h"

namespace mindserve::pipeline {
namespace {

thread_local const LocalCaller* current_caller = nullptr;

}  // namespace

CallerScope::CallerScope(const LocalCaller& caller)
    : caller_(caller), outer_(std::exchange(current_caller, &caller_)) {}

CallerScope::~CallerScope() {
  current_caller = outer_;
}

const LocalCaller& CallerScope::current() {
  static const LocalCaller kNobody;
  return current_caller == nullptr ? kNobody : *current_caller;
}

Result<std::shared_ptr<DoneCalls>> DoneCalls::Create() {
  UniqueFd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event) return Status(Code::kResourceExhausted, std::string("eventfd failed: ") + std::strerror(errno));
  return std::shared_ptr<DoneCalls>(new DoneCalls(std::move(event)));
}

void DoneCalls::Take(std::vector<std::shared_ptr<LocalCall>>* calls) {
  calls->clear();
  uint64_t count = 0;
  // Before the calls: one that comes in between is taken now or makes it readable again.
  while (::read(event_.get(), &count, sizeof(count)) < 0 && errno == EINTR) {
  }
  const std::lock_guard lock(mutex_);
  calls->assign(std::make_move_iterator(calls_.begin()), std::make_move_iterator(calls_.end()));
  expected_ -= calls_.size();
  calls_.clear();
}

void DoneCalls::Expect() {
  const std::lock_guard lock(mutex_);
  if (calls_.capacity() <= expected_) calls_.reserve(2 * expected_ + 8);
  ++expected_;
}

void DoneCalls::ExpectNoMore() {
  const std::lock_guard lock(mutex_);
  --expected_;
}

void DoneCalls::Put(std::shared_ptr<LocalCall> call) noexcept {
  {
    const std::lock_guard lock(mutex_);
    calls_.push_back(std::move(call));
    if (calls_.size() > 1) return;
  }
  const uint64_t one = 1;
  // It can't fail: the counter is far from its end.
  while (::write(event_.get(), &one, sizeof(one)) < 0 && errno == EINTR) {
  }
}

LocalCall::LocalCall(Terms terms, std::vector<Tensor> inputs)
    : terms_(std::move(terms)),
      outputs_(terms_.instances * terms_.outputs),
      inputs_(std::move(inputs)),
      left_(terms_.instances) {
  context_.client = terms_.caller.client;
  context_.deadline = terms_.caller.deadline;
  context_.passes_pauses = terms_.caller.in_stage;
  context_.origin = terms_.caller.origin;
  context_.sink = this;
}

LocalCall::~LocalCall() = default;

bool LocalCall::WaitFor(Duration limit) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, limit, [&] { return done_; });
}

void LocalCall::Wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return done_; });
}

std::span<Tensor> LocalCall::outputs(size_t instance) {
  return std::span(outputs_).subspan(instance * terms_.outputs, terms_.outputs);
}

void LocalCall::InstanceDone(uint32_t index, Status status, std::span<Tensor> outputs) {
  if (status.ok()) {
    std::ranges::move(outputs.first(std::min(outputs.size(), terms_.outputs)), this->outputs(index).begin());
  } else if (index < failed_) {
    failed_ = index;
    status_ = std::move(status);
  }
  if (--left_ == 0) Finish();
}

// Somebody else still has a share in it.
void LocalCall::Finish() {
  if (calls_ != nullptr) calls_->Forget(*this);
  {
    const std::lock_guard lock(mutex_);
    done_ = true;
  }
  changed_.notify_all();
  if (terms_.done != nullptr) terms_.done->Put(shared_from_this());
}

}  // namespace mindserve::pipeline
