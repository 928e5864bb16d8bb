#include "worker/service_calls.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <string>
#include <utility>

#include "base/log.h"

namespace mindserve::worker {
namespace {

// Messages above this are copied in steps of as much, in turn with others.
constexpr size_t kStepBytes = size_t{256} << 10;
// Of these so many a round.
constexpr size_t kStepsPerRound = 8;

std::string SecondsText(Duration time) {
  return std::to_string(std::chrono::duration_cast<std::chrono::seconds>(time).count()) + " s";
}

}  // namespace

ServiceCalls::ServiceCalls(link::WorkerLink& link, std::shared_ptr<Handlers> handlers, size_t max_message_bytes,
                           std::vector<StageStats*> stats)
    : link_(link),
      handlers_(std::move(handlers)),
      max_message_bytes_(max_message_bytes),
      stats_(std::move(stats)),
      calls_(link.lanes()),
      starved_(link.lanes()),
      waiting_(link.lanes()) {}

ServiceCalls::~ServiceCalls() {
  for (Table& table : calls_) {
    for (auto& [number, record] : table) {
      record.call->record = nullptr;
      record.call->Cancel();
    }
  }
}

ServiceCalls::Record* ServiceCalls::Find(size_t lane, uint64_t call) {
  const auto found = calls_[lane].find(call);
  return found == calls_[lane].end() ? nullptr : &found->second;
}

void ServiceCalls::Open(size_t lane, const link::GatewayFrame& frame, int handler, TimePoint now) {
  ServiceCall::Opened opened;
  const Status head = wire::CheckCallHead(frame.payload, &opened.depth);
  if (!head.ok()) return link_.SendEnd(lane, frame.call, head, link::kReleased);
  opened.lane = lane;
  opened.number = frame.call;
  opened.handler = handler;
  opened.client = frame.client;
  if (frame.deadline_ns != INT64_MAX) opened.deadline = TimePoint(Duration(frame.deadline_ns));
  opened.arrived = now;
  opened.mark = link_.MarkOf(lane, frame.call);
  opened.head.assign(reinterpret_cast<const char*>(frame.payload.data()), frame.payload.size());
  const auto place = calls_[lane].try_emplace(frame.call).first;
  place->second.call = std::make_shared<ServiceCall>(handlers_, std::move(opened));
  place->second.call->record = &place->second;
  const Status status = place->second.call->Deliver({}, (frame.flags & link::kEnds) != 0);
  if (!status.ok()) EndWith(lane, place, status);
}

void ServiceCalls::Message(size_t lane, const link::GatewayFrame& frame) {
  const auto found = calls_[lane].find(frame.call);
  if (found == calls_[lane].end()) return;  // it has ended, of which the gateway did not know
  std::optional<std::span<const std::byte>> message;
  if ((frame.flags & link::kNoMessage) == 0) message = frame.payload;
  const Status status = found->second.call->Deliver(message, (frame.flags & link::kEnds) != 0);
  if (!status.ok()) EndWith(lane, found, status);
}

void ServiceCalls::Cancel(size_t lane, uint64_t call) {
  const auto found = calls_[lane].find(call);
  if (found != calls_[lane].end()) EndWith(lane, found, Status(Code::kCancelled, "the call was cancelled"));
}

void ServiceCalls::Credit(size_t lane, uint64_t call) {
  Record* record = Find(lane, call);
  if (record != nullptr && record->call->Credit()) SetWaiting(lane, *record, false);
}

void ServiceCalls::EndWith(size_t lane, Table::iterator found, const Status& status) {
  found->second.call->Cancel();
  EndCancelled(lane, found, status);
}

void ServiceCalls::EndCancelled(size_t lane, Table::iterator found, const Status& status) {
  found->second.out.end = {};
  LineOf(lane, found->second).Remove(found->first);
  link_.SendEnd(lane, found->first, status, link::kReleased);
  Forget(lane, found);
}

void ServiceCalls::Forget(size_t lane, Table::iterator found) {
  Record& record = found->second;
  if (record.out.end.there) Count(*record.call, record.out.end);
  if (record.slab) link_.FreeReply(lane, *record.slab);
  SetWaiting(lane, record, false);
  record.call->record = nullptr;
  calls_[lane].erase(found);
}

void ServiceCalls::Count(const ServiceCall& call, const ServiceCall::End& end) {
  StageStats& stats = *stats_[static_cast<size_t>(call.handler())];
  stats.batch_sizes.Add(1);
  stats.queue_ns.AddTime(end.waited);
  stats.run_ns.AddTime(end.took);
  if (end.code != Code::kOk) stats.failed.Add(1);
}

void ServiceCalls::SetWaiting(size_t lane, Record& record, bool waits) {
  if (record.waits_for_credit == waits) return;
  record.waits_for_credit = waits;
  waiting_[lane] += waits ? 1 : size_t{0} - 1;
  link_.AwaitCredit(lane, waiting_[lane] > 0);
}

// What handlers have put out since the last round. It is taken even from a call that has to wait for memory: how much
// that can be is bounded by the call.
void ServiceCalls::Collect() {
  handlers_->TakePosted(&posted_, &posted_models_);
  for (const auto& model : posted_models_) {
    for (size_t lane = 0; lane < calls_.size(); ++lane) models_.emplace_back(lane, model);
  }
  for (const auto& call : posted_) {
    auto* record = static_cast<Record*>(call->record);
    if (record == nullptr) continue;  // it has ended
    call->TakeOutgoing(&record->out);
    if (record->out.dismissed) {
      call->Cancel();
      EndDismissed(call->lane(), calls_[call->lane()].find(call->number()), /*rested=*/false);
      continue;
    }
    SetWaiting(call->lane(), *record, record->out.waits_for_credit);
  }
}

TimePoint ServiceCalls::Poll(TimePoint now, const std::function<bool(size_t)>& starves) {
  Collect();
  bool more = false;
  for (size_t lane = 0; lane < starved_.size(); ++lane) {
    if (!starves(lane)) more |= SendStarved(lane, starved_[lane].answers);
    if (!starves(lane) && !full(lane)) more |= SendStarved(lane, starved_[lane].streams);
  }
  for (const auto& call : posted_) {
    auto* record = static_cast<Record*>(call->record);
    if (record == nullptr || record->copies) continue;
    AnswerLine& line = LineOf(call->lane(), *record);
    if (line.Contains(call->number())) continue;
    if (line.Holds(call->client())) {
      line.Push(call->number(), call->client());
    } else {
      const bool others_wait = starves(call->lane()) || full(call->lane()) || line.full();
      SendOrWait(call->lane(), call->number(), *record, others_wait);
    }
  }
  posted_.clear();
  for (size_t steps = 0; steps < kStepsPerRound && !copying_.empty(); ++steps) {
    const Entry entry = copying_.front();
    copying_.pop_front();
    Record* record = Find(entry.lane, entry.call);
    if (record == nullptr || !record->copies) continue;
    record->copies = false;
    SendOrWait(entry.lane, entry.call, *record, /*others_wait=*/false);
  }
  SendModels();
  if (more || !copying_.empty()) return now;
  const TimePoint next = handlers_->Tend(now, &resting_);
  EndResting();
  return std::min(next, TellOfResting(now));
}

bool ServiceCalls::SendStarved(size_t lane, AnswerLine& line) {
  if (line.empty()) return false;
  return line.Retry(link_.Releases(lane),
                    [&](uint64_t call) { return Send(lane, call, *Find(lane, call), /*others_wait=*/false); });
}

// A client may rest between messages as long as nobody lacks the thread that waits for it.
void ServiceCalls::EndResting() {
  for (const auto& [call, since, rested] : resting_) {
    const auto found = calls_[call->lane()].find(call->number());
    if (found == calls_[call->lane()].end() || found->second.call != call) continue;
    if (call->Dismiss(since) == ServiceCall::Dismissed::kYes) EndDismissed(call->lane(), found, rested);
  }
  resting_.clear();
}

void ServiceCalls::EndDismissed(size_t lane, Table::iterator found, bool rested) {
  rested_.insert(found->second.call->spec().path);
  ++rested_count_;
  const std::string why = rested ? "no message came from the client for " + SecondsText(Handlers::kRest)
                                 : "the client holds more handler threads than its share";
  EndCancelled(lane, found,
               Status(Code::kResourceExhausted, why + ", while other calls waited for one of the handler threads"));
}

// Clients cause it: a line a second at most. When it wants to be called again.
TimePoint ServiceCalls::TellOfResting(TimePoint now) {
  if (rested_count_ == 0) return kNever;
  if (now < next_rested_told_) return next_rested_told_;
  next_rested_told_ = now + std::chrono::seconds(1);
  std::string paths;
  for (const std::string& path : std::exchange(rested_, {})) paths += (paths.empty() ? "" : ", ") + path;
  Log(LogLevel::kWarning, "calls whose clients stream were ended, since others waited for their handler threads: " +
                              std::to_string(std::exchange(rested_count_, size_t{0})) + " of " + paths);
  return kNever;
}

void ServiceCalls::SendOrWait(size_t lane, uint64_t number, Record& record, bool others_wait) {
  const AnswerLine::Tried tried = Send(lane, number, record, others_wait);
  if (tried == AnswerLine::Tried::kDone) return;
  LineOf(lane, record).Push(number, record.call->client(), tried);
}

// Sends what it can; what is to be copied goes on in copying_.
AnswerLine::Tried ServiceCalls::Send(size_t lane, uint64_t number, Record& record, bool others_wait) {
  const size_t before = record.sent;
  switch (TrySend(lane, number, record, others_wait)) {
    case Sent::kFull:
      return AnswerLine::Tried::kFull;
    case Sent::kOverShare:
      return record.sent > before ? AnswerLine::Tried::kTookShare : AnswerLine::Tried::kOverShare;
    case Sent::kCopying:
      record.copies = true;
      copying_.push_back({lane, number});
      break;
    case Sent::kAll:
      break;
  }
  return AnswerLine::Tried::kDone;
}

ServiceCalls::Sent ServiceCalls::TrySend(size_t lane, uint64_t number, Record& record, bool others_wait) {
  ServiceCall::Outgoing& out = record.out;
  if (!out.end.there) {
    for (; out.taken > 0; --out.taken) link_.SendReleaseMessage(lane, number);
    if (out.wants_after) link_.SendWants(lane, number, *std::exchange(out.wants_after, std::nullopt));
  }
  if (out.initial != nullptr) {
    const uint8_t flags = out.initial->compressed ? link::kCompressed : 0;
    if (!link_.SendInitial(lane, number, out.initial->metadata, flags)) return Sent::kFull;
    out.initial.reset();
  }
  while (record.sent < out.messages.size()) {
    if (out.messages[record.sent].bytes().size() > max_message_bytes_) {
      EndTooLarge(record);
      break;
    }
    const bool last = record.sent + 1 == out.messages.size() && out.end.there && out.end.plain;
    const Sent sent = SendMessage(lane, number, record, last ? link::kEnds | link::kReleased : 0, others_wait);
    if (sent != Sent::kAll) return sent;
    if (last) {
      Forget(lane, calls_[lane].find(number));
      return Sent::kAll;
    }
  }
  out.messages.clear();
  record.sent = 0;
  if (!out.end.there) return Sent::kAll;
  if (!link_.SendTrailing(lane, number, out.end.code, out.end.block, link::kReleased)) return Sent::kFull;
  Forget(lane, calls_[lane].find(number));
  return Sent::kAll;
}

void ServiceCalls::EndTooLarge(Record& record) {
  const size_t size = record.out.messages[record.sent].bytes().size();
  record.call->Cancel();
  record.out.end = {};
  record.out.end.there = true;
  record.out.end.code = Code::kResourceExhausted;
  record.out.end.block = wire::WriteCallEnd(
      {"the answer has a message of " + std::to_string(size) + " bytes, more than a message can have", {}});
}

// The next one; a large one is copied in steps, with others served in between.
ServiceCalls::Sent ServiceCalls::SendMessage(size_t lane, uint64_t number, Record& record, int flags,
                                             bool others_wait) {
  OutMessage& message = record.out.messages[record.sent];
  const std::span<const std::byte> bytes = message.bytes();
  if (!record.slab) {
    const auto what = Streams(record) ? link::WorkerLink::For::kStream : link::WorkerLink::For::kAnswer;
    const uint64_t client = SharerOf(record.call->client(), record.call->depth());
    const auto slab = link_.AllocateReply(lane, bytes.size(), client, what, others_wait);
    if (!slab) return slab.over_share ? Sent::kOverShare : Sent::kFull;
    record.slab = *slab;
    record.copied = 0;
  }
  const size_t count = std::min(bytes.size() - record.copied, kStepBytes);
  if (count > 0) std::memcpy(record.slab->bytes.data() + record.copied, bytes.data() + record.copied, count);
  record.copied += count;
  if (record.copied < bytes.size()) return Sent::kCopying;
  if (message.compressed()) flags |= link::kCompressed;
  link_.SendReply(lane, number, *std::exchange(record.slab, std::nullopt), static_cast<uint8_t>(flags));
  message = OutMessage({});
  ++record.sent;
  return Sent::kAll;
}

void ServiceCalls::SendModels() {
  while (!models_.empty()) {
    const auto& [lane, model] = models_.front();
    if (!link_.SendModel(lane, model.first, model.second)) return;
    models_.pop_front();
  }
}

}  // namespace mindserve::worker
