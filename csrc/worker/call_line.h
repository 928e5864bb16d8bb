// Calls that wait for a handler thread, and whose turn it is.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <unordered_map>

#include "base/clock.h"
#include "wire/call_head.h"

namespace mindserve::worker {

class ServiceCall;

// Clients, which are connections, take turns. A client's next turn comes as many takes later as it holds threads, and
// one more; of its calls the oldest goes. So who fills the line, or holds all threads, is in nobody's way once a thread
// is free, and nobody waits for ever.
//
// Not thread-safe: guarded by the lock of its Handlers.
class CallLine {
 public:
  // Calls whose clients stream are apart, unless these have sent all by then: their clients can keep a thread waiting.
  // All others are whole, as are those that another servable makes, whose handlers wait for them.
  enum Kind : uint8_t { kWhole, kStream };

  // Where a call stands; a member of it.
  struct Place {
    std::shared_ptr<ServiceCall> self;  // as long as it is in line
    TimePoint since{};                  // it is there
    Kind kind = kWhole;
    struct Links {
      ServiceCall* before = nullptr;
      ServiceCall* after = nullptr;
    };
    Links by_client{};
    Links by_depth{};
  };

  CallLine() = default;
  CallLine(const CallLine&) = delete;
  CallLine& operator=(const CallLine&) = delete;
  ~CallLine();

  void Push(std::shared_ptr<ServiceCall> call, Kind kind, TimePoint now);
  // To the front of its client's calls, and of those of its depth, since when it stood there before.
  void PutBack(std::shared_ptr<ServiceCall> call);
  // Out of the line, in which it is. A thread that will hold it has said so before.
  std::shared_ptr<ServiceCall> Take(ServiceCall& call);
  static bool Contains(const ServiceCall& call);

  size_t size() const { return whole() + size_[kStream]; }
  size_t whole() const { return size_[kWhole]; }
  size_t inner() const { return inner_; }  // of these with a depth
  // Whose turn it is; `streams`: a stream's, too. Null: nobody's.
  ServiceCall* Next(bool streams) const;
  // The one that has waited longest, likewise.
  const ServiceCall* Oldest(bool streams) const;
  // The same of a depth from 1 on.
  ServiceCall* OldestOf(size_t depth) const;

  // A thread takes a call of the client, or lets go of it.
  void Hold(uint64_t client);
  void LetGo(uint64_t client);
  // What a client has. `waiting`: calls, if its oldest is there since then, or longer; else none.
  struct Share {
    size_t held = 0;
    size_t waiting = 0;
  };
  Share Of(uint64_t client, TimePoint since) const;
  // What each client may hold of so many threads if those that have or want some get the same; at least 1.
  size_t FairShare(size_t threads) const;
  // How many threads clients with less than `share` lack for calls of which each one's oldest is there since then, or
  // longer. Up to `most`.
  struct Lack {
    size_t for_whole = 0;
    size_t for_all = 0;
  };
  Lack Lacking(size_t share, TimePoint since, size_t most) const;

 private:
  template <Place::Links Place::* kLinks>
  struct List {
    ServiceCall* front = nullptr;
    ServiceCall* back = nullptr;
    void PushBack(ServiceCall& call);
    void PushFront(ServiceCall& call);
    void Remove(ServiceCall& call);
  };
  // Less is sooner.
  struct Turn {
    uint64_t due;     // in takes
    uint64_t number;  // of equals, who was given it first
    auto operator<=>(const Turn&) const = default;
  };
  struct Client;
  using Turns = std::map<Turn, Client*>;
  struct Client {
    struct Queue {
      List<&Place::by_client> calls{};
      size_t size = 0;
      Turns::iterator turn{};      // where there are calls
      Turns::node_type no_turn{};  // else, to be used again
    };
    size_t held = 0;
    std::array<Queue, 2> queues{};  // by kind
    bool idle() const { return held == 0 && queues[kWhole].size + queues[kStream].size == 0; }
  };
  using Clients = std::unordered_map<uint64_t, Client>;
  using Arrivals = List<&Place::by_depth>;

  Arrivals& ArrivalsOf(const ServiceCall& call);
  Turn NextTurn(const Client& client);
  Client& Find(uint64_t client);
  void NoteIdle(const Client& client);
  void Count(const ServiceCall& call, size_t change);

  Clients clients_;             // that have calls here or hold threads, and some that had, since they mostly come back
  size_t idle_ = 0;             // of these
  std::array<Turns, 2> turns_;  // by kind: clients that have such calls here
  uint64_t takes_ = 0;
  uint64_t last_turn_ = 0;
  std::array<size_t, 2> size_{};
  size_t inner_ = 0;
  // As they came: streams, and others by depth.
  Arrivals streams_;
  std::array<Arrivals, wire::kMostDepth + 1> whole_;
};

}  // namespace mindserve::worker
