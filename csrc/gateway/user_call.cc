#include "gateway/user_call.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "gateway/grpc_text.h"
#include "gateway/inner_call.h"
#include "gateway/request_id.h"
#include "gateway/user_metadata.h"
#include "wire/call_head.h"

namespace mindserve::gateway {
namespace {

Status BrokenLink(const std::string& why) {
  return {Code::kInternal, "the worker's answer is broken: " + why};
}

}  // namespace

std::string UserCall::Described() const {
  return "request " + request_id_ + " of '" + service_.path_ + "'";
}

void UserCall::Begin() {
  model_ = call_.metadata_value(kModelIdKey);
  if (service_.kind_.client_streaming) Open();
}

Status UserCall::WriteHead(std::string* bytes) {
  wire::CallHead head{.request_id = request_id_,
                      .model_id = model_,
                      .peer = call_.peer().address,
                      .depth = call_.inner().depth,
                      .callers = call_.inner().callers,
                      .plain = !call_.accepts_gzip()};
  for (const auto& [key, value] : call_.metadata()) {
    if (IsInnerCallKey(key)) continue;
    if (!IsBinaryKey(key) && !IsMetadataText(value)) {
      return {Code::kInvalidArgument, "metadata '" + key + "' has a value that is not printable ASCII"};
    }
    head.metadata.emplace_back(key, value);
  }
  for (const auto& [key, value] : call_.auth()) head.auth.emplace_back(key, value);
  *bytes = wire::WriteCallHead(head);
  return Status::Ok();
}

bool UserCall::Open() {
  const auto refuse = [this](Status status, Metadata trailing = {}) {
    Fail(std::move(status), std::move(trailing));
    return false;
  };
  if (!goal_) {
    auto goal = service_.ChooseGoal(call_);
    if (!goal.ok()) return refuse(goal.status());
    goal_ = *std::move(goal);
  }
  const std::shared_ptr<Variation>& variation = goal_->variation;
  if (variation) {
    call_.SetTrailing({{std::string(kRequestIdKey), request_id_}, {std::string(kVariationKey), variation->name}});
  }
  const auto target = service_.ChooseWorker(*goal_, model_, call_);
  if (!target.ok()) {
    if (variation) call_.CountAs(shared_.traffic.Unanswered(*variation, service_.path_));
    return refuse(target.status());
  }
  call_.CountAs(variation ? shared_.traffic.Counts(*variation, *target) : *target->counts);
  std::string head;
  if (Status status = WriteHead(&head); !status.ok()) return refuse(std::move(status));
  CallStats& stats = shared_.context.stats;
  auto place = shared_.context.memory.Allocate(head.size());
  if (!place.ok()) {
    stats.Refuse(Refusal::kMaxEnqueuedBytes);
    return refuse(place.status(), TryLater());
  }
  std::memcpy(place->bytes().data(), head.data(), head.size());
  request_ = std::make_shared<Request>(*std::move(place));
  const size_t size = message_ ? message_->bytes().size() : 0;
  const bool unary = !service_.kind_.client_streaming && !service_.kind_.server_streaming;
  const auto refused = Admit(shared_.admission, *target->worker->version()->admission, goal_->servable, size,
                             AskerOf(call_, !unary), shared_.context.now, stats, &request_->admitted);
  if (refused) return refuse(std::move(refused->status), std::move(refused->trailing));
  if (message_) {
    request_->stream.Add(*std::move(message_), {});  // counted for the servable as admitted
    request_->half_closed = true;
    message_.reset();
  }
  Send(*target);
  if (!unary) call_.DropMetadata();  // the request has it
  if (variation && variation->mirrors != nullptr && unary) {
    shared_.mirrors.Offer(*variation, goal_->method, call_, request_, std::nullopt, {});
  }
  return true;
}

void UserCall::Send(const Router::Target& target) {
  ++sends_;
  worker_ = target.worker;
  idempotent_ = worker_->spec().methods[target.method].idempotent;
  if (!model_.empty()) worker_->models().Begin(model_);
  number_ = shared_.calls.OpenUser(worker_, target.method, request_,
                                   {.deadline = call_.deadline(), .client = call_.client()}, *this);
}

void UserCall::LeaveWorker() {
  if (worker_ == nullptr) return;
  if (!model_.empty()) worker_->models().End(model_);
  worker_.reset();
}

void UserCall::OnMessage(Message message) {
  if (!service_.kind_.client_streaming) {
    message_ = std::move(message);
    return;
  }
  if (!request_) return;
  BytesTicket bytes;
  if (auto refused = AdmitBytes(*worker_->version()->admission, goal_->servable, message.bytes().size(),
                                shared_.context.stats, &bytes)) {
    return Fail(std::move(refused->status), std::move(refused->trailing));
  }
  shared_.calls.SendMessage(number_, message);
  request_->stream.Add(std::move(message), std::move(bytes));
}

void UserCall::OnHalfClose() {
  if (!service_.kind_.client_streaming) {
    Open();
    return;
  }
  if (!request_) return;
  request_->half_closed = true;
  shared_.calls.SendHalfClose(number_);
}

void UserCall::OnWorkerInitial(std::span<const std::byte> bytes, bool gzip) {
  if (!request_) return;
  const auto given = wire::ReadMetadata(bytes);
  if (!given.ok()) return Fail(BrokenLink(given.status().message()));
  if (replied_) return Fail(BrokenLink("initial metadata behind what comes after it"));
  replied_ = true;
  encodes_ = gzip && call_.accepts_gzip();
  SendInitial(ForClient(*given, request_id_, shared_.context));
}

// The end of a stream may be far, and what is in front of one that ends well has HTTP's headers made of it.
bool UserCall::NamesVariationFirst() const {
  return service_.kind_.server_streaming && goal_->variation != nullptr;
}

void UserCall::SendInitial(Metadata initial) {
  if (NamesVariationFirst()) initial.emplace_back(kVariationKey, goal_->variation->name);
  call_.SendInitial(initial, encodes_);
}

void UserCall::OnWorkerReply(uint32_t, ReplyPart payload, uint8_t flags) {
  if (!request_) return;
  if (messages_ > 0 && !service_.kind_.server_streaming) {
    return Fail(BrokenLink("a second message, of a method that answers with one"));
  }
  ++messages_;
  const bool ends = (flags & link::kEnds) != 0;
  if (ends) {
    LeaveWorker();
    request_->StopCounting();
  }
  if ((flags & link::kCompressed) == 0) {
    if (!replied_ && NamesVariationFirst()) SendInitial({});
    call_.SendOne(std::move(payload), /*compressed=*/false);
  } else if (!SendCompressed(std::move(payload))) {
    return;
  }
  replied_ = true;
  if (ends) Complete(Status::Ok());
}

bool UserCall::SendCompressed(ReplyPart message) {
  if (!replied_ && call_.accepts_gzip()) {
    encodes_ = true;
    SendInitial({});
  }
  if (!encodes_) {
    Fail(BrokenLink("a compressed message, of which its client was not told"));
    return false;
  }
  call_.SendOne(std::move(message), /*compressed=*/true);
  return true;
}

void UserCall::OnWorkerEnd(uint32_t, Status status) {
  if (!request_) return;
  Complete(std::move(status));
}

void UserCall::OnWorkerTrailing(Code code, std::span<const std::byte> bytes) {
  if (!request_) return;
  const auto end = wire::ReadCallEnd(bytes);
  if (!end.ok()) return Complete(BrokenLink(end.status().message()));
  Metadata trailing = ForClient(end->trailing, request_id_, shared_.context);
  if (code != Code::kOk) return Complete(Status(code, std::string(end->details)), std::move(trailing));
  if (!end->details.empty()) {
    // Of OK too, as other servers do; some clients show it.
    trailing.emplace_back("grpc-message", PercentEncode(end->details, kMostGrpcMessage));
  }
  Complete(Status::Ok(), std::move(trailing));
}

void UserCall::Complete(Status status, Metadata trailing) {
  LeaveWorker();
  request_->StopCounting();
  request_.reset();
  if (status.ok() && messages_ == 0 && !service_.kind_.server_streaming) {
    status = BrokenLink("it ended without the message that the method answers with");
  }
  call_.Finish(std::move(status), std::move(trailing));
}

void UserCall::OnWorkerLost(uint32_t, const LostCall& lost) {
  if (!request_) return;
  LeaveWorker();
  ThreadContext& context = shared_.context;
  const std::string died = Described() + ": the worker that had it died: " + lost.loss.why;
  const auto fail = [&](const std::string& why, Metadata trailing = {}) {
    const std::string text = died + why;
    context.log.Warn(context.now, text);
    Fail({Code::kUnavailable, text}, std::move(trailing));
  };
  const size_t max_attempts = context.limits.max_attempts;
  if (lost.begun) {
    ++deaths_;
    if (replied_) return fail(". A part of the answer had been sent");
    if (!idempotent_ || service_.kind_.client_streaming) {
      const std::string why = idempotent_ ? "its client sends a stream" : "its method is not idempotent";
      return fail(". Its handler may have begun, and " + why + ", so it is not sent again");
    }
    if (deaths_ >= max_attempts) {
      context.stats.Refuse(Refusal::kMaxAttempts);
      return fail(". " + std::to_string(deaths_) + (deaths_ == 1 ? " worker" : " workers") +
                      " died with it (max_attempts " + std::to_string(max_attempts) + ")",
                  TryNever());
    }
  }
  if (sends_ >= kMostSends) {
    context.stats.Refuse(Refusal::kMaxAttempts);
    return fail(". It was sent to " + std::to_string(sends_) + " workers, and each died before its handler had begun");
  }
  const auto target = service_.ChooseWorker(*goal_, model_, call_);
  if (!target.ok()) return fail(", and there is no other");
  context.log.Warn(context.now, died + ". Another one gets it");
  Send(*target);
}

void UserCall::Fail(Status status, Metadata trailing) {
  GiveUp();
  call_.Finish(std::move(status), std::move(trailing));
}

void UserCall::GiveUp() {
  message_.reset();
  if (worker_ != nullptr) shared_.calls.Cancel(number_);
  LeaveWorker();
  if (request_) request_->GiveUp();
  request_.reset();
}

}  // namespace mindserve::gateway
