#include "gateway/mirrors.h"

#include <utility>

#include "wire/predict.h"

namespace mindserve::gateway {

namespace {

// Keeps the request whose bytes it has, which is shared with the call's handler and its workers, as long as a worker
// may read them.
struct CopiedRequest : Request {
  explicit CopiedRequest(std::shared_ptr<Request> its_source)
      : Request(its_source->message.View()), source(std::move(its_source)) {}
  const std::shared_ptr<Request> source;
};

}  // namespace

class MirroredCall final : public WorkerCallListener {
 public:
  MirroredCall(Mirrors& owner, MethodCounts& counts, bool is_predict, Ticket ticket, BytesTicket bytes)
      : owner_(owner),
        counts_(counts),
        is_predict_(is_predict),
        begun_(owner.context_.now),
        ticket_(std::move(ticket)),
        bytes_(std::move(bytes)) {
    ++counts_.under_way;
  }
  ~MirroredCall() override {
    --counts_.under_way;
    if (!ended_) owner_.calls_.Cancel(number_);
  }

  void SetNumber(uint64_t number) { number_ = number; }
  void SetPlace(std::list<std::unique_ptr<MirroredCall>>::iterator place) { place_ = place; }

  void OnWorkerReply(uint32_t, ReplyPart payload, uint8_t flags) override {
    counts_.bytes_out += payload.bytes().size();
    if ((flags & link::kHasErrors) != 0) {
      ++counts_.with_errors;
      wire::CountErrorCodes(payload.bytes(), counts_.errors);
    }
    const bool ends = (flags & link::kEnds) != 0;
    // Predict's are answered at once.
    if (ends || is_predict_) End(ends ? Code::kOk : Code::kInternal, ends);
  }
  void OnWorkerEnd(uint32_t, Status status) override { End(status.code()); }
  void OnWorkerLost(uint32_t, const LostCall&) override { End(Code::kUnavailable); }
  void OnWorkerTrailing(Code code, std::span<const std::byte>) override { End(code); }

 private:
  // Destroys it. `over`: its worker has ended it.
  void End(Code code, bool over = true) {
    ended_ = over;
    ++counts_.ended[static_cast<size_t>(code)];
    counts_.latency_ns.AddTime(owner_.context_.now - begun_);
    owner_.under_way_.erase(place_);
  }

  Mirrors& owner_;
  MethodCounts& counts_;
  const bool is_predict_;
  const TimePoint begun_;
  const Ticket ticket_;
  const BytesTicket bytes_;
  uint64_t number_ = 0;
  std::list<std::unique_ptr<MirroredCall>>::iterator place_;
  bool ended_ = false;
};

Mirrors::Mirrors(ThreadContext& context, Admission& admission, Router& router, Traffic& traffic, WorkerCalls& calls)
    : context_(context), admission_(admission), router_(router), traffic_(traffic), calls_(calls) {}
Mirrors::~Mirrors() = default;

void Mirrors::Offer(const Variation& variation, std::string_view method, const Call& call,
                    const std::shared_ptr<Request>& request, const std::optional<WorkerCalls::Payload>& payload,
                    const RequestKey& key) {
  if (call.inner().depth > 0) return;
  for (Mirror& mirror : *variation.mirrors) {
    if (mirror.Due()) Send(mirror, method, call, request, payload, key);
  }
}

void Mirrors::Send(Mirror& mirror, std::string_view method, const Call& call, const std::shared_ptr<Request>& request,
                   const std::optional<WorkerCalls::Payload>& payload, const RequestKey& key) {
  const auto outcome = router_.Find(mirror.servable, method, mirror.version, 1, &targets_);
  if (outcome != Router::Outcome::kFound || targets_.front().worker->version()->quarantine.UnderAttack(context_.now)) {
    // Who is being killed is not to be killed by copies.
    ++traffic_.Unanswered(mirror, IsPath(method) ? method : kPredictPath)
          .ended[static_cast<size_t>(Code::kUnavailable)];
    return;
  }
  const Router::Target target = targets_.front();
  MethodCounts& counts = traffic_.Counts(mirror, target);
  const auto drop = [&](Refusal by) {
    context_.stats.Refuse(by);
    ++counts.ended[static_cast<size_t>(Code::kResourceExhausted)];
  };
  size_t size = request->message.bytes().size();
  for (const HeldMessages::Held& held : request->stream) size += held.message.bytes().size();
  Ticket ticket = Ticket::Take(admission_);
  if (!ticket) return drop(Refusal::kMaxMirroredRequests);
  BytesTicket bytes(admission_);
  if (!bytes.GrowTo(size)) return drop(Refusal::kMaxMirroredBytes);

  auto copy = std::make_shared<CopiedRequest>(request);
  if (request->head) copy->head = request->head->View();
  for (const HeldMessages::Held& held : request->stream) copy->stream.Add(held.message.View(), {});
  copy->half_closed = true;
  request->is_copied = true;

  under_way_.push_front(
      std::make_unique<MirroredCall>(*this, counts, payload.has_value(), std::move(ticket), std::move(bytes)));
  MirroredCall& mirrored = *under_way_.front();
  mirrored.SetPlace(under_way_.begin());
  counts.instances += payload ? payload->instances : 0;
  counts.bytes_in += size;
  // As a client of its own: it takes turns with those whose calls they are.
  const WorkerCalls::Terms terms{.deadline = call.deadline(), .client = 0, .key = key};
  mirrored.SetNumber(payload ? calls_.Open(target.worker, target.method, *payload, copy, terms, mirrored, 0)
                             : calls_.OpenUser(target.worker, target.method, copy, terms, mirrored));
}

}  // namespace mindserve::gateway
