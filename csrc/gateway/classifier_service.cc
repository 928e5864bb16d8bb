#include "gateway/classifier_service.h"

#include <utility>

#include "base/utf8.h"
#include "gateway/predict_call.h"
#include "gateway/request_id.h"
#include "gateway/traffic.h"
#include "gateway/user_metadata.h"
#include "wire/classifier.h"

namespace mindserve::gateway {
namespace {

class ClassifierCall final : public PredictCall {
 public:
  ClassifierCall(ClassifierService& classifier, PredictService& service, Call& call, RequestId id)
      : PredictCall(service, call, std::move(id), nullptr, classifier.counts()), classifier_(classifier) {}

 private:
  Status ReadRoute(wire::Route* route) override {
    wire::ClassificationRoute read;
    MS_RETURN_IF_ERROR(wire::ReadClassificationRoute(message().bytes(), &read));
    if (read.data.length == 0) {
      return {Code::kInvalidArgument, "the ClassificationRequest has no data: expected an Any with a message"};
    }
    // The call keeps it, and the reply repeats it.
    if (read.puid.size() > kMostNameBytes) {
      return {Code::kInvalidArgument, "the ClassificationRequest's puid has " + std::to_string(read.puid.size()) +
                                          " bytes, expected at most " + std::to_string(kMostNameBytes)};
    }
    MS_RETURN_IF_ERROR(ChooseServable());
    puid_ = read.puid;
    if (puid_.empty()) {
      const RequestKeyPuid made = PuidOf(key());
      puid_.assign(made.data(), made.size());
    }
    size_ = message().bytes().size();
    route->servable = asked_;
    route->method = kClassifierPath;
    route->version = 0;
    route->spec = {};
    route->merged = false;
    route->instances.clear();
    // Without the puid: a request that is sent again after it has killed a worker is known by its data.
    route->instances.push_back(read.data);
    return Status::Ok();
  }

  Status ChooseServable() {
    asked_ = call().metadata_value(kApplicationKey);
    if (!asked_.empty()) return Status::Ok();
    auto meant = classifier_.answering().Meant(call(), "the Classifier");
    if (!meant.ok()) return meant.status();
    asked_ = *std::move(meant);
    if (!asked_.empty()) return Status::Ok();
    return {Code::kUnavailable,
            "no servable that answers the Classifier is running: it is starting, was stopped, or "
            "its servable_config.py has neither register.classifier nor register.data_handler"};
  }

  std::string_view Path() const override { return kClassifierPath; }

  // The servable that was asked for, and the variation that stands in for it.
  std::string Name() const {
    std::string name = "'" + std::string(CutUtf8(asked_, 256)) + "'";
    if (variation() == nullptr) return name;
    name += " (variation '" + variation()->name + "': '" + variation()->servable + "'";
    if (variation()->version != 0) name += " version " + std::to_string(variation()->version);
    return name + ")";
  }

  bool RefuseRoute(Router::Outcome outcome) override {
    if (outcome == Router::Outcome::kFound) return false;
    const std::string name = Name();
    switch (outcome) {
      case Router::Outcome::kNoServable: {
        if (variation() != nullptr) {
          Fail({Code::kUnavailable, "servable " + name + " is not available"});
          return true;
        }
        const std::string names = Quoted(classifier_.answering().NamesFor(call()));
        Fail({Code::kNotFound, "Application " + name + " not found: metadata 'application' has to name a servable" +
                                   (names.empty() ? "" : " that answers the Classifier, of which there is " + names)});
        return true;
      }
      case Router::Outcome::kNoMethod:
        Fail({Code::kUnimplemented, "servable " + name +
                                        " does not answer the Classifier: its servable_config.py has neither "
                                        "register.classifier nor register.data_handler"});
        return true;
      case Router::Outcome::kNoWorker:
      case Router::Outcome::kNoOther:
      case Router::Outcome::kFound:
        Fail({Code::kUnavailable, "no worker of servable " + name + " is running: it is starting, or was stopped"});
        return true;
    }
    return true;
  }

  // All of it: handlers are given the request as it came.
  WorkerCalls::Payload ToWorker(const WorkerCalls::Payload&) const override {
    return {.offset = 0, .length = size_, .instances = 1};
  }

  std::string Described() const override {
    return "Classification by servable " + Name() +
           (puid_.empty() ? "" : " puid '" + std::string(CutUtf8(puid_, 128)) + "'");
  }

  Status BeginReply(const ReplyPart& first, Reply* reply) override {
    auto meta = wire::WriteClassificationMeta(puid_, NameOf(variation()), first.bytes());
    if (!meta.ok()) return meta.status();
    reply->emplace_back(*std::move(meta));
    return Status::Ok();
  }

  ClassifierService& classifier_;
  std::string asked_;
  std::string puid_;  // its own, or made of its key
  size_t size_ = 0;   // of the message
};

}  // namespace

std::unique_ptr<CallHandler> ClassifierService::Start(Call& call) {
  RequestId id;
  Status status = Identify(call, context_.keys, &id);
  // Also where the client gave an id: the prediction's id is made of the key, here and by the worker.
  if (!id.made.known()) id.made = context_.keys.Next();
  auto handler = std::make_unique<ClassifierCall>(*this, predict_, call, std::move(id));
  if (!status.ok()) call.Finish(std::move(status));
  return handler;
}

}  // namespace mindserve::gateway
