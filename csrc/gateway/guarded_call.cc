#include "gateway/guarded_call.h"

#include <string>
#include <utility>

#include "gateway/admit.h"
#include "gateway/grpc_text.h"
#include "gateway/thread_context.h"

namespace mindserve::gateway {

void HeldCall::OnMessage(Message message) {
  if (messages_.size() >= kMostMessages) {
    return call_.Finish({Code::kResourceExhausted, "more than " + std::to_string(kMostMessages) +
                                                       " messages came before the call's token was verified"});
  }
  messages_.push_back(std::move(message));
}

void HeldCall::OnCancel() {
  tokens_.Leave(*this);
  messages_.clear();
}

void HeldCall::HandTo(CallHandler& handler, const bool& over) {
  for (Message& message : messages_) {
    if (over) return;
    handler.OnMessage(std::move(message));
  }
  if (half_closed_ && !over) handler.OnHalfClose();
}

void GuardedCall::LetIn(ThreadContext& context, Service& service) {
  context_of_guard_ = &context;
  guarded_ = &service;
  TokenCache& tokens = *context.tokens;
  const std::string_view authorization = metadata_value("authorization");
  const std::string_view oauth_token = metadata_value("oauth_token");
  std::string names;
  std::string_view text;
  const bool shows_token = !authorization.empty() || !oauth_token.empty();
  if (!shows_token) {
    names = CertificateNames(auth());
    if (names.empty()) return Refuse(NoCredentials());
    text = names;
  } else {
    const auto token = TokenOf(authorization, oauth_token);
    if (!token.ok()) return Refuse(token.status());
    text = *token;
  }
  if (const TokenCache::Verdict* verdict = tokens.Find(text, context.now)) return OnVerdict(*verdict);
  if (shows_token) {
    if (Status status = CheckToken(text); !status.ok()) return Refuse(std::move(status));
  }
  HeldCall::Owner& owner = *this;
  auto held = std::make_unique<HeldCall>(tokens, *this, owner);
  if (!tokens.Await(text, *held)) {
    context.stats.Refuse(Refusal::kTokenQueue);
    return Refuse({Code::kResourceExhausted, "too many tokens wait to be verified, and this one is not known yet"},
                  TryLater());
  }
  DropCredentials();
  handler_ = std::move(held);
}

void GuardedCall::OnVerdict(const TokenCache::Verdict& verdict) {
  if (finished_) return;
  if (verdict.identity == nullptr) {
    return Refuse(verdict.refusal, verdict.refusal.code() == Code::kResourceExhausted ? TryLater() : Metadata());
  }
  if (auto refused = pass_.Enter(verdict.identity, context_of_guard_->now)) {
    context_of_guard_->stats.Refuse(refused->by_rate ? Refusal::kRate : Refusal::kMaxInFlight);
    return Refuse(std::move(refused->status), {{kRetryPushbackKey, std::to_string(refused->retry.count())}});
  }
  DropCredentials();
  const std::unique_ptr<CallHandler> held = std::move(handler_);
  handler_ = guarded_->Start(*this);
  if (held != nullptr) static_cast<HeldCall&>(*held).HandTo(*handler_, finished_);
}

void GuardedCall::Refuse(Status status, Metadata trailing) {
  guarded_->OnRefused(*this);
  Finish(std::move(status), std::move(trailing));
}

}  // namespace mindserve::gateway
