// The runtime thread's table of calls of users' services: what the gateway says about them goes in, what their handlers
// put out goes to the gateway. Everything here belongs to the runtime thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/stage_stats.h"
#include "link/worker_link.h"
#include "worker/answer_line.h"
#include "worker/handlers.h"
#include "worker/service_call.h"

namespace mindserve::worker {

class ServiceCalls {
 public:
  // The link outlives it. A message of more than `max_message_bytes` can't be sent. `stats` has an entry for each
  // handler, which outlives it, too.
  ServiceCalls(link::WorkerLink& link, std::shared_ptr<Handlers> handlers, size_t max_message_bytes,
               std::vector<StageStats*> stats);
  // Cancels all calls: nothing looks at the request arenas any more.
  ~ServiceCalls();
  ServiceCalls(const ServiceCalls&) = delete;
  ServiceCalls& operator=(const ServiceCalls&) = delete;

  // What the gateway said about a call, of which it may not know yet that it has ended.
  void Open(size_t lane, const link::GatewayFrame& frame, int handler, TimePoint now);
  bool Contains(size_t lane, uint64_t call) const { return calls_[lane].contains(call); }
  void Message(size_t lane, const link::GatewayFrame& frame);
  void Cancel(size_t lane, uint64_t call);
  void Credit(size_t lane, uint64_t call);

  // Sends what handlers have put out, at the end of a round. Lanes of which `starves` says so get nothing that needs
  // memory: others wait for it already. When it wants to be called again (a time that has passed: at once).
  TimePoint Poll(TimePoint now, const std::function<bool(size_t)>& starves);
  // Whether there is no room for an answer of this lane, but for streams, which others need not wait behind; lacks: for
  // any.
  bool full(size_t lane) const { return starved_[lane].answers.full(); }
  bool lacks(size_t lane) const { return full(lane) || starved_[lane].streams.full(); }
  // Adds the calls of this lane that have waited for their clients' shares since it was last asked.
  void AddStuck(size_t lane, std::vector<uint64_t>* calls) {
    starved_[lane].answers.AddStuck(calls);
    starved_[lane].streams.AddStuck(calls);
  }
  // Whether anything of this lane waits for reply memory.
  bool starved(size_t lane) const {
    return !starved_[lane].answers.empty() || !starved_[lane].streams.empty() || !models_.empty();
  }

 private:
  struct Record {
    std::shared_ptr<ServiceCall> call;  // shared with the executor
    ServiceCall::Outgoing out;
    size_t sent = 0;                 // of out's messages
    std::optional<link::Slab> slab;  // for the next message, a large one, that is being copied
    size_t copied = 0;
    bool copies = false;            // in copying_
    bool waits_for_credit = false;  // counted in waiting_
  };
  using Table = std::unordered_map<uint64_t, Record>;
  enum class Sent : uint8_t { kAll, kCopying, kFull, kOverShare };

  // Calls that wait for reply memory.
  struct Starved {
    AnswerLine answers, streams;
  };
  static bool Streams(const Record& record) { return record.call->spec().server_streaming; }
  AnswerLine& LineOf(size_t lane, const Record& record) {
    return Streams(record) ? starved_[lane].streams : starved_[lane].answers;
  }
  // Whether some are left to be tried at once.
  bool SendStarved(size_t lane, AnswerLine& line);
  void Collect();
  // `others_wait`: for room in the lane.
  void SendOrWait(size_t lane, uint64_t number, Record& record, bool others_wait);
  AnswerLine::Tried Send(size_t lane, uint64_t number, Record& record, bool others_wait);
  Sent TrySend(size_t lane, uint64_t number, Record& record, bool others_wait);
  Sent SendMessage(size_t lane, uint64_t number, Record& record, int flags, bool others_wait);
  static void EndTooLarge(Record& record);
  void EndWith(size_t lane, Table::iterator found, const Status& status);
  void EndCancelled(size_t lane, Table::iterator found, const Status& status);
  void EndResting();
  void EndDismissed(size_t lane, Table::iterator found, bool rested);
  TimePoint TellOfResting(TimePoint now);
  void Count(const ServiceCall& call, const ServiceCall::End& end);
  void Forget(size_t lane, Table::iterator found);
  void SetWaiting(size_t lane, Record& record, bool waits);
  void SendModels();
  Record* Find(size_t lane, uint64_t call);

  link::WorkerLink& link_;
  const std::shared_ptr<Handlers> handlers_;  // shared as Handlers says
  const size_t max_message_bytes_;
  const std::vector<StageStats*> stats_;  // by handler
  std::vector<Table> calls_;              // by lane
  std::vector<Starved> starved_;          // by lane
  std::vector<size_t> waiting_;           // by lane: calls that wait for credit
  struct Entry {
    size_t lane;
    uint64_t call;
  };
  std::deque<Entry> copying_;  // calls whose large messages are copied a step at a time, whose turn it is first
  std::vector<std::shared_ptr<ServiceCall>> posted_;
  Handlers::Models posted_models_;
  std::vector<Handlers::Resting> resting_;
  // Calls that were ended for their threads, of which the log was not told yet.
  std::set<std::string> rested_;
  size_t rested_count_ = 0;
  TimePoint next_rested_told_;
  std::deque<std::pair<size_t, std::pair<std::string, bool>>> models_;  // to be told, by lane
};

}  // namespace mindserve::worker
