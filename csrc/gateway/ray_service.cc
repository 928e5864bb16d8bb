#include "gateway/ray_service.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "gateway/auth.h"
#include "wire/ray_serve.h"

namespace mindserve::gateway {
namespace {

// One message of no content, one answer.
class AskedCall : public CallHandler {
 public:
  AskedCall(const Health& health, Call& call, std::string_view type) : health_(health), call_(call), type_(type) {}

  void OnMessage(Message message) override {
    if (Status status = wire::CheckEmptyMessage(message.bytes(), type_); !status.ok()) {
      return call_.Finish(std::move(status));
    }
    if (!health_.serving()) return call_.Finish({Code::kUnavailable, "the server is shutting down"});
    Reply reply;
    reply.emplace_back(Answer());
    call_.Send(std::move(reply));
  }
  void OnHalfClose() override { call_.Finish(Status::Ok()); }
  void OnCancel() override {}

 private:
  virtual std::string Answer() const = 0;

  const Health& health_;
  Call& call_;
  const std::string_view type_;  // of the message
};

class ListApplicationsCall final : public AskedCall {
 public:
  ListApplicationsCall(const Router& router, const Traffic& traffic, const Health& health, Call& call)
      : AskedCall(health, call, "ListApplicationsRequest"), router_(router), traffic_(traffic), call_(call) {}

 private:
  std::string Answer() const override {
    std::vector<std::string> names = router_.Servables();
    for (const Split* split : traffic_.splits()) {
      const auto at = std::ranges::lower_bound(names, split->name());
      if (at == names.end() || *at != split->name()) names.insert(at, split->name());
    }
    if (const ClientIdentity* identity = call_.identity(); identity != nullptr) {
      std::erase_if(names, [&](const auto& name) { return !identity->MayCall(name); });
    }
    return wire::WriteListApplicationsResponse(names);
  }

  const Router& router_;
  const Traffic& traffic_;
  const Call& call_;
};

class HealthzCall final : public AskedCall {
 public:
  HealthzCall(const Health& health, Call& call) : AskedCall(health, call, "HealthzRequest") {}

 private:
  std::string Answer() const override { return wire::WriteHealthzResponse("success"); }
};

}  // namespace

std::unique_ptr<CallHandler> ListApplicationsService::Start(Call& call) {
  return std::make_unique<ListApplicationsCall>(router_, traffic_, health_, call);
}

std::unique_ptr<CallHandler> HealthzService::Start(Call& call) {
  return std::make_unique<HealthzCall>(health_, call);
}

}  // namespace mindserve::gateway
