#include "batching/queue.h"

#include <algorithm>
#include <utility>

namespace mindserve::batching {

// Items of one key, by arrival.
struct Group {
  uint64_t hash = 0;
  size_t size = 0;
  Item* oldest = nullptr;
  Item* newest = nullptr;
  Group* same_hash = nullptr;  // the next with this hash, or the next free one
  Group* previous = nullptr;   // among the groups that have items
  Group* next = nullptr;

  bool OldestWaited(TimePoint now, Duration window) const { return now - oldest->arrival_ >= window; }
};

namespace {

// How many items that can't join are looked at for one batch: bounds what a mix of shapes costs.
constexpr size_t kLookAhead = 256;
// Clients that are remembered while they have nothing queued.
constexpr size_t kIdleClients = 1024;
constexpr Duration kSweepInterval = std::chrono::milliseconds(10);

TimePoint After(TimePoint from, Duration by) {
  return from > kNever - by ? kNever : from + by;
}

}  // namespace

Queue::Queue(const TimeSource& time, QueueOptions options) : time_(time), options_(std::move(options)) {}

Queue::~Queue() = default;

bool Queue::Push(Item& item, TimePoint arrival) {
  item.key_hash_ = options_.key ? options_.key->Hash(item.tensors) : 0;
  item.arrival_ = arrival;
  item.due_ = item.deadline == kNever ? After(arrival, kAssumedPatience) : item.deadline;

  const std::lock_guard lock(mutex_);
  if (closed_) return false;
  ClientQueue& client = FindClient(item.client);
  client.Reserve();
  Group& group = FindGroup(item);
  // From here on nothing fails.
  item.sequence_ = pushes_++;
  item.waits_in_ = &client;
  if (client.empty()) client.MoveTo(turns_);
  client.Push(item);
  JoinGroup(item, group);
  ++size_;
  if (item.deadline != kNever) {
    ++with_deadline_;
    may_expire_ = std::min(may_expire_, item.deadline);
  }
  return true;
}

bool Queue::PushAlone(Item& item, TimePoint arrival) {
  item.arrival_ = arrival;
  const std::lock_guard lock(mutex_);
  if (closed_) return false;
  alone_.Append(item);
  return true;
}

void Queue::Announce() {
  {
    const std::lock_guard lock(mutex_);
    if (waiting_ == 0 || (alone_.empty() && (size_ == 0 || paused_))) return;
  }
  pushed_.notify_one();
}

Taken Queue::TryTake() {
  const std::lock_guard lock(mutex_);
  if (closed_ || (alone_.empty() && (size_ == 0 || paused_))) {
    Taken nothing;
    nothing.closed = closed_;
    return nothing;
  }
  return TakeNow(time_.Now());
}

Taken Queue::Take() {
  std::unique_lock lock(mutex_);
  for (;;) {
    Taken taken;
    if (closed_) {
      taken.closed = true;
      return taken;
    }
    const TimePoint now = time_.Now();
    taken = TakeNow(now);
    if (!taken.batch.empty() || !taken.expired.empty()) {
      // One Announce wakes one taker: who leaves something behind wakes the next.
      const bool pass_on = (size_ > 0 || !alone_.empty()) && waiting_ > 0;
      lock.unlock();
      if (pass_on) pushed_.notify_one();
      return taken;
    }
    ++waiting_;
    if (taken.again == kNever) {
      pushed_.wait(lock);
    } else {
      pushed_.wait_for(lock, taken.again - now);
    }
    --waiting_;
  }
}

// They are few: a request's that is executed alone, and what its functions call.
template <typename Leaves>
ItemList Queue::RemoveAlone(Leaves leaves) {
  ItemList removed;
  ItemList kept;
  while (Item* item = alone_.Pop()) (leaves(*item) ? removed : kept).Append(*item);
  alone_ = std::move(kept);
  return removed;
}

bool Queue::Remove(Item& item) {
  const std::lock_guard lock(mutex_);
  if (item.waits_in_ != nullptr) {
    Unlink(item);
    return true;
  }
  return !RemoveAlone([&](const Item& waiting) { return &waiting == &item; }).empty();
}

ItemList Queue::DropExpired(TimePoint* again) {
  ItemList expired;
  const std::lock_guard lock(mutex_);
  *again = kNever;
  const TimePoint now = time_.Now();
  expired.Append(RemoveAlone([&](const Item& item) {
    if (item.deadline > now) *again = std::min(*again, item.deadline);
    return item.deadline <= now;
  }));
  if (with_deadline_ == 0) return expired;
  const TimePoint earliest = std::max(may_expire_, After(last_sweep_, kSweepInterval));
  if (now < earliest) {
    *again = std::min(*again, earliest);
    return expired;
  }
  last_sweep_ = now;
  may_expire_ = kNever;
  for (ClientQueue* client = turns_.front(); client != nullptr;) {
    ClientQueue* following = client->next;
    const TimePoint next = client->RemoveExpired(now, [&](Item& item) {
      Forget(item);
      expired.Append(item);
    });
    may_expire_ = std::min(may_expire_, next);
    if (client->empty()) Retire(*client);
    client = following;
  }
  if (with_deadline_ > 0) *again = std::min(*again, std::max(may_expire_, now + kSweepInterval));
  return expired;
}

void Queue::Pause() {
  const std::lock_guard lock(mutex_);
  paused_ = true;
}

void Queue::Resume() {
  {
    const std::lock_guard lock(mutex_);
    paused_ = false;
    if (waiting_ == 0 || size_ == 0) return;
  }
  pushed_.notify_one();
}

void Queue::NoteRun(Duration run, size_t instances) {
  const std::lock_guard lock(mutex_);
  runs_.Add(run, instances);
}

Duration Queue::EstimateWait(uint64_t client, size_t instances) const {
  const std::lock_guard lock(mutex_);
  const auto found = clients_.find(client);
  const size_t own = found == clients_.end() ? 0 : found->second.size();
  const size_t clients = turns_.size() + (own == 0 ? 1 : 0);
  const size_t served = std::min(size_ + instances, (own + instances) * clients);
  const size_t full = Full();
  return runs_.average() * static_cast<int64_t>((served + full - 1) / full);
}

void Queue::Close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  pushed_.notify_all();
}

ItemList Queue::Drain() {
  ItemList all;
  const std::lock_guard lock(mutex_);
  all.Append(std::move(alone_));
  while (!turns_.empty()) {
    Item& item = *turns_.front()->Front();
    Unlink(item);
    all.Append(item);
  }
  return all;
}

size_t Queue::size() const {
  const std::lock_guard lock(mutex_);
  return size_ + alone_.size();
}

Standing Queue::standing() const {
  const std::lock_guard lock(mutex_);
  return {.waiting = size_, .alone = !alone_.empty(), .paused = paused_, .batches = batches_};
}

size_t Queue::Full() const {
  if (options_.turn <= Duration::zero()) return options_.max_batch_size;
  if (runs_.average() == Duration::zero()) return 1;
  const auto of_one = std::max<int64_t>(runs_.of_one().count(), 1);
  return std::clamp<size_t>(static_cast<size_t>(options_.turn.count() / of_one), 1, options_.max_batch_size);
}

Taken Queue::TakeNow(TimePoint now) {
  if (!alone_.empty()) return TakeAlone(now);
  Taken taken;
  if (paused_) return taken;
  Choice choice{.now = now, .late = now, .full = Full(), .crowded = false};
  // Who comes too late would take the place of one that does not. A run is seldom the shortest, and its results have
  // some way to go: see TooLate.
  if (size_ > choice.full && runs_.shortest() > Duration::zero()) {
    choice.late = After(now, runs_.shortest() * 5 / 4);
    choice.crowded = true;
  }
  Item* leader = ChooseLeader(choice, &taken);
  if (leader == nullptr) return taken;
  // Who leads had its turn: to the end of the line, behind those whom it is about to be joined by.
  Group& group = *leader->group_;
  ClientQueue& client = *leader->waits_in_;
  Unlink(*leader);
  taken.batch.Append(*leader);
  if (!client.empty()) client.MoveTo(turns_);
  Fill(group, choice, &taken);
  taken.left = size_;
  ++batches_;
  return taken;
}

Taken Queue::TakeAlone(TimePoint now) {
  Taken taken;
  Item& item = *alone_.Pop();
  (item.deadline <= now ? taken.expired : taken.batch).Append(item);
  taken.left = alone_.size() + (paused_ ? 0 : size_);
  return taken;
}

Item* Queue::ChooseLeader(const Choice& choice, Taken* taken) {
  while (!turns_.empty()) {
    Item* first = Front(*turns_.front(), choice, taken);
    if (first == nullptr) continue;
    if (options_.max_queue_delay <= Duration::zero()) return first;
    return ChooseAmongWaiting(*first, choice, taken);
  }
  return nullptr;
}

// While others wait for its place, an item is late already if no more than an eighth of the time that it was given here
// is left besides the run: its client's deadline is as much earlier than ours as the call took to come, and the answer
// has the same way back. How long that is nobody here knows; who gives a deadline has reckoned with it.
bool Queue::TooLate(const Item& item, const Choice& choice) {
  if (item.deadline <= choice.late) return true;
  if (!choice.crowded || item.deadline == kNever) return false;
  return item.deadline - (item.deadline - item.arrival_) / 8 <= choice.late;
}

Item* Queue::ChooseAmongWaiting(Item& in_turn, const Choice& choice, Taken* taken) {
  const Duration window = options_.max_queue_delay;
  if (in_turn.group_->size >= choice.full || in_turn.group_->OldestWaited(choice.now, window)) return &in_turn;
  // The first in turn may still wait: others go before it if they need not.
  Item* oldest = nullptr;
  for (Group* group = active_groups_; group != nullptr;) {
    Group* following = group->next;
    while (group->size > 0 && TooLate(*group->oldest, choice)) {
      Item& item = *group->oldest;
      const bool last = group->size == 1;
      Unlink(item);
      taken->expired.Append(item);
      if (last) break;  // the group is gone
    }
    if (group->size > 0) {
      if (group->size >= choice.full) return group->oldest;
      if (oldest == nullptr || group->oldest->arrival_ < oldest->arrival_) oldest = group->oldest;
    }
    group = following;
  }
  if (oldest == nullptr) return nullptr;
  const TimePoint goes = After(oldest->arrival_, window);
  if (goes <= choice.now) return oldest;
  taken->again = goes;
  return nullptr;
}

void Queue::Fill(Group& group, const Choice& choice, Taken* taken) {
  // The group may be on the free list by the time it is empty; nothing is pushed meanwhile, so that its size stays 0.
  size_t budget = kLookAhead;
  const auto wants_more = [&] { return taken->batch.size() < choice.full && group.size > 0 && budget > 0; };
  ClientList joined;  // clients that have joined and have more
  const auto join = [&](ClientQueue& client) {
    Item* item = Member(client, group, choice, &budget, taken);
    if (item == nullptr) return false;
    Unlink(*item);
    taken->batch.Append(*item);
    if (!client.empty()) client.MoveTo(joined);
    return true;
  };

  for (ClientQueue* client = turns_.front(); client != nullptr && wants_more();) {
    ClientQueue* following = client->next;
    join(*client);
    client = following;
  }
  while (!joined.empty() && wants_more()) {
    ClientQueue& client = *joined.front();
    if (!join(client) && !client.empty()) client.MoveTo(turns_);
  }
  while (!joined.empty()) joined.front()->MoveTo(turns_);
}

// The client's next item. Null if all that it had has expired.
Item* Queue::Front(ClientQueue& client, const Choice& choice, Taken* taken) {
  for (;;) {
    Item* item = client.Front();
    if (item == nullptr || !TooLate(*item, choice)) return item;
    Unlink(*item);
    taken->expired.Append(*item);
  }
}

Item* Queue::Member(ClientQueue& client, Group& group, const Choice& choice, size_t* budget, Taken* taken) {
  for (;;) {
    Item* item = client.FindMember(&group, budget);
    if (item == nullptr || !TooLate(*item, choice)) return item;
    Unlink(*item);
    taken->expired.Append(*item);
  }
}

ClientQueue& Queue::FindClient(uint64_t id) {
  if (last_client_ != nullptr && last_client_->id == id) return *last_client_;
  const auto [found, is_new] = clients_.try_emplace(id);
  ClientQueue& client = found->second;
  if (is_new) {
    client.id = id;
    idle_.PushBack(client);
  }
  last_client_ = &client;
  return client;
}

void Queue::Retire(ClientQueue& client) {
  client.MoveTo(idle_);
  client.Shrink();
  if (idle_.size() <= kIdleClients) return;
  ClientQueue& forgotten = *idle_.front();
  idle_.Remove(forgotten);
  if (last_client_ == &forgotten) last_client_ = nullptr;
  clients_.erase(forgotten.id);
}

Group& Queue::FindGroup(const Item& item) {
  if (!options_.key) {
    if (all_groups_.empty()) all_groups_.push_back(std::make_unique<Group>());
    return *all_groups_.front();
  }
  Group*& with_hash = groups_[item.key_hash_];
  for (Group* group = with_hash; group != nullptr; group = group->same_hash) {
    if (group->size > 0 && options_.key->Same(group->oldest->tensors, item.tensors)) return *group;
  }
  if (free_groups_ == nullptr) {
    all_groups_.push_back(std::make_unique<Group>());
    free_groups_ = all_groups_.back().get();
  }
  Group& group = *std::exchange(free_groups_, free_groups_->same_hash);
  group.hash = item.key_hash_;
  group.same_hash = std::exchange(with_hash, &group);
  return group;
}

void Queue::JoinGroup(Item& item, Group& group) {
  item.group_ = &group;
  item.older_ = group.newest;
  item.newer_ = nullptr;
  (group.newest == nullptr ? group.oldest : group.newest->newer_) = &item;
  group.newest = &item;
  if (group.size++ > 0) return;
  group.previous = nullptr;
  group.next = active_groups_;
  if (active_groups_ != nullptr) active_groups_->previous = &group;
  active_groups_ = &group;
}

void Queue::LeaveGroup(Item& item) {
  Group& group = *std::exchange(item.group_, nullptr);
  (item.older_ == nullptr ? group.oldest : item.older_->newer_) = item.newer_;
  (item.newer_ == nullptr ? group.newest : item.newer_->older_) = item.older_;
  item.older_ = item.newer_ = nullptr;
  if (--group.size > 0) return;
  (group.previous == nullptr ? active_groups_ : group.previous->next) = group.next;
  if (group.next != nullptr) group.next->previous = group.previous;
  if (!options_.key) return;
  const auto with_hash = groups_.find(group.hash);
  Group** link = &with_hash->second;
  while (*link != &group) link = &(*link)->same_hash;
  *link = group.same_hash;
  if (with_hash->second == nullptr) groups_.erase(with_hash);
  group.same_hash = std::exchange(free_groups_, &group);
}

// What is left to do for an item that is out of its client's queue.
void Queue::Forget(Item& item) {
  LeaveGroup(item);
  item.waits_in_ = nullptr;
  --size_;
  if (item.deadline == kNever) return;
  if (--with_deadline_ == 0) may_expire_ = kNever;
}

void Queue::Unlink(Item& item) {
  ClientQueue& client = *item.waits_in_;
  client.Remove(item);
  Forget(item);
  if (client.empty()) Retire(client);
}

}  // namespace mindserve::batching
