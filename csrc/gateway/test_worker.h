// A worker for the tests: the real end of a real link, in a thread, with methods that do what tests need.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "gateway/gateway.h"
#include "link/worker_link.h"

namespace mindserve::gateway {

class TestWorker {
 public:
  // Its methods:
  //   add     y = x1 + x2, float32 of any shape, each instance for itself; one without x2 is an error of its own
  //   hold    as add, but not before Resume; meanwhile it is in a queue
  //   pause   as hold; meanwhile it is between two stages
  //   run     as hold; meanwhile it is executed
  //   later, once   as hold and run, but not idempotent
  //   end     ends the call with FAILED_PRECONDITION "this is the end"
  //   die     is executed, and closes the link without an answer
  //   rogue   answers a call that it does not hold
  //   big     one bytes tensor of as many MiB as x1's first element says
  // And one that `classifies` has the Classifier's, of the message that it gets:
  //   die     in it: as die
  //   hold    in it: as hold
  //   rogue   in it: the answer begins otherwise than the gateway expects
  //   else    the answer is the name "model", and the message itself
  // What is to be executed alone waits until all else that is executed is answered.
  static const std::vector<WorkerSpec::Method>& Methods();

  // Attaches itself to the gateway.
  TestWorker(Gateway& gateway, uint64_t id, const std::string& servable, uint64_t version = 1,
             size_t reply_arena = 256 << 20,
             std::chrono::milliseconds heartbeat_timeout = std::chrono::milliseconds(20'000), bool classifies = false);
  ~TestWorker();  // dies

  void Die();                        // closes the link
  void Freeze() { frozen_ = true; }  // from now on does nothing, as if its process were stopped
  void SayHung() { stats_.SayHung(0); }
  void Resume();                  // answers what is held, also what comes to be held later
  void Keep() { keeps_ = true; }  // from now on doesn't release the requests that it ends

  // What it has seen.
  size_t calls() const { return calls_; }
  size_t instances() const { return instances_; }
  size_t cancels() const { return cancels_; }
  size_t held() const { return held_count_; }
  size_t alone() const { return alone_; }  // calls that were to be executed alone
  // The first x1 of what it answered, in that order.
  std::vector<float> order() const {
    const std::lock_guard lock(mutex_);
    return order_;
  }
  int64_t last_deadline_ns() const { return last_deadline_ns_; }
  // What it was told of calls besides their requests: request id and depth.
  std::vector<std::pair<std::string, uint32_t>> heads() const {
    const std::lock_guard lock(mutex_);
    return heads_;
  }
  bool faulty() const { return faulty_; }
  bool ended() const { return ended_; }

 private:
  link::StatsWriter stats_ = *link::StatsWriter::Create(std::vector{link::StageName{link::StageKind::kFunction, "f"}});
  struct Held {
    size_t lane;
    link::GatewayFrame frame;
    bool executed;
  };
  void Run();
  void Take(size_t lane, const link::GatewayFrame& frame);
  void Answer(size_t lane, const link::GatewayFrame& frame);
  void Classify(size_t lane, const link::GatewayFrame& frame);
  void MarkExecuted();
  int released() const { return keeps_ ? 0 : link::kReleased; }

  UniqueFd socket_;
  UniqueFd command_;  // an eventfd
  std::atomic<bool> stop_{false};
  std::atomic<bool> resumed_{false};
  std::atomic<bool> keeps_{false};
  std::atomic<bool> frozen_{false};
  std::atomic<size_t> calls_{0}, instances_{0}, cancels_{0}, held_count_{0}, alone_{0};
  std::atomic<int64_t> last_deadline_ns_{0};
  std::atomic<bool> faulty_{false};
  std::atomic<bool> ended_{false};
  std::unique_ptr<link::WorkerLink> link_;
  std::vector<Held> held_;
  mutable std::mutex mutex_;
  // These two are guarded by mutex_.
  std::vector<float> order_;
  std::vector<std::pair<std::string, uint32_t>> heads_;
  std::thread thread_;
};

}  // namespace mindserve::gateway
