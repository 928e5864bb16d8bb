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
