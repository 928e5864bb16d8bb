#include "gateway/health_service.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "base/utf8.h"

namespace mindserve::gateway {
namespace {

class CheckCall final : public CallHandler {
 public:
  CheckCall(const Health& health, Call& call) : health_(health), call_(call) {}

  void OnMessage(Message message) override {
    const auto service = wire::ReadHealthRequest(message.bytes());
    if (!service.ok()) return call_.Finish(service.status());
    const wire::ServingStatus status = health_.Get(*service);
    if (status == wire::ServingStatus::kServiceUnknown) {
      return call_.Finish(
          {Code::kNotFound, "no servable or service '" + std::string(CutUtf8(*service, 256)) + "' is known"});
    }
    Reply reply;
    reply.emplace_back(wire::WriteHealthResponse(status));
    call_.Send(std::move(reply));
  }
  void OnHalfClose() override { call_.Finish(Status::Ok()); }
  void OnCancel() override {}

 private:
  const Health& health_;
  Call& call_;
};

class WatchCall final : public CallHandler, public Health::Watcher {
 public:
  WatchCall(Health& health, Call& call) : health_(health), call_(call) { call_.DropMetadata(); }
  ~WatchCall() override { health_.Remove(*this); }

  void OnMessage(Message message) override {
    const auto service = wire::ReadHealthRequest(message.bytes());
    if (!service.ok()) return call_.Finish(service.status());
    service_ = *service;
    health_.Add(*this);
    OnHealthChange();
  }
  void OnHalfClose() override {}
  void OnCancel() override { health_.Remove(*this); }

  void OnHealthChange() override {
    const wire::ServingStatus status = health_.Get(service_);
    if (status != last_) {
      last_ = status;
      Reply reply;
      reply.emplace_back(wire::WriteHealthResponse(status));
      call_.Send(std::move(reply));
    }
    if (!health_.serving()) call_.Finish({Code::kUnavailable, "the server is shutting down"});
  }

 private:
  Health& health_;
  Call& call_;
  std::string service_;
  std::optional<wire::ServingStatus> last_;
};

}  // namespace

void Health::SetServing(bool serving) {
  if (std::exchange(serving_, serving) != serving) Changed();
}

void Health::Changed() {
  const std::vector<Watcher*> watchers(watchers_.begin(), watchers_.end());
  for (Watcher* watcher : watchers) watcher->OnHealthChange();
}

bool Health::Known(std::string_view name) const {
  return name.empty() || router_.Known(name) || traffic_.Find(name) != nullptr ||
         (served_ != nullptr && std::ranges::binary_search(served_->names, name));
}

// Of one that is known.
bool Health::Alive(std::string_view name) const {
  if (name.empty()) return true;
  if (const Split* split = traffic_.Find(name)) {
    return std::ranges::any_of(split->variations(), [this](const Variation& variation) {
      return variation.share > 0 && router_.Alive(variation.servable);
    });
  }
  if (router_.Known(name)) return router_.Alive(name);
  if (std::ranges::find(served_->services, name, &ServiceSpec::name) == served_->services.end()) return true;
  return std::ranges::any_of(router_.Answering(name), [this](const auto& servable) { return router_.Alive(servable); });
}

wire::ServingStatus Health::Get(std::string_view name) const {
  if (!Known(name)) return wire::ServingStatus::kServiceUnknown;
  return serving_ && Alive(name) ? wire::ServingStatus::kServing : wire::ServingStatus::kNotServing;
}

std::unique_ptr<CallHandler> HealthCheckService::Start(Call& call) {
  return std::make_unique<CheckCall>(health_, call);
}

std::unique_ptr<CallHandler> HealthWatchService::Start(Call& call) {
  return std::make_unique<WatchCall>(health_, call);
}

}  // namespace mindserve::gateway
