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

// Clients, which are connections, take turns. First comes the one whose calls hold the fewest threads, among such the
// one that was served longest ago; of its calls the oldest. So who fills the line, or holds all threads, is in nobody's
// way once a thread is free.
//
// Not thread-safe: guarded by the lock of its Handlers.
class CallLine {
 public:
  // Of what its clients make, streams that may send more are apart: their clients can keep a thread waiting. All other
  // calls are whole, as are those that another servable makes, since its handlers wait for them.
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
  // Back to where it stood when it was taken.
  void PutBack(std::shared_ptr<ServiceCall> call);
  // Out of the line, in which it is.
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
  // What a client has, which is nothing for most.
  struct Share {
    size_t held = 0;
    size_t waiting = 0;
  };
  Share Of(uint64_t client) const;
  // What each client may hold of so many threads if those that have or want some get the same; at least 1.
  size_t FairShare(size_t threads) const;
  // Calls, up to `most`, that clients with less than `share` lack, of those whose oldest came at `since` or before.
  size_t Lacking(size_t share, TimePoint since, size_t most) const;

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
    size_t held;
    uint64_t number;
    auto operator<=>(const Turn&) const = default;
  };
  struct Client {
    size_t held = 0;
    // By kind.
    std::array<List<&Place::by_client>, 2> calls{};
    std::array<size_t, 2> waiting{};
    std::array<Turn, 2> turns{};  // where there are calls
  };
  using Clients = std::unordered_map<uint64_t, Client>;
  using Turns = std::map<Turn, Client*>;
  using Arrivals = List<&Place::by_depth>;

  Arrivals& ArrivalsOf(const ServiceCall& call);
  void SetTurn(Client& client, Kind kind, Turn turn);
  void SetHeld(Client& client, size_t held);
  void Count(const ServiceCall& call, size_t change);
  void ForgetIfIdle(Clients::iterator client);

  Clients clients_;             // that have calls here or hold threads
  std::array<Turns, 2> turns_;  // by kind: clients that have such calls here
  uint64_t last_turn_ = 0;
  std::array<size_t, 2> size_{};
  size_t inner_ = 0;
  // As they came: streams, and others by depth.
  Arrivals streams_;
  std::array<Arrivals, wire::kMostDepth + 1> whole_;
};

}  // namespace mindserve::worker
