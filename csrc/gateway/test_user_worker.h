// A worker for the tests of users' services: the real end of a real link, whose handlers are the test itself.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "gateway/gateway.h"
#include "link/worker_link.h"
#include "wire/call_head.h"

namespace mindserve::gateway {

class TestUserWorker {
 public:
  using Pairs = std::vector<std::pair<std::string, std::string>>;
  // A call, as the worker knows it.
  struct Seen {
    size_t lane = 0;
    uint64_t number = 0;
    uint16_t method = 0;
    uint64_t client = 0;
    int64_t deadline_ns = 0;
    std::string request_id, model_id, peer;
    Pairs metadata, auth;
    uint32_t depth = 0;
    std::vector<std::string> messages;
    bool half_closed = false;
    bool cancelled = false;
    size_t credits = 0;
  };

  // Attaches itself to the gateway.
  TestUserWorker(Gateway& gateway, uint64_t id, const std::string& servable, std::vector<WorkerSpec::Method> methods,
                 uint64_t version = 1, size_t reply_arena = 64 << 20);
  ~TestUserWorker() { Die(); }

  void Die();  // closes the link
  // From now on each call ends as soon as its client has sent all, with all of its messages as one.
  void Echo();

  size_t calls() const;
  // The n-th call that came, as it is now; waits for it.
  Seen Call(size_t n) const;
  // Waits until that is so.
  Seen Await(size_t n, const std::function<bool(const Seen&)>& holds) const;

  // What the n-th call's handler does.
  void Begin(size_t n);  // from now on it counts as begun
  // False: there is no reply memory.
  bool Reply(size_t n, std::string_view message, int flags = 0);
  void Initial(size_t n, const wire::MetadataView& metadata, bool gzip = false);
  void End(size_t n, Code code, std::string_view details = {}, const wire::MetadataView& trailing = {},
           int flags = link::kReleased);
  void EndInShort(size_t n, const Status& status);  // without a call end
  void Take(size_t n);                              // releases a message
  void Release(size_t n);
  void AwaitCredit(bool awaited);
  void Model(std::string_view id, bool loaded);
  // Anything else with the link.
  void Do(const std::function<void(link::WorkerLink&, const Seen*)>& task, size_t n);

  bool faulty() const { return faulty_; }
  bool ended() const { return ended_; }

 private:
  void Run();
  void Receive(size_t lane, const link::GatewayFrame& frame);
  void AnswerEcho(Seen& seen);

  link::StatsWriter stats_ = *link::StatsWriter::Create(std::vector{link::StageName{link::StageKind::kFunction, "f"}});
  UniqueFd socket_;
  UniqueFd command_;  // an eventfd
  std::atomic<bool> stop_{false};
  std::atomic<bool> faulty_{false};
  std::atomic<bool> ended_{false};
  mutable std::mutex mutex_;  // guards what follows
  bool echo_ = false;
  std::unique_ptr<link::WorkerLink> link_;
  std::vector<Seen> calls_;
  std::map<std::pair<size_t, uint64_t>, size_t> open_;  // places in calls_, by lane and number
  std::thread thread_;
};

}  // namespace mindserve::gateway
