#include "pipeline/mailbox.h"

#include <utility>

namespace mindserve::pipeline {

std::unique_ptr<Run> Mailbox::Mail::NextRun() {
  std::unique_ptr<Run> run = std::move(runs);
  if (run != nullptr) runs = std::move(run->next_);
  return run;
}

Mailbox::Mailbox(std::function<void()> wake) : wake_(std::move(wake)) {}

Mailbox::~Mailbox() {
  while (mail_.NextRun() != nullptr) {
  }
}

template <typename Add>
void Mailbox::Post(Add add) {
  {
    const std::lock_guard lock(mutex_);
    add();
    if (has_mail_.exchange(true) || closed_) return;
    ++waking_;
  }
  if (wake_) wake_();
  const std::lock_guard lock(mutex_);
  if (--waking_ == 0 && closed_) woken_.notify_all();
}

void Mailbox::PostRun(std::unique_ptr<Run> run) {
  Post([&] {
    Run* last = run.get();
    (last_run_ == nullptr ? mail_.runs : last_run_->next_) = std::move(run);
    last_run_ = last;
  });
}

void Mailbox::PostExpired(batching::ItemList items) {
  if (items.empty()) return;
  Post([&] { mail_.expired.Append(std::move(items)); });
}

void Mailbox::PostOutOfMemory(batching::ItemList items) {
  if (items.empty()) return;
  Post([&] { mail_.out_of_memory.Append(std::move(items)); });
}

Status Mailbox::PostCall(std::shared_ptr<LocalCall> call) {
  Status status;
  Post([&] {
    if (calls_ == Calls::kTaken) {
      mail_.calls.push_back(std::move(call));
    } else if (calls_ == Calls::kNotYet) {
      status = Status(Code::kFailedPrecondition, "the worker does not serve yet");
    } else {
      status = Status(Code::kUnavailable, "worker stopping");
    }
  });
  return status;
}

void Mailbox::PostCancel(std::shared_ptr<LocalCall> call) {
  Post([&] { mail_.cancelled.push_back(std::move(call)); });
}

void Mailbox::AcceptCalls() {
  const std::lock_guard lock(mutex_);
  if (calls_ == Calls::kNotYet) calls_ = Calls::kTaken;
}

void Mailbox::RefuseCalls() {
  const std::lock_guard lock(mutex_);
  calls_ = Calls::kNoMore;
}

void Mailbox::Nudge() {
  Post([] {});
}

Mailbox::Mail Mailbox::Collect() {
  // What is posted just now wakes whoever collects.
  if (!has_mail_.load(std::memory_order_acquire)) return {};
  const std::lock_guard lock(mutex_);
  Mail mail;
  mail.runs = std::move(mail_.runs);
  mail.expired = std::move(mail_.expired);
  mail.out_of_memory = std::move(mail_.out_of_memory);
  mail.calls.swap(mail_.calls);
  mail.cancelled.swap(mail_.cancelled);
  last_run_ = nullptr;
  has_mail_.store(false);
  return mail;
}

void Mailbox::Close() {
  std::unique_lock lock(mutex_);
  closed_ = true;
  woken_.wait(lock, [&] { return waking_ == 0; });
}

}  // namespace mindserve::pipeline
