// When the last view of a request's bytes is gone, the gateway may use them again.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace mindserve::worker {

// The payloads that were let go by threads other than the runtime's. Shared by the runtime and by every payload, since
// a user's array may outlive the runtime. Thread-safe.
class Releases {
 public:
  struct Entry {
    size_t lane;
    uint64_t call;
  };
  // `wake` is called when there is something to take after there was nothing.
  explicit Releases(std::function<void()> wake) : wake_(std::move(wake)) {}

  void Put(Entry entry);
  // Swaps what there is into `entries`, which is cleared before.
  void Take(std::vector<Entry>* entries);
  // After this nothing is woken any more.
  void Close();

  // Bytes of requests that were answered while somebody still looks at them.
  size_t retained_bytes() const { return retained_bytes_.load(std::memory_order_relaxed); }

 private:
  friend class Payload;
  std::atomic<bool> has_entries_{false};  // changed under mutex_
  std::mutex mutex_;
  std::vector<Entry> entries_;  // guarded by mutex_
  std::function<void()> wake_;  // guarded by mutex_
  std::atomic<size_t> retained_bytes_{0};
};

// The bytes of one request, as the owner that its tensors hold.
class Payload {
 public:
  Payload(std::shared_ptr<Releases> releases, Releases::Entry entry, size_t bytes)
      : releases_(std::move(releases)), entry_(entry), bytes_(bytes) {}
  ~Payload();
  Payload(const Payload&) = delete;
  Payload& operator=(const Payload&) = delete;

  // The runtime thread has told the gateway itself: nothing is left to do.
  void MarkReleased() { released_ = true; }
  // The request is answered, and somebody still looks at its bytes.
  void MarkRetained();

 private:
  std::shared_ptr<Releases> releases_;
  const Releases::Entry entry_;
  const size_t bytes_;
  bool released_ = false;
  bool retained_ = false;
};

}  // namespace mindserve::worker
