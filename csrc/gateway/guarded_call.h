// A call from outside, which is let in once it is known who makes it.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "base/request_key.h"
#include "gateway/auth.h"
#include "gateway/call.h"

namespace mindserve::gateway {

struct ThreadContext;

// Takes what a client sends while its token is being verified, for the service's handler, which comes later.
class HeldCall final : public CallHandler, public TokenCache::Waiter {
 public:
  // So many messages at most: their bytes are counted, but not those of empty ones.
  static constexpr size_t kMostMessages = 1'000;
  class Owner {
   public:
    virtual ~Owner() = default;
    virtual void OnVerdict(const TokenCache::Verdict& verdict) = 0;
  };
  // All outlive it.
  HeldCall(TokenCache& tokens, Call& call, Owner& owner) : tokens_(tokens), call_(call), owner_(owner) {}
  ~HeldCall() override { tokens_.Leave(*this); }

  void OnMessage(Message message) override;
  void OnHalfClose() override { half_closed_ = true; }
  void OnCancel() override;

  // Hands on what has come, as long as the call is not `over`.
  void HandTo(CallHandler& handler, const bool& over);

 private:
  void OnVerdict(const TokenCache::Verdict& verdict) override { owner_.OnVerdict(verdict); }

  TokenCache& tokens_;
  Call& call_;
  Owner& owner_;
  std::vector<Message> messages_;
  bool half_closed_ = false;
};

class GuardedCall : public Call, private HeldCall::Owner {
 public:
  const ClientIdentity* identity() const final { return pass_.identity(); }
  void SetKey(const RequestKey& key) final { key_ = key; }

 protected:
  explicit GuardedCall() = default;

  // Starts the service at once, later, or never. Only with the context's tokens, where the service is not open to all.
  void LetIn(ThreadContext& context, Service& service);
  // The call is over: it counts no more.
  void Leave() { pass_.Leave(); }

  // Credentials are nobody's business behind this.
  virtual void DropCredentials() = 0;

  std::unique_ptr<CallHandler> handler_;
  bool finished_ = false;
  RequestKey key_;  // unknown: no id was made

 private:
  void OnVerdict(const TokenCache::Verdict& verdict) override;
  void Refuse(Status status, Metadata trailing = {});

  ThreadContext* context_of_guard_ = nullptr;  // these two from LetIn on
  Service* guarded_ = nullptr;
  ClientPass pass_;
};

}  // namespace mindserve::gateway
