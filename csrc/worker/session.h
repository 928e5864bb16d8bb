// One run of Runtime::Serve.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "net/event_loop.h"
#include "wire/predict.h"
#include "worker/answer_line.h"
#include "worker/releases.h"
#include "worker/runtime.h"
#include "worker/service_calls.h"
#include "worker/sliced_reply.h"

namespace mindserve::worker {

// A round of the loop takes what came, runs models, and sends what is done.
class Runtime::Session final : private net::RoundHooks {
 public:
  Session(Runtime& runtime, UniqueFd socket)
      : runtime_(runtime),
        engine_(*runtime.engine_),
        link_(runtime.link_.get()),
        socket_(std::move(socket)),
        bell_(runtime.loop_->NewWatch(link_->bell_fd())),
        hang_up_(runtime.loop_->NewWatch(socket_.get())),
        timer_(runtime.loop_->NewTimer()),
        calls_(link_->lanes()),
        heads_(link_->lanes()),
        starved_(link_->lanes()),
        full_since_(link_->lanes(), kNever),
        service_calls_(*link_, runtime.handlers_, runtime.options_.reply_arena_bytes / 2, runtime.handler_stats_) {}

  Status Run();

 private:
  // An instance's inputs, or what is wrong with it alone.
  struct ReadInstance {
    Status status;
    std::vector<Tensor> inputs;
  };

  // What is being done to a large request, a step at a time: between steps others are served.
  struct Sliced {
    enum class Phase : uint8_t { kReading, kSubmitting, kExecuted, kMeasuring, kAllocating, kWriting, kFreeing };
    Phase phase = Phase::kReading;
    int method_number = 0;
    uint32_t expected = 0;
    std::optional<wire::InstanceReader> reader;
    std::vector<ReadInstance> read;
    size_t submitted = 0;
    std::optional<SlicedReply> reply;
    std::optional<link::Slab> slab;
  };

  // A request, or the part of one that came to this worker.
  struct Request final : pipeline::ResultSink {
    Request(Session& owner, size_t on_lane, uint64_t number, const pipeline::MethodSpec& called)
        : session(owner), lane(on_lane), call(number), method(called) {}
    void InstanceDone(uint32_t index, Status status, std::span<Tensor> outputs) override;

    Session& session;
    const size_t lane;
    const uint64_t call;
    const pipeline::MethodSpec& method;
    std::shared_ptr<pipeline::RequestContext> context;  // shared with the engine's instances
    std::shared_ptr<Payload> payload;                   // shared with the tensors that look at it
    std::vector<wire::InstanceReply> replies;
    size_t left = 0;
    size_t late = 0;                // instances whose deadline passed
    bool shaped_by_client = false;  // of the Classifier: as ClassificationTarget says
    std::unique_ptr<Sliced> sliced;
  };

  void Handle(size_t lane, const link::GatewayFrame& frame);
  // Of a handler; false if it is no handler's.
  bool OpenService(size_t lane, const link::GatewayFrame& frame);
  void Open(size_t lane, const link::GatewayFrame& frame);
  // Keeps what is told of the call that comes next.
  void TakeHead(size_t lane, const link::GatewayFrame& frame);
  // Of the Classifier: its message is read, and its answer written, otherwise than Predict's.
  bool Classifies(const Request& request) const {
    return runtime_.classifier_ && &request.method == &engine_.method(runtime_.classifier_->method());
  }
  void OpenClassification(Request& request, const link::GatewayFrame& frame);
  AnswerLine::Tried TryClassificationReply(Request& request, bool others_wait);
  Status Read(const Request& request, const link::GatewayFrame& frame);
  void Answer(Request& request);
  // One to send an answer, or to begin with that. `others_wait`: for room in the lane.
  using Attempt = AnswerLine::Tried (Session::*)(Request& request, bool others_wait);
  AnswerLine::Tried TryReply(Request& request, bool others_wait);
  void End(Request& request, const Status& status);
  void EndTooLarge(Request& request, size_t size);
  static Status WrongCount(size_t count, size_t expected);
  // Lets go of everything that looks at the request's bytes; true if nobody else does.
  bool LetGo(Request& request);
  void Forget(Request& request) { calls_[request.lane].erase(request.call); }
  // Of `read_`, with the memory that they had: most requests have a few.
  void ClearRead();
  // Large requests: session_sliced.cc.
  void OpenSliced(Request& request, const link::GatewayFrame& frame);
  void RunSliced();
  // Whether there is a next step to be done; else the request may be gone.
  bool Step(Request& request);
  bool StepReading(Request& request);
  bool StepSubmitting(Request& request);
  void AnswerSliced(Request& request);
  AnswerLine::Tried AllocateSliced(Request& request, bool others_wait);
  bool StepFreeing(Request& request);
  link::WorkerLink::Allocation Allocate(const Request& request, size_t size, bool others_wait);
  // Has the answer wait for reply memory if others that do come first, or `attempt` finds none.
  void TryInTurn(Request& request, Attempt attempt);
  void SendReleases();
  // Whether some are left to be tried at once.
  bool RetryStarved();
  // Has clients that don't take their answers make room for those that have waited for long, of others or their own.
  void TellLacks();

  void AwaitBell();
  void SetTimer(TimePoint at);
  // Whether the call was refused since it can't be done in time.
  bool RefuseLate(size_t lane, const link::GatewayFrame& frame);
  TimePoint FindHung();
  std::string Describe(const Watched& watched) const;
  void StopWith(Status status);
  void RoundEnd() override;
  bool PrepareSleep() override { return !more_ && runtime_.handlers_->PrepareSleep() && link_->PrepareSleep(); }
  void Awake() override {
    link_->Awake();
    runtime_.handlers_->Awake();
  }

  Runtime& runtime_;
  pipeline::Engine& engine_;
  link::WorkerLink* const link_;
  const UniqueFd socket_;
  std::unique_ptr<net::Watch> bell_;
  std::unique_ptr<net::Watch> hang_up_;
  std::unique_ptr<net::Timer> timer_;
  TimePoint timer_at_ = kNever;
  bool more_ = false;  // the engine has work that waits for nothing
  Status status_;
  std::vector<std::unordered_map<uint64_t, std::unique_ptr<Request>>> calls_;  // by lane
  // By lane: what was told of a call that is not opened yet.
  struct Head {
    uint64_t call = 0;
    std::shared_ptr<const pipeline::RequestOrigin> origin;  // null: nothing was; shared with the request's context
  };
  std::vector<Head> heads_;
  std::vector<AnswerLine> starved_;     // by lane: answered calls that wait for reply memory
  std::vector<TimePoint> full_since_;   // by lane: or since the gateway was last told; kNever: there is room
  TimePoint stuck_asked_;               // when it was last asked who waits for its client's share
  std::vector<uint64_t> stuck_;         // of a lane, meanwhile
  std::deque<Releases::Entry> sliced_;  // large requests of which a step is to be done, whose turn it is first
  std::vector<Releases::Entry> releases_;
  std::vector<ReadInstance> read_;  // of the request that is being read, used again by the next
  size_t read_count_ = 0;
  std::vector<Tensor> classification_;  // inputs of the one that is being read, the same
  TimePoint now_;                       // when the round began
  ServiceCalls service_calls_;
};

}  // namespace mindserve::worker
