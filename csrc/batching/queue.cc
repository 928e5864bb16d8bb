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

void Queue::Announce() {
  {
    const std::lock_guard lock(mutex_);
    if (waiting_ == 0 || size_ == 0) return;
  }
  pushed_.notify_one();
}

Taken Queue::TryTake() {
  const std::lock_guard lock(mutex_);
  if (size_ == 0 || closed_) {
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
      const bool pass_on = size_ > 0 && waiting_ > 0;
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

bool Queue::Remove(Item& item) {
  const std::lock_guard lock(mutex_);
  if (item.waits_in_ == nullptr) return false;
  Unlink(item);
  return true;
}

ItemList Queue::DropExpired(TimePoint* again) {
  ItemList expired;
  const std::lock_guard lock(mutex_);
  *again = kNever;
  if (with_deadline_ == 0) return expired;
  const TimePoint earliest = std::max(may_expire_, After(last_sweep_, kSweepInterval));
  const TimePoint now = time_.Now();
  if (now < earliest) {
    *again = earliest;
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
  if (with_deadline_ > 0) *again = std::max(may_expire_, now + kSweepInterval);
  return expired;
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
  while (!turns_.empty()) {
    Item& item = *turns_.front()->Front();
    Unlink(item);
    all.Append(item);
  }
  return all;
}

size_t Queue::size() const {
  const std::lock_guard lock(mutex_);
  return size_;
}

Taken Queue::TakeNow(TimePoint now) {
  Taken taken;
  Item* leader = ChooseLeader(now, &taken);
  if (leader == nullptr) return taken;
  // Who leads had its turn: to the end of the line, behind those whom it is about to be joined by.
  Group& group = *leader->group_;
  ClientQueue& client = *leader->waits_in_;
  Unlink(*leader);
  taken.batch.Append(*leader);
  if (!client.empty()) client.MoveTo(turns_);
  Fill(group, now, &taken);
  taken.left = size_;
  return taken;
}

Item* Queue::ChooseLeader(TimePoint now, Taken* taken) {
  while (!turns_.empty()) {
    Item* first = Front(*turns_.front(), now, taken);
    if (first == nullptr) continue;
    if (options_.max_queue_delay <= Duration::zero()) return first;
    return ChooseAmongWaiting(*first, now, taken);
  }
  return nullptr;
}

Item* Queue::ChooseAmongWaiting(Item& in_turn, TimePoint now, Taken* taken) {
  const Duration window = options_.max_queue_delay;
  const size_t full = options_.max_batch_size;
  if (in_turn.group_->size >= full || in_turn.group_->OldestWaited(now, window)) return &in_turn;
  // The first in turn may still wait: others go before it if they need not.
  Item* oldest = nullptr;
  for (Group* group = active_groups_; group != nullptr;) {
    Group* following = group->next;
    while (group->size > 0 && group->oldest->deadline <= now) {
      Item& item = *group->oldest;
      const bool last = group->size == 1;
      Unlink(item);
      taken->expired.Append(item);
      if (last) break;  // the group is gone
    }
    if (group->size > 0) {
      if (group->size >= full) return group->oldest;
      if (oldest == nullptr || group->oldest->arrival_ < oldest->arrival_) oldest = group->oldest;
    }
    group = following;
  }
  if (oldest == nullptr) return nullptr;
  const TimePoint goes = After(oldest->arrival_, window);
  if (goes <= now) return oldest;
  taken->again = goes;
  return nullptr;
}

void Queue::Fill(Group& group, TimePoint now, Taken* taken) {
  // The group may be on the free list by the time it is empty; nothing is pushed meanwhile, so that its size stays 0.
  size_t budget = kLookAhead;
  const auto wants_more = [&] { return taken->batch.size() < options_.max_batch_size && group.size > 0 && budget > 0; };
  ClientList joined;  // clients that have joined and have more
  const auto join = [&](ClientQueue& client) {
    Item* item = Member(client, group, now, &budget, taken);
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
Item* Queue::Front(ClientQueue& client, TimePoint now, Taken* taken) {
  for (;;) {
    Item* item = client.Front();
    if (item == nullptr || item->deadline > now) return item;
    Unlink(*item);
    taken->expired.Append(*item);
  }
}

Item* Queue::Member(ClientQueue& client, Group& group, TimePoint now, size_t* budget, Taken* taken) {
  for (;;) {
    Item* item = client.FindMember(&group, budget);
    if (item == nullptr || item->deadline > now) return item;
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
