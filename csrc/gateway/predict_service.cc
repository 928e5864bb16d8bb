#include "gateway/predict_service.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "base/utf8.h"
#include "gateway/grpc_text.h"

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

}  // namespace

// One request.
class PredictCall final : public CallHandler, public WorkerCallListener {
 public:
  PredictCall(PredictService& service, Call& call) : service_(service), call_(call) {}
  ~PredictCall() override { GiveUp(); }

  void OnMessage(Message message) override { message_ = std::move(message); }
  void OnHalfClose() override;
  void OnCancel() override { GiveUp(); }

  void OnWorkerReply(uint32_t tag, ReplyPart payload, bool has_errors, bool ends) override;
  void OnWorkerEnd(uint32_t tag, Status status) override;
  void OnWorkerLost(uint32_t tag) override;

 private:
  // A worker's share of the instances.
  struct Part {
    WorkerCalls::Payload payload;
    uint64_t call = 0;
    size_t attempts = 0;
    bool waiting = false;
    bool has_errors = false;
    std::optional<ReplyPart> reply;
  };

  void AnswerError(wire::ErrorCode code, const std::string& text);
  void Fail(Status status, Metadata trailing = {});
  void Send(uint32_t tag, const Router::Target& target);
  void Complete();
  void GiveUp();
  // The content of the reply's servable_spec. It lies in the message, or here.
  std::string_view Spec(const Message& message) const;

  PredictService& service_;
  Call& call_;
  MethodCounts* counts_ = &service_.counts();  // as what the call is counted
  std::optional<Message> message_;             // until it is dispatched
  std::shared_ptr<Request> request_;           // from then on, until the call is answered
  std::string_view servable_;                  // these two lie in the request
  std::string_view method_;
  uint64_t version_ = 0;
  wire::Extent spec_;
  std::optional<std::string> merged_spec_;  // for a request with several specs, instead of the above
  std::vector<Part> parts_;
  size_t missing_ = 0;  // parts without an answer
};

std::unique_ptr<CallHandler> PredictService::Start(Call& call) {
  return std::make_unique<PredictCall>(*this, call);
}

void PredictCall::OnHalfClose() {
  wire::Route& route = service_.route_;
  Status status = wire::ReadRoute(message_->bytes(), service_.limits_.max_instances_per_request, &route);
  if (!status.ok()) {
    if (status.code() == Code::kResourceExhausted) service_.stats_.Refuse(Refusal::kMaxInstancesPerRequest);
    return Fail(std::move(status));
  }
  spec_ = route.spec;
  if (route.merged) merged_spec_ = wire::SpecContent(route.servable, route.method, route.version);

  const size_t workers = service_.router_.Workers(route.servable, route.version);
  // A worker's share is at least two instances, else the handing about costs more than it gains.
  const size_t shares = std::clamp<size_t>(route.instances.size() / 2, 1, std::max<size_t>(workers, 1));
  std::vector<Router::Target>& targets = service_.targets_;
  switch (service_.router_.Find(route.servable, route.method, route.version, shares, &targets)) {
    case Router::Outcome::kNoServable:
      return AnswerError(
          wire::ErrorCode::kServableUnavailable,
          "Request " + Describe(route.servable, route.method, route.version) + ", servable is not available");
    case Router::Outcome::kNoMethod:
      return AnswerError(
          wire::ErrorCode::kInvalidInput,
          "Request " + Describe(route.servable, route.method, route.version) + ", method is not available");
    case Router::Outcome::kNoWorker:
      return Fail({Code::kUnavailable, "Request " + Describe(route.servable, route.method, route.version) +
                                           ", no worker of the servable is running: it is starting, or was stopped"});
    case Router::Outcome::kFound:
      counts_ = targets.front().counts;
      call_.CountAs(*counts_);
      break;
  }
  if (route.instances.empty()) {
    return AnswerError(wire::ErrorCode::kInvalidInput, "Request " +
                                                           Describe(route.servable, route.method, route.version) +
                                                           ", instances count is 0, expected at least one");
  }
  Ticket ticket = Ticket::Take(service_.admission_);
  if (!ticket) {
    service_.stats_.Refuse(Refusal::kMaxEnqueuedRequests);
    return Fail(
        {Code::kResourceExhausted, "enqueued requests count exceeds the limit " +
                                       std::to_string(service_.admission_.max_requests()) + " (max_enqueued_requests)"},
        {{kRetryPushbackKey, kRetryPushbackMs}});
  }

  counts_->instances += route.instances.size();
  servable_ = route.servable;
  method_ = route.method;
  version_ = route.version;
  request_ = std::make_shared<Request>(Request{*std::move(message_), std::move(ticket)});
  message_.reset();
  parts_.resize(targets.size());
  missing_ = targets.size();
  size_t begin = 0;
  for (uint32_t i = 0; i < parts_.size(); ++i) {
    const size_t end = route.instances.size() * (i + 1) / parts_.size();
    const wire::Extent& first = route.instances[begin];
    const wire::Extent& last = route.instances[end - 1];
    parts_[i].payload = {.offset = first.offset,
                         .length = last.offset + last.length - first.offset,
                         .instances = static_cast<uint32_t>(end - begin)};
    begin = end;
    Send(i, targets[i]);
  }
}

void PredictCall::Send(uint32_t tag, const Router::Target& target) {
  Part& part = parts_[tag];
  ++part.attempts;
  part.waiting = true;
  part.call = service_.calls_.Open(target.worker, target.method, part.payload, request_, call_.deadline(),
                                   call_.client(), *this, tag);
}

void PredictCall::OnWorkerReply(uint32_t tag, ReplyPart payload, bool has_errors, bool ends) {
  if (!request_) return;
  Part& part = parts_[tag];
  if (!ends) {
    return Fail(
        {Code::kInternal, "servable '" + std::string(servable_) + "': its worker answered with a stream of messages"});
  }
  part.waiting = false;
  part.has_errors = has_errors;
  part.reply = std::move(payload);
  if (--missing_ == 0) Complete();
}

void PredictCall::Complete() {
  Reply reply;
  reply.reserve(1 + 2 * parts_.size());
  reply.emplace_back(wire::SpecField(Spec(request_->message)));
  const bool has_errors = std::ranges::any_of(parts_, &Part::has_errors);
  if (has_errors) ++counts_->with_errors;
  for (Part& part : parts_) {
    if (part.has_errors) wire::CountErrorCodes(part.reply->bytes(), counts_->errors);
    reply.push_back(*std::move(part.reply));
    if (has_errors && !part.has_errors) reply.emplace_back(wire::SuccessErrors(part.payload.instances));
  }
  request_->StopCounting();
  request_.reset();
  parts_.clear();
  call_.Send(std::move(reply));
  call_.Finish(Status::Ok());
}

void PredictCall::OnWorkerEnd(uint32_t tag, Status status) {
  if (!request_) return;
  parts_[tag].waiting = false;
  Fail(std::move(status));
}

void PredictCall::OnWorkerLost(uint32_t tag) {
  if (!request_) return;
  Part& part = parts_[tag];
  part.waiting = false;
  std::vector<Router::Target>& targets = service_.targets_;
  if (part.attempts < service_.limits_.max_attempts &&
      service_.router_.Find(servable_, method_, version_, 1, &targets) == Router::Outcome::kFound) {
    return Send(tag, targets.front());
  }
  if (part.attempts >= service_.limits_.max_attempts) service_.stats_.Refuse(Refusal::kMaxAttempts);
  Fail({Code::kUnavailable,
        "Request " + Describe(servable_, method_, version_) + ", the worker that held it died" +
            (part.attempts > 1 ? ", at attempt " + std::to_string(part.attempts) + " of max_attempts " +
                                     std::to_string(service_.limits_.max_attempts)
                               : std::string())});
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

std::string_view PredictCall::Spec(const Message& message) const {
  if (merged_spec_) return *merged_spec_;
  const auto spec = message.bytes().subspan(spec_.offset, spec_.length);
  return {reinterpret_cast<const char*>(spec.data()), spec.size()};
}

void PredictCall::Fail(Status status, Metadata trailing) {
  GiveUp();
  call_.Finish(std::move(status), std::move(trailing));
}

void PredictCall::GiveUp() {
  message_.reset();
  for (const Part& part : parts_) {
    if (part.waiting) service_.calls_.Cancel(part.call);
  }
  if (request_) request_->GiveUp();
  request_.reset();
  parts_.clear();
}

}  // namespace mindserve::gateway
