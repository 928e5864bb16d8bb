// Answers of a lane that wait for reply memory, and whose turn it is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <unordered_map>
#include <vector>

#include "link/worker_link.h"

namespace mindserve::worker {

// Clients, which are connections, take turns; a client's answers go in order. A client that has its share of the memory
// already is out of turn until some was given back, and in nobody's way: only its own answers wait behind it. One that
// the memory itself has no room for keeps its turn, and others wait, but for answers that take little of what there is.
//
// Calls are known by their numbers on the lane. Not thread-safe.
class AnswerLine {
 public:
  enum class Tried : uint8_t {
    kDone,       // it needs no memory any more
    kFull,       // there is no room
    kOverShare,  // the client has its share
    kTookShare,  // the same, of which it got some just now
  };
  // Of an answer that got no memory.
  static Tried WhyNot(const link::WorkerLink::Allocation& refused) {
    return refused.over_share ? Tried::kOverShare : Tried::kFull;
  }
  // So many tries a Retry: others are served in between.
  static constexpr size_t kMostTries = 64;

  AnswerLine() = default;
  AnswerLine(const AnswerLine&) = delete;
  AnswerLine& operator=(const AnswerLine&) = delete;

  bool empty() const { return calls_.empty(); }
  // Whether somebody's turn has come, for whom there was no room.
  bool full() const { return !turns_.empty(); }
  // Whether an answer of the client has to wait behind its others.
  bool Holds(uint64_t client) const { return !empty() && clients_.contains(client); }
  bool Contains(uint64_t call) const { return !empty() && calls_.contains(call); }

  // Behind the client's others. `why` it was refused; kFull, too, of one that was not tried. Not if it is there
  // already.
  void Push(uint64_t call, uint64_t client, Tried why = Tried::kFull);
  // False: it was not there.
  bool Remove(uint64_t call);

  // Tries those whose turn it is, one after the other, until there is no room. `releases`: how often something was
  // given back; those that have their share are tried when it changes. `attempt` leaves the line alone. True: some are
  // left to be tried at once.
  bool Retry(uint64_t releases, const std::function<Tried(uint64_t call)>& attempt);

  // Adds the calls of those clients that have had their share, and got nothing, ever since the last time this was
  // asked.
  void AddStuck(std::vector<uint64_t>* calls);

 private:
  struct Client {
    uint64_t number;
    bool rests;          // in resting_, else in turns_
    bool stuck = false;  // nothing of it went since AddStuck found it resting
    std::list<uint64_t> calls;
  };
  using Clients = std::list<Client>;
  struct Place {
    Clients::iterator client;
    std::list<uint64_t>::iterator call;
  };

  void Forget(Clients::iterator client);
  void WakeNext();

  // Whose turn it is comes first.
  Clients turns_;
  Clients resting_;
  std::unordered_map<uint64_t, Clients::iterator> clients_;  // by number
  std::unordered_map<uint64_t, Place> calls_;
  uint64_t releases_ = 0;  // last seen
  size_t to_wake_ = 0;     // of resting_, from the front: not tried since
};

}  // namespace mindserve::worker
