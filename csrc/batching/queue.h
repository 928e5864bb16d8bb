// The queue before a stage: who goes next, with whom, and when.
//
// Clients take turns; within a client the earliest deadline goes first, and having none counts as a deadline a second
// after arrival. The turn decides who leads a batch and so its key; others join it in the order of their turns, those
// with another key keep theirs and so lead soon. What has expired is dropped on the way, and so is, while more wait
// than a batch holds, what would have by the end of a run a little longer than the shortest of late, or nearly.
//
// A batch goes when it is full, or when its oldest member has waited the window; with a window of zero, at once.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "batching/batch_key.h"
#include "batching/client_queue.h"
#include "batching/item.h"
#include "batching/recent_runs.h"

namespace mindserve::batching {

struct QueueOptions {
  size_t max_batch_size = 1;         // at least 1
  Duration max_queue_delay{0};       // the window
  std::optional<BatchKey> key = {};  // nothing: any may share a batch with any
  Duration turn{0};                  // as many at a time as about this suffices for, at least one; 0: max_batch_size
};

// What counts as the deadline of an item that has none, from its arrival on.
inline constexpr Duration kAssumedPatience = std::chrono::seconds(1);

// What a taker gets. Chains in the order in which they were taken.
struct Taken {
  ItemList batch;
  ItemList expired;          // past their deadlines
  size_t left = 0;           // in the queue, when these were taken
  TimePoint again = kNever;  // without a batch: when there will be one if nothing is pushed (kNever: not so)
  bool closed = false;
};

// How a queue stands.
struct Standing {
  size_t waiting = 0;  // items, without those that go alone
  bool alone = false;  // one that goes alone waits
  bool paused = false;
  uint64_t batches = 0;  // taken so far, without those of what went alone
};

// Thread-safe. Borrows its items: see Item.
class Queue {
 public:
  // `time` outlives the queue.
  Queue(const TimeSource& time, QueueOptions options);
  // Nothing may be waiting in Take. Items left behind are forgotten.
  ~Queue();
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  const QueueOptions& options() const { return options_; }

  // For who pushes, whose own it is: how many it has pushed and not got back.
  size_t inside = 0;

  // Adds an item that arrives now. Wakes nobody, so that a burst can become one batch: see Announce. False after Close:
  // the item stays the caller's. Throws std::bad_alloc, and then has done nothing.
  bool Push(Item& item, TimePoint arrival);
  // For an item that nothing else is to be executed with: be it paused or not, a batch of it and nothing else goes
  // before all others but those of earlier such. False after Close.
  bool PushAlone(Item& item, TimePoint arrival);
  // Wakes a waiting Take if there is something to look at.
  void Announce();

  // What would go now.
  Taken TryTake();
  // The same, waiting for a batch or for something that has expired. `closed` after Close.
  Taken Take();

  // Takes the item out. False if it is no longer in the queue: a taker has it.
  bool Remove(Item& item);

  // Takes out what has expired, without a taker. `*again`: when to ask again; not before a hundredth of a second is
  // over.
  ItemList DropExpired(TimePoint* again);

  // Between the two nothing is taken but what was pushed alone.
  void Pause();
  void Resume();

  // A batch of so many instances took so long.
  void NoteRun(Duration run, size_t instances);
  // How long it takes about until `instances` that `client` pushes now are done, if all clients go on taking turns and
  // runs take what they took. Zero before the first run.
  Duration EstimateWait(uint64_t client, size_t instances) const;

  // Ends every Take, now and later, and refuses every Push. What is queued stays for Drain.
  void Close();
  ItemList Drain();

  // With those that go alone.
  size_t size() const;
  Standing standing() const;

 private:
  // When a batch is chosen: by which time, and what is too late by then.
  struct Choice {
    TimePoint now;
    TimePoint late;  // deadlines up to this one are missed
    size_t full;     // how many make a full batch
    bool crowded;    // more waits than that
  };
  static bool TooLate(const Item& item, const Choice& choice);
  Taken TakeNow(TimePoint now);
  Taken TakeAlone(TimePoint now);
  template <typename Leaves>
  ItemList RemoveAlone(Leaves leaves);
  size_t Full() const;
  Item* ChooseLeader(const Choice& choice, Taken* taken);
  Item* ChooseAmongWaiting(Item& in_turn, const Choice& choice, Taken* taken);
  void Fill(Group& group, const Choice& choice, Taken* taken);
  Item* Front(ClientQueue& client, const Choice& choice, Taken* taken);
  Item* Member(ClientQueue& client, Group& group, const Choice& choice, size_t* budget, Taken* taken);

  ClientQueue& FindClient(uint64_t id);
  void Retire(ClientQueue& client);
  Group& FindGroup(const Item& item);
  void JoinGroup(Item& item, Group& group);
  void LeaveGroup(Item& item);
  void Forget(Item& item);
  void Unlink(Item& item);

  const TimeSource& time_;
  const QueueOptions options_;

  mutable std::mutex mutex_;
  std::condition_variable pushed_;
  // All below is guarded by mutex_.
  bool closed_ = false;
  bool paused_ = false;
  ItemList alone_;
  uint64_t batches_ = 0;
  RecentRuns runs_;
  size_t waiting_ = 0;  // threads in Take
  size_t size_ = 0;
  uint64_t pushes_ = 0;

  std::unordered_map<uint64_t, ClientQueue> clients_;
  ClientQueue* last_client_ = nullptr;  // of the last push: the next one often has the same
  ClientList turns_;                    // clients with work, whose turn it is first
  ClientList idle_;                     // clients without, longest without first; kept since they mostly come back

  std::vector<std::unique_ptr<Group>> all_groups_;
  std::unordered_map<uint64_t, Group*> groups_;  // by hash; more of the same hash are chained
  Group* active_groups_ = nullptr;
  Group* free_groups_ = nullptr;

  size_t with_deadline_ = 0;
  TimePoint may_expire_ = kNever;  // nothing expires before
  TimePoint last_sweep_{};
};

}  // namespace mindserve::batching
