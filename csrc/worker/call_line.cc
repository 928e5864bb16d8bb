#include "worker/call_line.h"

#include <algorithm>
#include <utility>

#include "worker/service_call.h"

namespace mindserve::worker {
namespace {

// So many clients that have nothing are remembered.
constexpr size_t kMostIdle = 64;

}  // namespace

template <CallLine::Place::Links CallLine::Place::* kLinks>
void CallLine::List<kLinks>::PushBack(ServiceCall& call) {
  call.place.*kLinks = {.before = back, .after = nullptr};
  (back == nullptr ? front : (back->place.*kLinks).after) = &call;
  back = &call;
}

template <CallLine::Place::Links CallLine::Place::* kLinks>
void CallLine::List<kLinks>::PushFront(ServiceCall& call) {
  call.place.*kLinks = {.before = nullptr, .after = front};
  (front == nullptr ? back : (front->place.*kLinks).before) = &call;
  front = &call;
}

template <CallLine::Place::Links CallLine::Place::* kLinks>
void CallLine::List<kLinks>::Remove(ServiceCall& call) {
  const Place::Links links = std::exchange(call.place.*kLinks, {});
  (links.before == nullptr ? front : (links.before->place.*kLinks).after) = links.after;
  (links.after == nullptr ? back : (links.after->place.*kLinks).before) = links.before;
}

// Calls hold themselves as long as they are in line.
CallLine::~CallLine() {
  while (ServiceCall* const call = Next(true)) Take(*call);
}

CallLine::Arrivals& CallLine::ArrivalsOf(const ServiceCall& call) {
  return call.place.kind == kStream ? streams_ : whole_.at(call.depth());
}

CallLine::Turn CallLine::NextTurn(const Client& client) {
  return {.due = takes_ + 1 + client.held, .number = ++last_turn_};
}

// Of somebody who has something from now on.
CallLine::Client& CallLine::Find(uint64_t client) {
  const auto [found, is_new] = clients_.try_emplace(client);
  if (!is_new && found->second.idle()) --idle_;
  return found->second;
}

void CallLine::NoteIdle(const Client& client) {
  if (!client.idle() || ++idle_ <= kMostIdle) return;
  std::erase_if(clients_, [](const auto& each) { return each.second.idle(); });
  idle_ = 0;
}

void CallLine::Count(const ServiceCall& call, size_t change) {
  size_[call.place.kind] += change;
  if (call.depth() > 0) inner_ += change;
}

void CallLine::Push(std::shared_ptr<ServiceCall> call, Kind kind, TimePoint now) {
  ServiceCall& pushed = *call;
  pushed.place = {.self = std::move(call), .since = now, .kind = kind};
  Client& client = Find(pushed.client());
  Client::Queue& queue = client.queues[kind];
  queue.calls.PushBack(pushed);
  if (++queue.size == 1) {
    if (queue.no_turn) {
      queue.no_turn.key() = NextTurn(client);
      queue.turn = turns_[kind].insert(std::move(queue.no_turn)).position;
    } else {
      queue.turn = turns_[kind].emplace(NextTurn(client), &client).first;
    }
  }
  ArrivalsOf(pushed).PushBack(pushed);
  Count(pushed, 1);
}

void CallLine::PutBack(std::shared_ptr<ServiceCall> call) {
  ServiceCall& returned = *call;
  const Kind kind = returned.place.kind;
  const TimePoint since = returned.place.since;
  Push(std::move(call), kind, since);
  auto& others = clients_.at(returned.client()).queues[kind].calls;
  others.Remove(returned);
  others.PushFront(returned);
  ArrivalsOf(returned).Remove(returned);
  ArrivalsOf(returned).PushFront(returned);
}

std::shared_ptr<ServiceCall> CallLine::Take(ServiceCall& call) {
  const Kind kind = call.place.kind;
  Client& client = clients_.at(call.client());
  Client::Queue& queue = client.queues[kind];
  ArrivalsOf(call).Remove(call);
  queue.calls.Remove(call);
  Count(call, size_t{0} - 1);
  ++takes_;
  auto turn = turns_[kind].extract(queue.turn);
  if (--queue.size == 0) {
    queue.no_turn = std::move(turn);
    NoteIdle(client);
  } else {
    turn.key() = NextTurn(client);
    queue.turn = turns_[kind].insert(std::move(turn)).position;
  }
  return std::exchange(call.place.self, nullptr);
}

bool CallLine::Contains(const ServiceCall& call) {
  return call.place.self != nullptr;
}

ServiceCall* CallLine::Next(bool streams) const {
  const Turns& whole = turns_[kWhole];
  const Turns& others = turns_[kStream];
  if (streams && !others.empty() && (whole.empty() || others.begin()->first < whole.begin()->first)) {
    return others.begin()->second->queues[kStream].calls.front;
  }
  return whole.empty() ? nullptr : whole.begin()->second->queues[kWhole].calls.front;
}

const ServiceCall* CallLine::Oldest(bool streams) const {
  const ServiceCall* oldest = whole_.front().front;
  const auto consider = [&oldest](const Arrivals& arrivals) {
    if (arrivals.front == nullptr) return;
    if (oldest == nullptr || arrivals.front->place.since < oldest->place.since) oldest = arrivals.front;
  };
  if (streams) consider(streams_);
  if (inner_ > 0) std::ranges::for_each(whole_, consider);
  return oldest;
}

ServiceCall* CallLine::OldestOf(size_t depth) const {
  return whole_.at(depth).front;
}

void CallLine::Hold(uint64_t client) {
  ++Find(client).held;
}

void CallLine::LetGo(uint64_t client) {
  Client& holder = clients_.at(client);
  --holder.held;
  NoteIdle(holder);
}

CallLine::Share CallLine::Of(uint64_t client, TimePoint since) const {
  const auto found = clients_.find(client);
  if (found == clients_.end()) return {};
  Share share{.held = found->second.held};
  bool waits = false;
  for (const Client::Queue& queue : found->second.queues) {
    share.waiting += queue.size;
    waits = waits || (queue.size > 0 && queue.calls.front->place.since <= since);
  }
  if (!waits) share.waiting = 0;
  return share;
}

size_t CallLine::FairShare(size_t threads) const {
  return std::max<size_t>(1, threads / std::max<size_t>(1, clients_.size() - idle_));
}

CallLine::Lack CallLine::Lacking(size_t share, TimePoint since, size_t most) const {
  Lack lack;
  const auto lacking = [&](const Client& client, Kind kind) -> size_t {
    const Client::Queue& queue = client.queues[kind];
    if (client.held >= share || queue.size == 0 || queue.calls.front->place.since > since) return 0;
    return std::min(queue.size, share - client.held);
  };
  for (const auto& [turn, client] : turns_[kWhole]) {
    if (lack.for_whole >= most) break;
    lack.for_whole += lacking(*client, kWhole);
  }
  lack.for_all = lack.for_whole;
  for (const auto& [turn, client] : turns_[kStream]) {
    if (lack.for_all >= most) break;
    const size_t counted = lacking(*client, kWhole);
    lack.for_all += std::min(lacking(*client, kStream), share - std::min(share, client->held + counted));
  }
  return {.for_whole = std::min(lack.for_whole, most), .for_all = std::min(lack.for_all, most)};
}

}  // namespace mindserve::worker
