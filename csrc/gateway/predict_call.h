// One Predict request: its way to workers, again to others when workers die, and back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gateway/predict_service.h"
#include "gateway/request_id.h"
#include "gateway/timer_heap.h"

namespace mindserve::gateway {

// As many suspects of an I/O thread, of each standing, may wait for a worker that may execute them.
inline constexpr size_t kMostWaiting = 1000;

class PredictCall : public CallHandler, private WorkerCallListener, private TimerNode {
 public:
  // `variation`: as PredictService::StartAt says. `counts`: as what it is counted until it is known for which method it
  // is; they outlive the call.
  PredictCall(PredictService& service, Call& call, RequestId id, std::shared_ptr<Variation> variation,
              MethodCounts& counts)
      : service_(service), call_(call), id_(std::move(id)), counts_(&counts), variation_(std::move(variation)) {}
  ~PredictCall() override { GiveUp(); }

  void OnMessage(Message message) override { message_ = std::move(message); }
  void OnHalfClose() override;
  void OnCancel() override { GiveUp(); }

  // It waits, and there is another worker.
  void TryAgain();

 protected:
  // What the methods below may look at. Where a request goes, and as what it comes back, is theirs; all in between, the
  // limits, deaths of workers and requests that cause them, is the same for all that goes to workers like Predict.
  const Message& message() const { return *message_; }
  const Call& call() const { return call_; }
  ThreadContext& context() { return service_.context_; }
  const RequestKey& key() const { return id_.made; }
  const Variation* variation() const { return variation_.get(); }  // that answers; null: none was chosen
  void Fail(Status status, Metadata trailing = {});

  // Reads what the message asks for. What the route's views look at lives as long as the call.
  virtual Status ReadRoute(wire::Route* route);
  // There is nobody who could answer: answers that, and is true.
  virtual bool RefuseRoute(Router::Outcome outcome);
  // What of the message goes to a worker that gets these of its instances.
  virtual WorkerCalls::Payload ToWorker(const WorkerCalls::Payload& instances) const { return instances; }
  // Of the gRPC method that was called.
  virtual std::string_view Path() const { return kPredictPath; }
  // "Request Servable(add) method(add_common) version(1)", as the client named them, and the variation.
  virtual std::string Described() const;
  // Adds what comes before the workers' parts, of which this is the first. INTERNAL: that is broken.
  virtual Status BeginReply(const ReplyPart& first, Reply* reply);

 private:
  // A worker's share of the instances.
  struct Part {
    WorkerCalls::Payload payload;
    uint64_t call = 0;
    size_t sends = 0;
    size_t deaths = 0;       // of workers that were executing it
    bool alone = false;      // it is a suspect
    bool at_worker = false;  // which has not answered
    bool suspended = false;  // waits for a worker
    bool has_errors = false;
    std::optional<ReplyPart> reply;
  };

  void OnWorkerReply(uint32_t tag, ReplyPart payload, uint8_t flags) override;
  void OnWorkerEnd(uint32_t tag, Status status) override;
  void OnWorkerLost(uint32_t tag, const LostCall& lost) override;
  void OnAnswerWaits() override { call_.AnswerWaits(); }
  // It has waited for too long.
  void OnTimer() override;

  // A variation answers it, instead of what the client has named.
  void Divert();
  // Counts the request against the limits. False: there is no room, which is answered.
  bool Admit(size_t instances);
  // What the worker is to know of the call besides its message goes before it. RESOURCE_EXHAUSTED: there is no room.
  Status AddHead();
  // Sends a part to a worker where it may go, or lets it wait for one. False: there is none.
  bool Dispatch(uint32_t tag);
  void Send(uint32_t tag, const Router::Target& target);
  void Suspend(uint32_t tag);
  void StopWaiting();
  // A worker died while it executed the part, and that was once too often.
  void SetAside(const Part& part, const LostCall& lost);

  void SetTrailing();
  void AnswerError(wire::ErrorCode code, const std::string& text);
  void Complete();
  void GiveUp();
  // The content of the reply's servable_spec. It lies in the message, or here.
  std::string_view Spec(const Message& message) const;
  // All instances, as they lie in the message.
  std::span<const std::byte> Instances(const Message& message) const;

  PredictService& service_;
  Call& call_;
  const RequestId id_;
  MethodCounts* counts_;                         // as what the call is counted; until it is finished
  std::optional<Message> message_;               // until it is dispatched
  std::shared_ptr<Request> request_;             // from then on, until the call is answered
  std::shared_ptr<VersionState> version_state_;  // of the version that it was routed to
  std::shared_ptr<Variation> variation_;         // null: none. Shared as Traffic says
  std::string_view servable_;                    // these two lie in the request, or the first in the variation
  std::string_view method_;
  uint64_t version_ = 0;
  bool idempotent_ = true;
  wire::Extent spec_;
  std::optional<std::string> merged_spec_;  // for a request with several specs, instead of the above
  wire::Extent instances_;
  std::vector<Part> parts_;
  size_t missing_ = 0;  // parts without an answer
  // Its place, while it waits.
  struct Waiting {
    std::list<PredictCall*>* line;
    std::list<PredictCall*>::iterator at;
  };
  std::optional<Waiting> waiting_;
  TimePoint suspense_ends_ = kNever;  // set when it first waits
};

}  // namespace mindserve::gateway
