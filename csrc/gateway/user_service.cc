#include "gateway/user_service.h"

#include <algorithm>

#include "base/utf8.h"
#include "gateway/auth.h"
#include "gateway/user_call.h"
#include "gateway/user_metadata.h"

namespace mindserve::gateway {
std::unique_ptr<CallHandler> UserService::StartAt(Call& call, std::optional<Goal> goal) {
  RequestId id;
  Status status = Identify(call, shared_.context.keys, &id);
  auto handler = std::make_unique<UserCall>(*this, call, id.text(), std::move(goal));
  if (status.ok()) {
    handler->Begin();
  } else {
    call.Finish(std::move(status));
  }
  return handler;
}

void UserService::OnRefused(Call& call) {
  RequestId id;
  (void)Identify(call, shared_.context.keys, &id);
}

std::string UserService::Described() const {
  return "service '" + std::string(ServiceOf(path_)) + "'";
}

Result<UserService::Goal> UserService::ChooseGoal(const Call& call) {
  auto servable = ChooseServable(call);
  if (!servable.ok()) return servable.status();
  if (const ClientIdentity* identity = call.identity(); identity != nullptr) {
    MS_RETURN_IF_ERROR(identity->Check(*servable));
  }
  if (auto variation = shared_.traffic.Choose(*servable, 0, call)) {
    return Goal{variation->servable, path_, variation->version, variation};
  }
  return Goal{*std::move(servable), path_};
}

Result<std::string> UserService::ChooseServable(const Call& call) {
  const std::string_view named = call.metadata_value(kApplicationKey);
  if (!named.empty()) return std::string(named);
  auto meant = answering_.Meant(call, Described());
  if (!meant.ok() || !meant->empty()) return meant;
  if (path_ == kDriverPath) return Status(Code::kUnimplemented, "no servable has a driver");
  return Status(Code::kUnavailable,
                "no servable that answers " + Described() + " is running: it is starting, or was stopped");
}

Result<Router::Target> UserService::ChooseWorker(const Goal& goal, std::string_view model, const Call& call) {
  std::string name = "'" + std::string(CutUtf8(goal.servable, 256)) + "'";
  if (const auto& variation = goal.variation) {
    name += " (variation '" + variation->name + "' of '" + variation->split + "')";
  }
  std::vector<Router::Target>& targets = shared_.targets;
  switch (shared_.router.Find(goal.servable, goal.method, goal.version, SIZE_MAX, &targets)) {
    case Router::Outcome::kNoServable: {
      if (goal.variation) {
        return Status(Code::kUnavailable, "servable " + name +
                                              (goal.version == 0 ? "" : " version " + std::to_string(goal.version)) +
                                              " is not available");
      }
      const std::string names = Quoted(answering_.NamesFor(call));
      return Status(Code::kNotFound,
                    "Application " + name + " not found: metadata 'application' has to name a servable" +
                        (names.empty() ? "" : " that answers " + Described() + ", of which there is " + names));
    }
    case Router::Outcome::kNoMethod:
      return Status(
          Code::kUnimplemented,
          "servable " + name + (path_ == kDriverPath ? " has no driver" : " has no method '" + goal.method + "'"));
    case Router::Outcome::kNoWorker:
    case Router::Outcome::kNoOther:
      return Status(Code::kUnavailable,
                    "no worker of servable " + name + " is running: it is starting, or was stopped");
    case Router::Outcome::kFound:
      break;
  }
  return Choose(targets, model);
}

const Router::Target& UserService::Choose(const std::vector<Router::Target>& targets, std::string_view model) {
  const Router::Target& least = targets.front();
  if (model.empty() || targets.size() == 1) return least;
  // To load a model costs more than to wait for some calls.
  constexpr size_t kMostMore = 64;
  const auto first = [&](const auto& fits) -> const Router::Target* {
    const auto found =
        std::ranges::find_if(targets, [&](const Router::Target& target) { return fits(target.worker->models()); });
    return found != targets.end() && found->worker->load <= least.worker->load + kMostMore ? &*found : nullptr;
  };
  if (const auto* holder = first([&](const ModelSet& models) { return models.Holds(model); })) return *holder;
  if (const auto* loads = first([&](const ModelSet& models) { return models.HasCalls(model); })) return *loads;
  return least;
}

}  // namespace mindserve::gateway
