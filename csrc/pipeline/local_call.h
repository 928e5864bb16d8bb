// Calls of the engine's methods from inside the process: by stage functions, by handlers, by threads that a servable
// has started. Their instances go through the same queues as everybody's.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "base/unique_fd.h"
#include "pipeline/engine.h"
#include "tensor/tensor.h"

namespace mindserve::pipeline {

// For whom a thread calls.
struct LocalCaller {
  uint64_t client = 0;          // whose turn the instances take in the queues; 0: the worker's own
  TimePoint deadline = kNever;  // of what the caller is doing
  // The caller is a stage's function: what waits for its stage waits for this call, too.
  bool in_stage = false;
  // What is known of what the caller is doing; null: nothing. Shared with the call.
  std::shared_ptr<const RequestOrigin> origin = nullptr;
};

// Sets what the running thread's calls are made for, as long as it lives.
class CallerScope {
 public:
  explicit CallerScope(const LocalCaller& caller);
  ~CallerScope();
  CallerScope(const CallerScope&) = delete;
  CallerScope& operator=(const CallerScope&) = delete;

  // The innermost of this thread's; a caller of no special kind without one.
  static const LocalCaller& current();

 private:
  LocalCaller caller_;
  const LocalCaller* outer_;
};

class LocalCall;
class LocalCalls;

// Calls that are done, for a thread that watches a descriptor. Shared by that thread and the calls. Thread-safe.
class DoneCalls {
 public:
  static Result<std::shared_ptr<DoneCalls>> Create();

  // Readable while Take would give any.
  int fd() const { return event_.get(); }
  // Puts into `calls`, which is cleared before, what is done.
  void Take(std::vector<std::shared_ptr<LocalCall>>* calls);

 private:
  friend class LocalCall;
  friend class Engine;
  explicit DoneCalls(UniqueFd event) : event_(std::move(event)) {}
  // Makes room for a call, so that Put can't fail. Throws std::bad_alloc.
  void Expect();
  void ExpectNoMore();
  void Put(std::shared_ptr<LocalCall> call) noexcept;

  const UniqueFd event_;
  std::mutex mutex_;
  // Guarded by mutex_.
  size_t expected_ = 0;
  std::vector<std::shared_ptr<LocalCall>> calls_;
};

// One call, of one instance or many. Shared by the caller and, until it is done, the engine; whoever lets go of it
// early loses only the answer.
class LocalCall final : public std::enable_shared_from_this<LocalCall>, private ResultSink {
 public:
  struct Terms {
    int method = 0;        // what Engine::AddLocalMethod returned
    size_t instances = 1;  // at least 1
    size_t outputs = 1;    // that the method has
    LocalCaller caller = {};
    std::shared_ptr<DoneCalls> done = nullptr;  // who is told; null: nobody, somebody waits
    uint64_t tag = 0;                           // for who is told
  };
  // `inputs`: those of the first instance, then those of the second, and so on. Throws std::bad_alloc.
  LocalCall(Terms terms, std::vector<Tensor> inputs);
  ~LocalCall() override;
  LocalCall(const LocalCall&) = delete;
  LocalCall& operator=(const LocalCall&) = delete;

  size_t instances() const { return terms_.instances; }
  uint64_t tag() const { return terms_.tag; }

  // Whether it is done within `limit`; any thread.
  bool WaitFor(Duration limit);
  void Wait();

  // The rest once it is done: what was wrong with the first instance that failed, and which one that is;
  const Status& status() const { return status_; }
  size_t failed() const { return failed_; }
  // with status OK, what the method gave for an instance.
  std::span<Tensor> outputs(size_t instance);

 private:
  friend class Engine;
  friend class LocalCalls;

  void InstanceDone(uint32_t index, Status status, std::span<Tensor> outputs) override;
  void Finish();

  const Terms terms_;
  std::vector<Tensor> outputs_;
  Status status_;
  size_t failed_ = SIZE_MAX;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;  // guarded by mutex_

  // The runtime thread's.
  RequestContext context_;
  std::vector<Tensor> inputs_;
  size_t submitted_ = 0;
  size_t left_;  // not done
  TimePoint began_;
  LocalCalls* calls_ = nullptr;  // where it is known, from the first submission to the last result
  size_t place_ = 0;             // there
};

}  // namespace mindserve::pipeline
