#include "gateway/predict_call.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/utf8.h"
#include "gateway/auth.h"
#include "gateway/grpc_text.h"
#include "gateway/request_id.h"
#include "wire/call_head.h"

namespace mindserve::gateway {
namespace {

// "Servable(add) method(add_common) version(1)"; names as the client gave them, cut where they are absurd.
std::string Describe(std::string_view servable, std::string_view method, uint64_t version) {
  constexpr size_t kLongest = 256;
  std::string text = "Servable(";
  text.append(CutUtf8(servable, kLongest)).append(") method(").append(CutUtf8(method, kLongest)).append(")");
  if (version != 0) text.append(" version(").append(std::to_string(version)).append(")");
  return text;
}

// Held by way of this thread's end of the worker: no two threads count at the same place.
std::shared_ptr<VersionState> VersionOf(const std::shared_ptr<WorkerEnd>& worker) {
  return {worker, worker->version().get()};
}

// How the client knows the call, to find it in its own logs.
std::string Ids(const Call& call, const std::string& id) {
  const std::string_view given = call.metadata_value("x-request-id");
  return " (request_id " + id + (given.empty() ? "" : ", x-request-id " + std::string(CutUtf8(given, 128))) + ")";
}

}  // namespace

void PredictCall::OnHalfClose() {
  wire::Route& route = service_.route_;
  CallStats& stats = service_.context_.stats;
  Status status = ReadRoute(&route);
  if (!status.ok()) {
    if (status.code() == Code::kResourceExhausted) stats.Refuse(Refusal::kMaxInstancesPerRequest);
    return Fail(std::move(status));
  }
  servable_ = route.servable;
  method_ = route.method;
  version_ = route.version;
  spec_ = route.spec;
  // By the name that it calls, not by who answers for that.
  if (const ClientIdentity* identity = call_.identity(); identity != nullptr) [[unlikely]] {
    if (status = identity->Check(servable_); !status.ok()) return Fail(std::move(status));
  }
  if (route.merged) merged_spec_ = wire::SpecContent(route.servable, route.method, route.version);
  if (variation_ || !service_.traffic_.empty()) [[unlikely]]
    Divert();

  // A worker's share is at least two instances, else the handing about costs more than it gains.
  const size_t shares = std::max<size_t>(route.instances.size() / 2, 1);
  std::vector<Router::Target>& targets = service_.targets_;
  auto outcome = service_.router_.Find(servable_, method_, version_, shares, &targets);
  if (variation_ && outcome != Router::Outcome::kFound) {
    counts_ = &service_.traffic_.Unanswered(*variation_, Path());
    call_.CountAs(*counts_);
  }
  if (RefuseRoute(outcome)) return;
  counts_ = variation_ ? &service_.traffic_.Counts(*variation_, targets.front()) : targets.front().counts;
  call_.CountAs(*counts_);
  if (route.instances.empty()) {
    return AnswerError(wire::ErrorCode::kInvalidInput, Described() + ", instances count is 0, expected at least one");
  }
  instances_ = {
      .offset = route.instances.front().offset,
      .length = route.instances.back().offset + route.instances.back().length - route.instances.front().offset};
  version_state_ = VersionOf(targets.front().worker);
  Quarantine& quarantine = version_state_->quarantine;
  bool suspect = false;
  if (const TimePoint now = service_.context_.now; quarantine.UnderAttack(now)) [[unlikely]] {
    if (auto verdict = quarantine.VerdictOn(method_, Instances(*message_), now)) {
      stats.Refuse(Refusal::kQuarantine);
      return Fail({Code::kUnavailable, *std::move(verdict)}, TryNever());
    }
    suspect = call_.trust().StandingIn(version_state_->number, quarantine.attack()) != ClientTrust::Standing::kKnown;
    if (!suspect) service_.router_.Find(servable_, method_, version_, shares, &targets, Router::Pick::kOrdinary);
  }
  if (!Admit(route.instances.size())) return;

  counts_->instances += route.instances.size();
  parts_.resize(suspect ? 1 : targets.size());
  missing_ = parts_.size();
  size_t begin = 0;
  for (uint32_t i = 0; i < parts_.size(); ++i) {
    const size_t end = route.instances.size() * (i + 1) / parts_.size();
    const wire::Extent& first = route.instances[begin];
    const wire::Extent& last = route.instances[end - 1];
    parts_[i].payload = ToWorker({.offset = first.offset,
                                  .length = last.offset + last.length - first.offset,
                                  .instances = static_cast<uint32_t>(end - begin)});
    begin = end;
    if (!suspect) Send(i, targets[i]);
  }
  if (suspect) {
    parts_.front().alone = true;
    Dispatch(0);  // there is a worker
  } else if (variation_ && variation_->mirrors != nullptr) [[unlikely]] {
    const WorkerCalls::Payload all = ToWorker({.offset = instances_.offset,
                                               .length = instances_.length,
                                               .instances = static_cast<uint32_t>(route.instances.size())});
    service_.mirrors_.Offer(*variation_, method_, call_, request_, all, id_.made);
  }
}

Status PredictCall::ReadRoute(wire::Route* route) {
  return wire::ReadRoute(message_->bytes(), service_.context_.limits.max_instances_per_request, route);
}

bool PredictCall::RefuseRoute(Router::Outcome outcome) {
  if (IsPath(method_) && outcome != Router::Outcome::kNoServable) outcome = Router::Outcome::kNoMethod;
  const auto refuse = [this](wire::ErrorCode code, const std::string& why) {
    AnswerError(code, Described() + why);
    return true;
  };
  switch (outcome) {
    case Router::Outcome::kNoServable:
      return refuse(
          wire::ErrorCode::kServableUnavailable,
          std::string(", servable is not available") +
              (service_.traffic_.Find(servable_) != nullptr ? ": only calls without a version are split" : ""));
    case Router::Outcome::kNoMethod:
      if (const auto stream = service_.router_.Find(servable_, StreamPath(method_), version_, 1, &service_.targets_);
          stream != Router::Outcome::kNoMethod && stream != Router::Outcome::kNoServable) {
        return refuse(wire::ErrorCode::kInvalidInput,
                      ", the method answers with a stream: ask it by infer_stream, or " +
                          std::string(kPredictStreamPath).substr(1));
      }
      return refuse(wire::ErrorCode::kInvalidInput, ", method is not available");
    case Router::Outcome::kNoWorker:
    case Router::Outcome::kNoOther:
      Fail(
          {Code::kUnavailable, Described() + ", no worker of the servable is running: it is starting, or was stopped"});
      return true;
    case Router::Outcome::kFound:
      break;
  }
  return false;
}

void PredictCall::Divert() {
  if (!variation_) variation_ = service_.traffic_.Choose(servable_, version_, call_);
  if (!variation_) return;
  servable_ = variation_->servable;
  version_ = variation_->version;
  SetTrailing();
}

bool PredictCall::Admit(size_t instances) {
  request_ = std::make_shared<Request>(*std::move(message_));
  message_.reset();
  auto refused = gateway::Admit(service_.admission_, *version_state_->admission, servable_,
                                request_->message.bytes().size(), AskerOf(call_, /*streams=*/false),
                                service_.context_.now, service_.context_.stats, &request_->admitted);
  if (!refused) {
    refused = AdmitInstances(service_.admission_, instances, service_.context_.now, service_.context_.stats,
                             &request_->admitted);
  }
  if (refused) {
    Fail(std::move(refused->status), std::move(refused->trailing));
    return false;
  }
  if (call_.inner().depth == 0 && id_.given.empty()) [[likely]]
    return true;
  Status status = AddHead();
  if (status.ok()) return true;
  service_.context_.stats.Refuse(Refusal::kMaxEnqueuedBytes);
  Fail(std::move(status), TryLater());
  return false;
}

Status PredictCall::AddHead() {
  const std::string head =
      wire::WriteCallHead({.request_id = id_.given, .depth = call_.inner().depth, .callers = call_.inner().callers});
  auto place = service_.context_.memory.Allocate(head.size());
  if (!place.ok()) return place.status();
  std::memcpy(place->bytes().data(), head.data(), head.size());
  request_->head = *std::move(place);
  return Status::Ok();
}

bool PredictCall::Dispatch(uint32_t tag) {
  Router::Pick pick = Router::Pick::kAny;
  const TimePoint now = service_.context_.now;
  if (const Quarantine& quarantine = version_state_->quarantine; quarantine.UnderAttack(now)) {
    pick = !parts_[tag].alone             ? Router::Pick::kOrdinary
           : quarantine.HasConvicted(now) ? Router::Pick::kSuspect
                                          : Router::Pick::kAccused;
  }
  std::vector<Router::Target>& targets = service_.targets_;
  switch (service_.router_.Find(servable_, method_, version_, 1, &targets, pick)) {
    case Router::Outcome::kFound:
      Send(tag, targets.front());
      return true;
    case Router::Outcome::kNoOther:
      Suspend(tag);
      return true;
    default:
      return false;
  }
}

void PredictCall::Send(uint32_t tag, const Router::Target& target) {
  Part& part = parts_[tag];
  ++part.sends;
  part.at_worker = true;
  // With version 0 another version may be asked than before.
  if (version_state_.get() != target.worker->version().get()) version_state_ = VersionOf(target.worker);
  idempotent_ = idempotent_ && target.worker->spec().methods[target.method].idempotent;
  part.call = service_.calls_.Open(
      target.worker, target.method, part.payload, request_,
      {.deadline = call_.deadline(), .client = call_.client(), .key = id_.made, .alone = part.alone}, *this, tag);
}

void PredictCall::Suspend(uint32_t tag) {
  if (!waiting_) {
    const auto standing = call_.trust().StandingIn(version_state_->number, version_state_->quarantine.attack());
    std::list<PredictCall*>& line = service_.waiting_.at(static_cast<size_t>(standing));
    if (line.size() >= kMostWaiting) {
      service_.context_.stats.Refuse(Refusal::kQuarantine);
      return Fail({Code::kResourceExhausted,
                   Described() + ", requests have killed workers of the servable lately, and too many of clients that "
                                 "it does not know wait for a worker that may try them"},
                  TryLater());
    }
    waiting_ = Waiting{&line, line.insert(line.end(), this)};
  }
  parts_[tag].suspended = true;
  const TimePoint now = service_.context_.now;
  if (suspense_ends_ == kNever) suspense_ends_ = now + service_.most_suspense_;
  service_.context_.timers.Set(*this, suspense_ends_);
}

void PredictCall::StopWaiting() {
  service_.context_.timers.Cancel(*this);
  if (waiting_) waiting_->line->erase(waiting_->at);
  waiting_.reset();
}

void PredictCall::TryAgain() {
  StopWaiting();
  for (uint32_t i = 0; i < parts_.size(); ++i) {
    if (!std::exchange(parts_[i].suspended, false) || Dispatch(i)) continue;
    return Fail({Code::kUnavailable, Described() + ", no worker of the servable is running"});
  }
}

void PredictCall::OnTimer() {
  service_.context_.stats.Refuse(Refusal::kQuarantine);
  Fail({Code::kUnavailable, Described() + ", requests have killed workers of the servable lately, and within " +
                                std::to_string(service_.most_suspense_.count()) +
                                " ms there was no worker that may try requests of clients that it does not know"},
       TryLater());
}

void PredictCall::OnWorkerReply(uint32_t tag, ReplyPart payload, uint8_t flags) {
  if (!request_) return;
  Part& part = parts_[tag];
  if ((flags & link::kEnds) == 0) {
    return Fail(
        {Code::kInternal, "servable '" + std::string(servable_) + "': its worker answered with a stream of messages"});
  }
  part.at_worker = false;
  part.has_errors = (flags & link::kHasErrors) != 0;
  part.reply = std::move(payload);
  if (--missing_ == 0) Complete();
}

void PredictCall::OnWorkerEnd(uint32_t tag, Status status) {
  if (!request_) return;
  parts_[tag].at_worker = false;
  call_.trust().OnAnswer(version_state_->number);
  Fail(std::move(status));
}

void PredictCall::OnWorkerLost(uint32_t tag, const LostCall& lost) {
  if (!request_) return;
  Part& part = parts_[tag];
  part.at_worker = false;
  if (lost.executing) {
    ++part.deaths;
    if (part.alone || part.deaths >= service_.context_.limits.max_attempts) return SetAside(part, lost);
    part.alone = true;
    Quarantine& quarantine = version_state_->quarantine;
    const TimePoint now = service_.context_.now;
    if (service_.router_.Workers(servable_, version_state_->version) == 0 && quarantine.HadSeveral(now)) {
      quarantine.Accuse(now);
      call_.trust().Forget(version_state_->number);
    }
  }
  const std::string died = ", the worker that held it died: " + lost.loss.why;
  if (!idempotent_ && lost.begun) {
    return Fail({Code::kUnavailable, Described() + died +
                                         ". It may have been executed, and its method is not idempotent, so it is "
                                         "not sent again"});
  }
  if (part.sends >= kMostSends) {
    service_.context_.stats.Refuse(Refusal::kMaxAttempts);
    return Fail({Code::kUnavailable, Described() + died + ". It was sent to " + std::to_string(part.sends) +
                                         " workers, and each died before it had executed it"});
  }
  if (!Dispatch(tag)) Fail({Code::kUnavailable, Described() + died + ", and there is no other"});
}

void PredictCall::SetAside(const Part& part, const LostCall& lost) {
  ThreadContext& context = service_.context_;
  context.stats.Refuse(Refusal::kMaxAttempts);
  const std::string died = " is set aside: " + std::to_string(part.deaths) +
                           (part.deaths == 1 ? " worker" : " workers") + " died while executing it (max_attempts " +
                           std::to_string(context.limits.max_attempts) + ")" +
                           (part.alone ? ", the last one while executing nothing else" : "") +
                           "; of the last one is known: " + lost.loss.why;
  const std::string text = Described() + " of client " + call_.peer().address + Ids(call_, id_.text()) + died;
  context.log.Warn(context.now, text);
  if (part.alone) {
    Quarantine& quarantine = version_state_->quarantine;
    quarantine.Convict(method_, Instances(request_->message),
                       Described() + " is the same as one that killed workers. That one" + died, context.now);
    call_.trust().Distrust(version_state_->number, quarantine.attack());
  }
  Fail({Code::kUnavailable, text}, TryNever());
}

void PredictCall::Complete() {
  Reply reply;
  reply.reserve(1 + 2 * parts_.size());
  if (Status begun = BeginReply(*parts_.front().reply, &reply); !begun.ok()) return Fail(std::move(begun));
  const bool has_errors = std::ranges::any_of(parts_, &Part::has_errors);
  if (has_errors) ++counts_->with_errors;
  for (Part& part : parts_) {
    if (part.has_errors) wire::CountErrorCodes(part.reply->bytes(), counts_->errors);
    reply.push_back(*std::move(part.reply));
    if (has_errors && !part.has_errors) reply.emplace_back(wire::SuccessErrors(part.payload.instances));
  }
  call_.trust().OnAnswer(version_state_->number);
  request_->StopCounting();
  request_.reset();
  parts_.clear();
  call_.Send(std::move(reply));
  call_.Finish(Status::Ok());
}

Status PredictCall::BeginReply(const ReplyPart&, Reply* reply) {
  reply->emplace_back(wire::SpecField(Spec(request_->message)));
  return Status::Ok();
}

void PredictCall::SetTrailing() {
  Metadata trailing;
  if (!id_.given.empty()) trailing.emplace_back(kRequestIdKey, id_.given);
  if (variation_) trailing.emplace_back(kVariationKey, variation_->name);
  call_.SetTrailing(std::move(trailing));
}

void PredictCall::AnswerError(wire::ErrorCode code, const std::string& text) {
  ++counts_->with_errors;
  ++counts_->errors[static_cast<size_t>(code)];
  Reply reply;
  reply.emplace_back(wire::ErrorReply(Spec(*message_), code, text));
  message_.reset();
  call_.Send(std::move(reply));
  call_.Finish(Status::Ok());
}

std::string PredictCall::Described() const {
  if (!variation_) return "Request " + Describe(servable_, method_, version_);
  return "Request " + Describe(variation_->split, method_, 0) + " variation(" + variation_->name + ": " +
         Describe(servable_, method_, version_) + ")";
}

std::string_view PredictCall::Spec(const Message& message) const {
  if (merged_spec_) return *merged_spec_;
  const auto spec = message.bytes().subspan(spec_.offset, spec_.length);
  return {reinterpret_cast<const char*>(spec.data()), spec.size()};
}

std::span<const std::byte> PredictCall::Instances(const Message& message) const {
  return message.bytes().subspan(instances_.offset, instances_.length);
}

void PredictCall::Fail(Status status, Metadata trailing) {
  GiveUp();
  call_.Finish(std::move(status), std::move(trailing));
}

void PredictCall::GiveUp() {
  StopWaiting();
  message_.reset();
  for (const Part& part : parts_) {
    if (part.at_worker) service_.calls_.Cancel(part.call);
  }
  if (request_) request_->GiveUp();
  request_.reset();
  parts_.clear();
}

}  // namespace mindserve::gateway
