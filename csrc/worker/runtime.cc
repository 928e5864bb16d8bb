#include "worker/runtime.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <iterator>
#include <new>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/log.h"
#include "net/event_loop.h"
#include "wire/predict.h"
#include "worker/releases.h"

namespace mindserve::worker {

namespace {

// So often the master is told at least that this thread still comes round.
constexpr Duration kBeat = std::chrono::milliseconds(500);

wire::ErrorCode ToErrorCode(Code code) {
  switch (code) {
    case Code::kOk:
      return wire::ErrorCode::kSuccess;
    case Code::kInvalidArgument:
    case Code::kOutOfRange:
      return wire::ErrorCode::kInvalidInput;
    case Code::kUnavailable:
      return wire::ErrorCode::kWorkerUnavailable;
    case Code::kResourceExhausted:
      return wire::ErrorCode::kSystemError;
    default:
      return wire::ErrorCode::kFailed;
  }
}

}  // namespace

// One run of Serve. A round of the loop takes what came, runs models, and sends what is done.
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
        starved_(link_->lanes()) {}

  Status Run();

 private:
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
  };

  void Handle(size_t lane, const link::GatewayFrame& frame);
  void Open(size_t lane, const link::GatewayFrame& frame);
  Status Read(const Request& request, const link::GatewayFrame& frame);
  void Answer(Request& request);
  bool TryReply(Request& request);
  void End(Request& request, const Status& status);
  // Lets go of everything that looks at the request's bytes; true if nobody else does.
  bool LetGo(Request& request);
  void Forget(Request& request) { calls_[request.lane].erase(request.call); }
  // Of `read_`, with the memory that they had: most requests have a few.
  void ClearRead();
  void SendReleases();
  void RetryStarved();

  void AwaitBell();
  void SetTimer(TimePoint at);
  void StopWith(Status status);
  void RoundEnd() override;
  bool PrepareSleep() override { return !more_ && link_->PrepareSleep(); }
  void Awake() override { link_->Awake(); }

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
  std::vector<std::deque<uint64_t>> starved_;  // by lane: answered calls that wait for reply memory, oldest first
  std::vector<Releases::Entry> releases_;
  // Of the request that is being read, used again by the next: an instance's inputs, or what is wrong with it alone.
  struct ReadInstance {
    Status status;
    std::vector<Tensor> inputs;
  };
  std::vector<ReadInstance> read_;
  size_t read_count_ = 0;
  TimePoint now_;  // when the round began
};

void Runtime::Session::Request::InstanceDone(uint32_t index, Status status, std::span<Tensor> outputs) {
  wire::InstanceReply& reply = replies[index];
  try {
    if (status.ok()) {
      reply.outputs.assign(std::make_move_iterator(outputs.begin()), std::make_move_iterator(outputs.end()));
    } else {
      reply.code = ToErrorCode(status.code());
      reply.error = status.message();
    }
  } catch (const std::bad_alloc&) {
    reply.outputs.clear();
    reply.code = wire::ErrorCode::kSystemError;
    reply.error = "out of memory";  // short enough to need none
  }
  if (--left == 0) session.Answer(*this);
}

void Runtime::Session::Handle(size_t lane, const link::GatewayFrame& frame) {
  if (frame.type == link::FrameType::kCancel) {
    const auto found = calls_[lane].find(frame.call);
    // Not found: it was answered while the cancellation was on its way.
    if (found != calls_[lane].end()) engine_.Cancel(*found->second->context);
    return;
  }
  Open(lane, frame);
}

void Runtime::Session::Open(size_t lane, const link::GatewayFrame& frame) {
  constexpr uint8_t kUnary = link::kOpens | link::kEnds;
  const bool known = frame.method < engine_.methods();
  if ((frame.flags & kUnary) != kUnary || !known || calls_[lane].contains(frame.call)) {
    Log(LogLevel::kError, "the gateway sent a call that this worker does not know how to take: method " +
                              std::to_string(frame.method) + ", flags " + std::to_string(frame.flags));
    link_->SendEnd(lane, frame.call, Status(Code::kInternal, "the worker was sent a call that it does not know"),
                   link::kReleased);
    return;
  }
  const pipeline::MethodSpec& method = engine_.method(frame.method);
  auto owned = std::make_unique<Request>(*this, lane, frame.call, method);
  Request& request = *owned;
  request.payload =
      std::make_shared<Payload>(runtime_.releases_, Releases::Entry{lane, frame.call}, frame.payload.size());
  request.context = std::make_shared<pipeline::RequestContext>();
  request.context->client = frame.client;
  if (frame.deadline_ns != INT64_MAX) request.context->deadline = TimePoint(Duration(frame.deadline_ns));
  request.context->sink = &request;
  request.context->mark = link_->MarkOf(lane, frame.call);
  request.context->alone = (frame.flags & link::kAlone) != 0;
  calls_[lane].emplace(frame.call, std::move(owned));

  // All instances are read before the first is submitted, so that a request that does not parse is refused whole.
  const Status read = Read(request, frame);
  if (!read.ok()) {
    ClearRead();
    End(request, read);
    return;
  }
  request.replies.resize(read_count_);
  request.left = read_count_;
  for (uint32_t i = 0; i < read_count_; ++i) {
    auto& [status, inputs] = read_[i];
    if (status.ok()) {
      engine_.Submit(frame.method, request.context, i, inputs, now_);
    } else {
      request.InstanceDone(i, std::move(status), {});
    }
  }
  ClearRead();
}

void Runtime::Session::ClearRead() {
  constexpr size_t kKept = 256;
  if (read_.size() > kKept) read_.resize(kKept);
  for (size_t i = 0; i < std::min(read_count_, read_.size()); ++i) {
    read_[i].status = Status::Ok();
    read_[i].inputs.clear();
  }
  read_count_ = 0;
}

Status Runtime::Session::Read(const Request& request, const link::GatewayFrame& frame) {
  wire::InstanceReader reader(frame.payload, request.method.inputs, request.payload);
  while (reader.Next()) {
    if (read_count_ == read_.size()) read_.emplace_back();
    auto& [status, inputs] = read_[read_count_++];
    status = reader.Read(&inputs);
    if (status.code() == Code::kDataLoss) return {Code::kInvalidArgument, status.message()};
  }
  MS_RETURN_IF_ERROR(reader.status());
  if (read_count_ == 0 || read_count_ != frame.instances) {
    return {Code::kInvalidArgument, "the request has " + std::to_string(read_count_) + " instances, expected " +
                                        std::to_string(frame.instances)};
  }
  return Status::Ok();
}

bool Runtime::Session::LetGo(Request& request) {
  request.replies.clear();
  const bool alone = request.payload.use_count() == 1;
  if (alone) {
    // Pairs with the release in the decrement by which the last other owner, on whatever thread, let go.
    std::atomic_thread_fence(std::memory_order_acquire);
    request.payload->MarkReleased();
  } else {
    request.payload->MarkRetained();
  }
  return alone;
}

void Runtime::Session::End(Request& request, const Status& status) {
  const uint8_t flags = LetGo(request) ? static_cast<uint8_t>(link::kReleased) : uint8_t{0};
  link_->SendEnd(request.lane, request.call, status, flags);
  Forget(request);
}

void Runtime::Session::Answer(Request& request) {
  if (request.context->cancelled) {
    End(request, Status(Code::kCancelled, "the call was cancelled"));
  } else if (!starved_[request.lane].empty() || !TryReply(request)) {
    starved_[request.lane].push_back(request.call);
  }
}

bool Runtime::Session::TryReply(Request& request) {
  const wire::ReplyWriter writer(request.method.outputs, request.replies);
  if (writer.size() > runtime_.options_.reply_arena_bytes / 2) {
    End(request, Status(Code::kResourceExhausted,
                        "the answer has " + std::to_string(writer.size()) + " bytes, more than a message can have"));
    return true;
  }
  const auto slab = link_->AllocateReply(request.lane, writer.size());
  if (!slab) return false;
  writer.WriteTo(slab->bytes);
  uint8_t flags = link::kEnds;
  if (writer.has_errors()) flags |= link::kHasErrors;
  if (LetGo(request)) flags |= link::kReleased;
  link_->SendReply(request.lane, request.call, *slab, flags);
  Forget(request);
  return true;
}

void Runtime::Session::RetryStarved() {
  for (size_t lane = 0; lane < starved_.size(); ++lane) {
    auto& waiting = starved_[lane];
    while (!waiting.empty()) {
      Request& request = *calls_[lane].at(waiting.front());
      if (request.context->cancelled) {
        End(request, Status(Code::kCancelled, "the call was cancelled"));
      } else if (!TryReply(request)) {
        break;
      }
      waiting.pop_front();
    }
  }
}

void Runtime::Session::SendReleases() {
  runtime_.releases_->Take(&releases_);
  for (const auto& [lane, call] : releases_) link_->SendRelease(lane, call);
}

void Runtime::Session::AwaitBell() {
  // Being awake is all that it is for.
  bell_->AwaitReadable([this] {
    link_->EmptyBell();
    AwaitBell();
  });
}

void Runtime::Session::SetTimer(TimePoint at) {
  if (at >= timer_at_) return;  // one that comes too early finds nothing to do
  timer_at_ = at;
  timer_->Start(at, [this] { timer_at_ = kNever; });
}

void Runtime::Session::StopWith(Status status) {
  status_ = std::move(status);
  runtime_.loop_->Stop();
}

void Runtime::Session::RoundEnd() {
  now_ = runtime_.time_.Now();
  runtime_.stats_->Beat(now_);
  link::GatewayFrame frame;
  for (size_t lane = 0; lane < link_->lanes(); ++lane) {
    while (link_->Receive(lane, &frame)) Handle(lane, frame);
  }
  if (!link_->fault().ok()) return StopWith(link_->fault());
  SendReleases();
  const TimePoint next = engine_.Poll();
  more_ = next != kNever && next <= runtime_.time_.Now();
  if (!more_) SetTimer(std::min(next, now_ + kBeat));
  RetryStarved();
  link_->Flush();
}

Status Runtime::Session::Run() {
  AwaitBell();
  // Nothing is ever said on the socket after the handshake: what makes it readable is its end.
  hang_up_->AwaitReadable([this] { StopWith({Code::kUnavailable, "the gateway is gone"}); });
  runtime_.loop_->Run(this);
  return status_;
}

Runtime::Runtime(const TimeSource& time, RuntimeOptions options)
    : time_(time),
      options_(options),
      loop_(std::make_shared<net::EventLoop>()),
      engine_(std::make_unique<pipeline::Engine>(time, [loop = loop_] { loop->Wake(); })),
      releases_(std::make_shared<Releases>([loop = loop_] { loop->Wake(); })) {}

Runtime::~Runtime() {
  Stop();
  releases_->Close();
}

pipeline::Engine& Runtime::engine() {
  return *engine_;
}

size_t Runtime::retained_bytes() const {
  return releases_->retained_bytes();
}

Status Runtime::Serve(UniqueFd socket, std::chrono::milliseconds handshake_timeout) {
  std::vector<link::StageName> names;
  for (auto& [kind, name] : engine_->stages()) {
    const bool is_model = kind == pipeline::StageSpec::Kind::kModel;
    names.push_back({is_model ? link::StageKind::kModel : link::StageKind::kFunction, std::move(name)});
  }
  auto stats = link::StatsWriter::Create(names);
  if (!stats.ok()) return stats.status();
  stats_ = *std::move(stats);
  std::vector<StageStats*> entries;
  for (size_t i = 0; i < names.size(); ++i) entries.push_back(&stats_->stage(i));
  engine_->CountIn(entries);
  auto link = link::WorkerLink::Connect(socket.get(), *stats_, options_.reply_arena_bytes, handshake_timeout);
  if (!link.ok()) return link.status();
  link_ = *std::move(link);
  // The session's requests are sinks of the engine's instances: the engine lets go of them before they go.
  auto session = std::make_unique<Session>(*this, std::move(socket));
  const Status status = session->Run();
  Stop();
  engine_->Poll();
  return status;
}

void Runtime::Stop() {
  loop_->Stop();
  engine_->Stop();
}

}  // namespace mindserve::worker
