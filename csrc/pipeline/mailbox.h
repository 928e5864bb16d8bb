// What other threads have for the runtime thread: function and model threads what became of batches, any thread calls.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/status.h"
#include "batching/item.h"
#include "pipeline/engine.h"
#include "pipeline/instance.h"
#include "pipeline/local_call.h"

namespace mindserve::pipeline {

class ModelStage;

// A batch that a taker has, and what became of it.
struct Run {
  std::vector<batching::Item*> items;   // all are Instances
  Status status;                        // of the batch as a whole; OK: see the others
  std::vector<Status> failures;         // of a model, by item; empty: none failed
  std::vector<FunctionResult> results;  // of a function, by item; a model's outputs are in the items
  ModelStage* hands_back = nullptr;     // a model whose turn is the runtime thread's again

 private:
  friend class Mailbox;
  std::unique_ptr<Run> next_;
};

// Thread-safe. Posting what became of a batch can't fail.
class Mailbox {
 public:
  struct Mail {
    std::unique_ptr<Run> runs;  // the first; see Next
    batching::ItemList expired;
    batching::ItemList out_of_memory;  // taken, but there was no memory to run them
    std::vector<std::shared_ptr<LocalCall>> calls;
    std::vector<std::shared_ptr<LocalCall>> cancelled;  // calls; of which it may not have heard yet, or has any more

    // The first run, taken off; null if there is none.
    std::unique_ptr<Run> NextRun();
  };

  // `wake` is called on the posting thread, under no lock, when there is mail after there was none.
  explicit Mailbox(std::function<void()> wake);
  ~Mailbox();
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  void PostRun(std::unique_ptr<Run> run);
  void PostExpired(batching::ItemList items);
  void PostOutOfMemory(batching::ItemList items);
  // FAILED_PRECONDITION before AcceptCalls, UNAVAILABLE after RefuseCalls. Throws std::bad_alloc, as does the next.
  Status PostCall(std::shared_ptr<LocalCall> call);
  void PostCancel(std::shared_ptr<LocalCall> call);
  void AcceptCalls();
  // What was posted before is still collected.
  void RefuseCalls();
  // Wakes as if there were mail.
  void Nudge();

  // All there is, runs in the order of posting.
  Mail Collect();

  // Waits for the calls of `wake` under way; after it there are none.
  void Close();

 private:
  template <typename Add>
  void Post(Add add);

  const std::function<void()> wake_;
  std::atomic<bool> has_mail_{false};  // changed under mutex_
  std::mutex mutex_;
  std::condition_variable woken_;
  // Guarded by mutex_.
  Mail mail_;
  Run* last_run_ = nullptr;
  enum class Calls : uint8_t { kNotYet, kTaken, kNoMore } calls_ = Calls::kNotYet;
  bool closed_ = false;
  size_t waking_ = 0;
};

// For what may outlive the engine and has to do with what the engine does not own. Thread-safe.
class Lifetime {
 public:
  // `act` under a lock that keeps the engine alive; not if it is gone.
  template <typename Act>
  void While(Act act) {
    const std::lock_guard lock(mutex_);
    if (lives_) act();
  }
  void End() {
    const std::lock_guard lock(mutex_);
    lives_ = false;
  }

 private:
  std::mutex mutex_;
  bool lives_ = true;  // guarded by mutex_
};

// What outlives an engine as long as a function still has a batch of it. Shared by the engine and its function batches.
struct Shared {
  explicit Shared(std::function<void()> wake) : mailbox(std::move(wake)) {}
  InstancePool pool;
  Mailbox mailbox;
  Lifetime engine_lives;
};

}  // namespace mindserve::pipeline
