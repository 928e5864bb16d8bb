#include "worker/releases.h"

namespace mindserve::worker {

void Releases::Put(Entry entry) {
  std::lock_guard lock(mutex_);
  const bool first = entries_.empty();
  entries_.push_back(entry);
  has_entries_.store(true);
  // Under the lock, so that Close means what it says; waking is one write to an eventfd.
  if (first && wake_) wake_();
}

void Releases::Take(std::vector<Entry>* entries) {
  entries->clear();
  if (!has_entries_.load(std::memory_order_acquire)) return;
  std::lock_guard lock(mutex_);
  entries->swap(entries_);
  has_entries_.store(false);
}

void Releases::Close() {
  std::lock_guard lock(mutex_);
  wake_ = nullptr;
}

Payload::~Payload() {
  if (retained_) releases_->retained_bytes_.fetch_sub(bytes_, std::memory_order_relaxed);
  if (!released_) releases_->Put(entry_);
}

void Payload::MarkRetained() {
  retained_ = true;
  releases_->retained_bytes_.fetch_add(bytes_, std::memory_order_relaxed);
}

}  // namespace mindserve::worker
