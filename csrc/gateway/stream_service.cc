#include "gateway/stream_service.h"

#include <optional>
#include <string>
#include <utility>

#include "gateway/auth.h"

namespace mindserve::gateway {

class StreamCall final : public CallHandler {
 public:
  StreamCall(StreamService& service, Call& call) : service_(service), call_(call) {}

  void OnMessage(Message message) override {
    next_ = Choose(message);
    if (next_) next_->OnMessage(std::move(message));
  }
  void OnHalfClose() override {
    if (next_) next_->OnHalfClose();
  }
  void OnCancel() override {
    if (next_) next_->OnCancel();
  }

 private:
  // Null: it is answered.
  std::unique_ptr<CallHandler> Choose(const Message& message) {
    wire::Route& route = service_.route_;
    const size_t most = service_.shared_.context.limits.max_instances_per_request;
    const Status read = wire::ReadRoute(message.bytes(), most, &route);
    std::shared_ptr<Variation> variation;
    if (read.ok()) {
      if (const ClientIdentity* identity = call_.identity(); identity != nullptr) {
        if (Status status = identity->Check(route.servable); !status.ok()) {
          service_.OnRefused(call_);
          call_.Finish(std::move(status));
          return nullptr;
        }
      }
      UserService::Goal goal{std::string(route.servable), StreamPath(route.method), route.version};
      variation = service_.shared_.traffic.Choose(route.servable, route.version, call_);
      if (variation) {
        goal = {variation->servable, std::move(goal.method), variation->version, variation};
      }
      const auto outcome =
          service_.shared_.router.Find(goal.servable, goal.method, goal.version, 1, &service_.targets_);
      const bool streams = outcome != Router::Outcome::kNoServable && outcome != Router::Outcome::kNoMethod;
      const size_t instances = route.instances.size();
      if (instances > 1 || (instances == 0 && streams)) {
        Refuse(route, message);
        return nullptr;
      }
      if (streams) return service_.streams_.StartAt(call_, std::move(goal));
    }
    return service_.predict_.StartAt(call_, std::move(variation));
  }

  void Refuse(const wire::Route& route, const Message& message) {
    constexpr auto kCode = wire::ErrorCode::kInvalidInput;
    ++service_.counts().with_errors;
    ++service_.counts().errors[static_cast<size_t>(kCode)];
    const auto spec = message.bytes().subspan(route.spec.offset, route.spec.length);
    service_.OnRefused(call_);
    Reply reply;
    reply.emplace_back(wire::ErrorReply({reinterpret_cast<const char*>(spec.data()), spec.size()}, kCode,
                                        "instances count is " + std::to_string(route.instances.size()) +
                                            ", expected one: each has a stream of its own"));
    call_.Send(std::move(reply));
    call_.Finish(Status::Ok());
  }

  StreamService& service_;
  Call& call_;
  std::unique_ptr<CallHandler> next_;  // who has the call, once the message is there
};

std::unique_ptr<CallHandler> StreamService::Start(Call& call) {
  return std::make_unique<StreamCall>(*this, call);
}

}  // namespace mindserve::gateway
