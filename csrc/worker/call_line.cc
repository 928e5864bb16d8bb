#include "worker/call_line.h"

#include <algorithm>
#include <utility>

#include "worker/service_call.h"

namespace mindserve::worker {

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

void CallLine::SetTurn(Client& client, Kind kind, Turn turn) {
  auto node = turns_[kind].extract(std::exchange(client.turns[kind], turn));
  node.key() = turn;
  turns_[kind].insert(std::move(node));
}

void CallLine::SetHeld(Client& client, size_t held) {
  client.held = held;
  for (const Kind kind : {kWhole, kStream}) {
    if (client.calls[kind].front != nullptr) SetTurn(client, kind, {held, client.turns[kind].number});
  }
}

void CallLine::Count(const ServiceCall& call, size_t change) {
  size_[call.place.kind] += change;
  if (call.depth() > 0) inner_ += change;
}

void CallLine::ForgetIfIdle(Clients::iterator client) {
  if (client->second.held == 0 && client->second.waiting == std::array<size_t, 2>{}) clients_.erase(client);
}

void CallLine::Push(std::shared_ptr<ServiceCall> call, Kind kind, TimePoint now) {
  ServiceCall& pushed = *call;
  pushed.place = {.self = std::move(call), .since = now, .kind = kind};
  Client& client = clients_[pushed.client()];
  if (client.calls[kind].front == nullptr) {
    client.turns[kind] = {client.held, ++last_turn_};
    turns_[kind].emplace(client.turns[kind], &client);
  }
  ++client.waiting[kind];
  client.calls[kind].PushBack(pushed);
  ArrivalsOf(pushed).PushBack(pushed);
  Count(pushed, 1);
}

void CallLine::PutBack(std::shared_ptr<ServiceCall> call) {
  ServiceCall& returned = *call;
  const Place before = returned.place;
  Push(std::move(call), before.kind, before.since);
  List<&Place::by_client>& others = clients_.at(returned.client()).calls[before.kind];
  others.Remove(returned);
  others.PushFront(returned);
  ArrivalsOf(returned).Remove(returned);
  ArrivalsOf(returned).PushFront(returned);
}

std::shared_ptr<ServiceCall> CallLine::Take(ServiceCall& call) {
  const Kind kind = call.place.kind;
  const auto found = clients_.find(call.client());
  Client& client = found->second;
  ArrivalsOf(call).Remove(call);
  client.calls[kind].Remove(call);
  Count(call, size_t{0} - 1);
  if (client.calls[kind].front == nullptr) {
    turns_[kind].erase(client.turns[kind]);
  } else {
    SetTurn(client, kind, {client.held, ++last_turn_});
  }
  --client.waiting[kind];
  ForgetIfIdle(found);
  return std::exchange(call.place.self, nullptr);
}

bool CallLine::Contains(const ServiceCall& call) {
  return call.place.self != nullptr;
}

ServiceCall* CallLine::Next(bool streams) const {
  const auto& whole = turns_[kWhole];
  const auto& others = turns_[kStream];
  if (streams && !others.empty() && (whole.empty() || others.begin()->first < whole.begin()->first)) {
    return others.begin()->second->calls[kStream].front;
  }
  return whole.empty() ? nullptr : whole.begin()->second->calls[kWhole].front;
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
  Client& holder = clients_[client];
  SetHeld(holder, holder.held + 1);
}

void CallLine::LetGo(uint64_t client) {
  const auto found = clients_.find(client);
  SetHeld(found->second, found->second.held - 1);
  ForgetIfIdle(found);
}

CallLine::Share CallLine::Of(uint64_t client) const {
  const auto found = clients_.find(client);
  if (found == clients_.end()) return {};
  const auto& [held, calls, waiting, turns] = found->second;
  return {.held = held, .waiting = waiting[kWhole] + waiting[kStream]};
}

size_t CallLine::FairShare(size_t threads) const {
  return std::max<size_t>(1, threads / std::max<size_t>(1, clients_.size()));
}

size_t CallLine::Lacking(size_t share, TimePoint since, size_t most) const {
  size_t lacking = 0;
  for (const Kind kind : {kWhole, kStream}) {
    for (const auto& [turn, client] : turns_[kind]) {
      if (turn.held >= share || lacking >= most) break;
      if (client->calls[kind].front->place.since > since) continue;
      lacking += std::min(client->waiting[kind], share - turn.held);
    }
  }
  return std::min(lacking, most);
}

}  // namespace mindserve::worker
