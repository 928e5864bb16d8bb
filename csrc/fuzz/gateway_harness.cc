#include "fuzz/gateway_harness.h"

#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <thread>
#include <utility>

#include "base/log.h"
#include "fuzz/input.h"
#include "gateway/classifier_service.h"
#include "gateway/predict_service.h"
#include "gateway/ray_service.h"
#include "gateway/reflection_service.h"
#include "gateway/stream_service.h"
#include "link/worker_link.h"
#include "wire/call_head.h"
#include "wire/classifier.h"
#include "wire/predict.h"
#include "wire/test_messages.h"

namespace mindserve::fuzz {

using gateway::WorkerSpec;

const std::vector<std::string> kPaths = {gateway::kPredictPath,
                                         gateway::kPredictStreamPath,
                                         kUnary,
                                         kDown,
                                         kUp,
                                         kBoth,
                                         kFails,
                                         gateway::kHealthCheckPath,
                                         gateway::kHealthWatchPath,
                                         gateway::kListApplicationsPath,
                                         gateway::kHealthzPath,
                                         gateway::kReflectionV1Path,
                                         gateway::kReflectionV1AlphaPath,
                                         gateway::kDriverPath,
                                         gateway::kClassifierPath};

namespace {

constexpr size_t kArenaBytes = 64 << 20;
constexpr size_t kMostEnqueuedBytes = 8 << 20;

gateway::ServiceSpec UsersService() {
  return {.name = "t.Users",
          .methods = {{"Unary", false, false},
                      {"Down", false, true},
                      {"Up", true, false},
                      {"Both", true, true},
                      {"Fails", false, false}}};
}

// In the order of WorkerMethod.
std::vector<WorkerSpec::Method> Methods() {
  return {{"add"},
          {kUnary, false},
          {kDown},
          {kUp},
          {kBoth},
          {kFails},
          {gateway::StreamPath("tell")},
          {gateway::kDriverPath},
          {gateway::kClassifierPath}};
}

// The client's end is the harness.
class PipeTransport final : public net::Transport {
 public:
  explicit PipeTransport(std::shared_ptr<Pipe> pipe) : pipe_(std::move(pipe)) {}
  void Start(std::function<void(Status)> done) override { done(Status::Ok()); }
  net::IoResult Read(std::span<std::byte> into) override {
    std::string& text = pipe_->to_gateway;
    if (text.empty())
      return {.kind = pipe_->ended ? net::IoResult::Kind::kEof : net::IoResult::Kind::kAgain, .bytes = 0, .error = {}};
    const size_t n = std::min(into.size(), text.size());
    std::memcpy(into.data(), text.data(), n);
    text.erase(0, n);
    return {.kind = net::IoResult::Kind::kDone, .bytes = n, .error = {}};
  }
  net::IoResult Write(std::span<const iovec> parts) override {
    if (pipe_->ended) return {.kind = net::IoResult::Kind::kError, .bytes = 0, .error = "the client is gone"};
    size_t n = 0;
    for (const iovec& part : parts) {
      const size_t taken = std::min(part.iov_len, pipe_->room - n);
      pipe_->to_client.append(static_cast<const char*>(part.iov_base), taken);
      n += taken;
    }
    pipe_->room -= n;
    if (n == 0) return {.kind = net::IoResult::Kind::kAgain, .bytes = 0, .error = {}};
    return {.kind = net::IoResult::Kind::kDone, .bytes = n, .error = {}};
  }
  void AwaitReadable(std::function<void()> handler) override {
    FUZZ_REQUIRE(!pipe_->readable);
    pipe_->readable = std::move(handler);
  }
  void AwaitWritable(std::function<void()> handler) override {
    FUZZ_REQUIRE(!pipe_->writable);
    pipe_->writable = std::move(handler);
  }
  void Shutdown() override {}
  const net::Peer& peer() const override { return peer_; }
  const net::AuthProperties& auth() override { return auth_; }

 private:
  const std::shared_ptr<Pipe> pipe_;  // shared with the harness
  const net::Peer peer_{.address = "ipv4:127.0.0.1:4711", .tls = false, .subject = {}};
  const net::AuthProperties auth_;
};

// Answers as a worker does.
class GoodWorker final : public HarnessWorker {
 public:
  explicit GoodWorker(std::unique_ptr<link::WorkerLink> link) : link_(std::move(link)) {}

  void Step() override {
    link::GatewayFrame frame;
    while (link_->Receive(0, &frame)) Take(frame);
    FUZZ_REQUIRE(link_->fault().ok());
    link_->Flush();
  }
  bool good() const override { return true; }

 private:
  struct UserCall {
    uint16_t method;
    size_t on_their_way = 0;  // messages that the gateway has not given back
    uint32_t taken = 0;       // of the client
    std::string first;
  };

  void Take(const link::GatewayFrame& frame) {
    switch (frame.type) {
      case link::FrameType::kHead:
        // The gateway has checked what comes from others.
        FUZZ_REQUIRE(wire::ReadCallHead(frame.payload).ok());
        return;
      case link::FrameType::kCancel:
        // It may have ended meanwhile.
        if (calls_.erase(frame.call) == 0) return;
        return link_->SendEnd(0, frame.call, {Code::kCancelled, "cancelled"}, link::kReleased);
      case link::FrameType::kReleaseReply:
        if (const auto found = calls_.find(frame.call); found != calls_.end()) --found->second.on_their_way;
        return;
      case link::FrameType::kMessage:
        break;
      default:
        FUZZ_REQUIRE(!"a frame of a type that gateways send");
    }
    if ((frame.flags & link::kOpens) == 0) return TakeMessage(frame);
    if (frame.method == kAddNumber) return Answer(frame);
    if (frame.method == kClassifyNumber) return Classify(frame);
    FUZZ_REQUIRE(frame.method <= kDriverNumber);
    FUZZ_REQUIRE(wire::ReadCallHead(frame.payload).ok());
    FUZZ_REQUIRE(
        calls_.try_emplace(frame.call, UserCall{.method = frame.method, .on_their_way = 0, .first = {}}).second);
  }

  // A Predict call: the first input of each instance comes back.
  void Answer(const link::GatewayFrame& frame) {
    static const std::vector<std::string> kInputs = {"x1"};
    static const std::vector<std::string> kOutputs = {"y"};
    std::vector<wire::InstanceReply> replies;
    wire::InstanceReader reader(frame.payload, kInputs, nullptr);
    while (reader.Next()) {
      wire::InstanceReply& reply = replies.emplace_back();
      if (const Status status = reader.Read(&reply.outputs); !status.ok()) {
        reply = {{}, wire::ErrorCode::kInvalidInput, status.message()};
      }
    }
    // What the gateway has routed is what a worker reads.
    FUZZ_REQUIRE(reader.status().ok() && replies.size() == frame.instances);
    const wire::ReplyWriter writer(kOutputs, replies);
    const auto slab = link_->AllocateReply(0, writer.size());
    if (!slab) return link_->SendEnd(0, frame.call, {Code::kResourceExhausted, "no reply memory"}, link::kReleased);
    writer.WriteTo(slab->bytes);
    link_->SendReply(
        0, frame.call, *slab,
        static_cast<uint8_t>(link::kEnds | link::kReleased | (writer.has_errors() ? link::kHasErrors : 0)));
  }

  // What was classified comes back, as a prediction.
  void Classify(const link::GatewayFrame& frame) {
    const auto data = wire::ReadClassificationData(frame.payload);
    if (!data.ok()) return link_->SendEnd(0, frame.call, data.status(), link::kReleased);
    using wire::test::Field;
    const std::string answer = Field(2, "model") + Field(2, AsText(data->value));
    const auto slab = link_->AllocateReply(0, answer.size());
    if (!slab) return link_->SendEnd(0, frame.call, {Code::kResourceExhausted, "no reply memory"}, link::kReleased);
    std::memcpy(slab->bytes.data(), answer.data(), answer.size());
    link_->SendReply(0, frame.call, *slab, static_cast<uint8_t>(link::kEnds | link::kReleased));
  }

  void TakeMessage(const link::GatewayFrame& frame) {
    const auto found = calls_.find(frame.call);
    if (found == calls_.end()) return;  // it has ended
    UserCall& call = found->second;
    const bool streams = call.method == kUpNumber || call.method == kBothNumber;
    bool going_on = true;
    if ((frame.flags & link::kNoMessage) == 0) {
      if (call.first.empty()) call.first.assign(AsText(frame.payload));
      if (call.method == kBothNumber) going_on = Reply(frame.call, call, AsText(frame.payload), 0);
      if (streams) link_->SendReleaseMessage(0, frame.call);
      if (call.method == kUpNumber) link_->SendWants(0, frame.call, ++call.taken);
    }
    if (!going_on || (frame.flags & link::kEnds) == 0) return;
    switch (call.method) {
      case kFailsNumber:
        link_->SendEnd(0, frame.call, {Code::kFailedPrecondition, call.first}, link::kReleased);
        calls_.erase(found);
        return;
      case kUnaryNumber:
      case kDriverNumber:
        going_on = Reply(frame.call, call, call.first, link::kEnds | link::kReleased);
        if (going_on) calls_.erase(found);
        return;
      default:
        break;
    }
    const wire::MetadataView metadata = {{"k", "v"}, {"k-bin", call.first}};
    // Not behind a message.
    if (call.method != kBothNumber && !link_->SendInitial(0, frame.call, wire::WriteMetadata(metadata), 0)) {
      return Fail(frame.call);
    }
    constexpr int kMessages = 3;
    for (int i = 0; i < kMessages && going_on; ++i) going_on = Reply(frame.call, call, call.first, 0);
    if (!going_on) return;
    const std::string end = wire::WriteCallEnd({.details = "", .trailing = metadata});
    if (!link_->SendTrailing(0, frame.call, Code::kOk, end, link::kReleased)) return Fail(frame.call);
    calls_.erase(found);
  }

  // False: it was ended, for want of memory, or since its client takes nothing.
  bool Reply(uint64_t number, UserCall& call, std::string_view message, int flags) {
    const auto slab = link_->AllocateReply(0, message.size());
    if (!slab || call.on_their_way >= link::kMostMessagesAhead) {
      if (slab) link_->FreeReply(0, *slab);
      Fail(number);
      return false;
    }
    if (!message.empty()) std::memcpy(slab->bytes.data(), message.data(), message.size());
    ++call.on_their_way;
    link_->SendReply(0, number, *slab, static_cast<uint8_t>(flags));
    return true;
  }

  void Fail(uint64_t number) {
    calls_.erase(number);
    link_->SendEnd(0, number, {Code::kResourceExhausted, "no reply memory"}, link::kReleased);
  }

  const std::unique_ptr<link::WorkerLink> link_;
  std::map<uint64_t, UserCall> calls_;
};

}  // namespace

std::string HarnessDescriptors() {
  using wire::test::Field;
  using wire::test::Varint;
  const std::string message = Field(4, Field(1, "M") + Field(2, Field(1, "f") + Varint(3, 1)));
  const std::string service = Field(6, Field(1, "Users") + Field(2, Field(1, "Unary")) + Field(2, Field(1, "Both")));
  return Field(1, Field(1, "users.proto") + Field(2, "t") + message + service);
}

GatewayHarness::GatewayHarness()
    : port_(*link::GatewayPort::Create(kArenaBytes)),
      memory_(port_->arena(), admission_),
      context_(0, loop_, memory_, children_),
      calls_([this](uint64_t, const Status& why) { fault_ = why; }, [](uint64_t) {},
             [this](ExecutionTag call) {
               for (const gateway::ChildCall& child : children_.GiveUp(call)) {
                 if (connection_ != nullptr && connection_->number() == child.connection) {
                   connection_->Abort(child.stream, gateway::ParentGivenUp());
                 }
               }
             },
             [this] { context_.answers_lacked = context_.now; }),
      router_(context_.stats),
      traffic_(context_.stats),
      mirrors_(context_, mirrored_, router_, traffic_, calls_),
      served_(*gateway::Served::Create({UsersService()}, HarnessDescriptors(), "")),
      health_(router_, traffic_, served_),
      user_calls_(std::make_unique<gateway::UserCalls>(
          gateway::UserCalls{context_, admission_, router_, traffic_, mirrors_, calls_})),
      version_(new gateway::VersionState{
          .number = 1, .version = 1, .admission = std::make_shared<gateway::Admission>(), .quarantine = {}}) {
  SetLogSink([](LogLevel, std::string_view) {});
  admission_.SetMaxRequests(64);
  admission_.SetMaxBytes(kMostEnqueuedBytes);
  mirrored_.SetMaxRequests(16);
  mirrored_.SetMaxBytes(kMostEnqueuedBytes / 4);
  version_->admission->SetMaxRequests(0);
  version_->admission->SetMaxBytes(0);
  children_.Expect();
  context_.now = TimePoint(std::chrono::hours(1));
  context_.limits.max_msg_mb_size = 1;
  context_.limits.max_instances_per_request = 256;
  context_.limits.max_enqueued_requests = 64;
  context_.limits.max_concurrent_streams = 32;
  context_.limits.max_metadata_bytes = 4096;
  context_.limits.max_resets_per_second = 64;
  context_.http2 = std::make_shared<const gateway::Http2Settings>();

  // As an I/O thread has them (gateway/io_thread.cc).
  auto& services = context_.services;
  auto& stats = context_.stats;
  auto predict = std::make_unique<gateway::PredictService>(context_, admission_, router_, traffic_, mirrors_, calls_,
                                                           std::chrono::milliseconds(10'000));
  auto* const predict_service = predict.get();
  services[gateway::kPredictPath] = std::move(predict);
  services[gateway::kPredictStreamPath] = std::make_unique<gateway::StreamService>(*user_calls_, *predict_service);
  services[gateway::kClassifierPath] =
      std::make_unique<gateway::ClassifierService>(context_, router_, traffic_, *predict_service);
  services[gateway::kHealthCheckPath] =
      std::make_unique<gateway::HealthCheckService>(stats.Of({.path = gateway::kHealthCheckPath}), health_);
  services[gateway::kHealthWatchPath] =
      std::make_unique<gateway::HealthWatchService>(stats.Of({.path = gateway::kHealthWatchPath}), health_);
  services[gateway::kListApplicationsPath] = std::make_unique<gateway::ListApplicationsService>(
      stats.Of({.path = gateway::kListApplicationsPath}), router_, traffic_, health_);
  services[gateway::kHealthzPath] =
      std::make_unique<gateway::HealthzService>(stats.Of({.path = gateway::kHealthzPath}), health_);
  for (const char* path : {gateway::kReflectionV1Path, gateway::kReflectionV1AlphaPath}) {
    services[path] = std::make_unique<gateway::ReflectionService>(stats.Of({.path = path}), served_, memory_);
  }
  for (const auto& method : served_->services.front().methods) {
    const std::string path = "/t.Users/" + method.name;
    services[path] =
        std::make_unique<gateway::UserService>(*user_calls_, path,
                                               gateway::UserService::Kind{.client_streaming = method.client_streaming,
                                                                          .server_streaming = method.server_streaming});
  }
  services[gateway::kDriverPath] =
      std::make_unique<gateway::UserService>(*user_calls_, gateway::kDriverPath, gateway::UserService::Kind{});
  router_.Declare("s");
  traffic_.Set({{.name = "split",
                 .variations = {{.name = "new", .servable = "s"}, {.name = "old", .servable = "s", .version = 1}},
                 .mirrors = {{.servable = "s", .version = 1, .fraction = 0.5}},
                 .sticky = "k"}});
  health_.SetServing(true);
}

GatewayHarness::~GatewayHarness() {
  if (connection_ != nullptr) HangUp();
  if (worker_end_ != nullptr) RemoveWorker();
}

void GatewayHarness::Attach(std::unique_ptr<link::Lane> lane, std::unique_ptr<HarnessWorker> worker) {
  WorkerSpec spec{.id = 1, .servable = "s", .version = 1, .methods = Methods()};
  worker_end_ = std::make_shared<gateway::WorkerEnd>(std::move(spec), version_, std::move(lane));
  worker_ = std::move(worker);
  fault_ = Status::Ok();
  calls_.Add(worker_end_);
  router_.AddWorker(worker_end_);
  health_.Changed();
}

void GatewayHarness::RemoveWorker() {
  const auto worker = std::exchange(worker_end_, nullptr);
  router_.RemoveWorker(worker);
  calls_.Remove(worker, {.why = "it died", .dead = true, .executing = {}, .more = false});
  health_.Changed();
  worker_.reset();
}

void GatewayHarness::Connect(bool internal) {
  FUZZ_REQUIRE(connection_ == nullptr);
  pipe_ = std::make_shared<Pipe>();
  pipe_->room = std::numeric_limits<size_t>::max();
  connection_ = std::make_unique<gateway::Http2Connection>(context_, std::make_unique<PipeTransport>(pipe_), internal);
  connection_->Start();
}

void GatewayHarness::FlushConnection() {
  bool closed = false;
  while (!context_.dirty.empty()) {
    for (gateway::Http2Connection* connection : std::exchange(context_.dirty, {})) {
      connection->Flush();
      closed = closed || connection->closed();
    }
  }
  if (closed) connection_.reset();
}

bool GatewayHarness::MoveOn() {
  bool worked = false;
  if (pipe_ != nullptr && connection_ != nullptr) {
    if (pipe_->readable && (!pipe_->to_gateway.empty() || pipe_->ended)) {
      worked = true;
      std::exchange(pipe_->readable, nullptr)();
    }
    if (pipe_->writable && (pipe_->room > 0 || pipe_->ended)) {
      worked = true;
      std::exchange(pipe_->writable, nullptr)();
    }
  }
  if (context_.timers.next() <= context_.now) {
    worked = true;
    context_.timers.RunDue(context_.now);
  }
  return worked;
}

bool GatewayHarness::Round() {
  bool worked = MoveOn();
  calls_.Poll();
  calls_.Flush();
  FlushConnection();
  calls_.Flush();
  if (worker_ != nullptr) worker_->Step();
  if (calls_.HasWork()) worked = true;
  if (!fault_.ok() && worker_end_ != nullptr) {
    if (worker_->good()) Fail(__FILE__, __LINE__, "a good worker is found faulty", fault_.message().c_str());
    RemoveWorker();
    worked = true;
  }
  return worked || !context_.dirty.empty();
}

void GatewayHarness::HangUp() {
  pipe_->ended = true;
  pipe_->to_gateway.clear();
  // A connection that waits for nothing but time is closed by it; none may stay for ever.
  constexpr int kMostRounds = 10'000;
  for (int i = 0; connection_ != nullptr; ++i) {
    FUZZ_REQUIRE(i < kMostRounds);
    if (!Round() && connection_ != nullptr) Advance(std::chrono::seconds(1));
  }
  for (int i = 0; Round(); ++i) FUZZ_REQUIRE(i < kMostRounds);
  pipe_.reset();
  if (worker_end_ == nullptr || worker_->good()) {
    // What the client had asked for is gone with it, to the last byte.
    FUZZ_REQUIRE(calls_.size() == 0);
    FUZZ_REQUIRE(admission_.requests() == 0 && admission_.bytes() == 0);
    FUZZ_REQUIRE(mirrored_.requests() == 0 && mirrored_.bytes() == 0);
    FUZZ_REQUIRE(version_->admission->requests() == 0 && version_->admission->bytes() == 0);
    FUZZ_REQUIRE(port_->arena().slabs() == 0);
    FUZZ_REQUIRE(children_.size() == 0);
    FUZZ_REQUIRE(context_.timers.next() == kNever);
  }
}

std::unique_ptr<GatewayHarness> NewHarnessWithGoodWorker() {
  auto harness = std::make_unique<GatewayHarness>();
  int fds[2];
  FUZZ_REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) == 0);
  const UniqueFd ours(fds[0]);
  const UniqueFd theirs(fds[1]);
  constexpr std::chrono::seconds kPatience{60};
  static link::StatsWriter stats = *link::StatsWriter::Create(std::vector{link::StageName{}});
  std::unique_ptr<link::WorkerLink> link;
  std::thread worker([&] { link = *link::WorkerLink::Connect(theirs.get(), stats, 16 << 20, kPatience); });
  link::GatewayPort* ports[] = {&harness->port()};
  auto shaken = link::GatewayHandshake::Run(ours.get(), ports, kPatience);
  worker.join();
  FUZZ_REQUIRE(shaken.ok());
  harness->Attach(std::move(shaken->lanes.front()), std::make_unique<GoodWorker>(std::move(link)));
  return harness;
}

}  // namespace mindserve::fuzz
