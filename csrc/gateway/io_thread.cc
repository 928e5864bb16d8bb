#include "gateway/io_thread.h"

#include <pthread.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "gateway/classifier_service.h"
#include "gateway/predict_service.h"
#include "gateway/ray_service.h"
#include "gateway/reflection_service.h"
#include "gateway/stream_service.h"
#include "gateway/user_service.h"

namespace mindserve::gateway {

Result<std::unique_ptr<IoThread>> IoThread::Create(Shared& shared, size_t arena_bytes, int number) {
  auto port = link::GatewayPort::Create(arena_bytes);
  if (!port.ok()) return port.status();
  return std::unique_ptr<IoThread>(new IoThread(shared, *std::move(port), number));
}

IoThread::IoThread(Shared& shared, std::unique_ptr<link::GatewayPort> port, int number)
    : shared_(shared),
      port_(std::move(port)),
      memory_(port_->arena(), shared.admission),
      context_(static_cast<size_t>(number), loop_, memory_, shared.children),
      calls_([this](uint64_t worker, const Status& why) { shared_.worker_fault(worker, why); },
             [this](uint64_t worker) { shared_.worker_drained(worker); },
             [this](ExecutionTag call) {
               for (const ChildCall& child : shared_.children.GiveUp(call)) shared_.child_given_up(child);
             },
             [this] { context_.answers_lacked = context_.now; }),
      router_(context_.stats),
      traffic_(context_.stats),
      mirrors_(context_, shared.mirrored, router_, traffic_, calls_),
      health_(router_, traffic_, served_),
      direct_(context_, health_) {
  context_.now = Clock::now();
  context_.http2 = std::make_shared<const Http2Settings>();
  auto predict = std::make_unique<PredictService>(context_, shared_.admission, router_, traffic_, mirrors_, calls_,
                                                  shared.most_suspense);
  predict_ = predict.get();
  context_.services[kPredictPath] = std::move(predict);
  context_.services[kClassifierPath] = std::make_unique<ClassifierService>(context_, router_, traffic_, *predict_);
  context_.services[kHealthCheckPath] =
      std::make_unique<HealthCheckService>(context_.stats.Of({.path = kHealthCheckPath}), health_);
  context_.services[kHealthWatchPath] =
      std::make_unique<HealthWatchService>(context_.stats.Of({.path = kHealthWatchPath}), health_);
  context_.services[kListApplicationsPath] = std::make_unique<ListApplicationsService>(
      context_.stats.Of({.path = kListApplicationsPath}), router_, traffic_, health_);
  context_.services[kHealthzPath] =
      std::make_unique<HealthzService>(context_.stats.Of({.path = kHealthzPath}), health_);
  for (const char* path : {kReflectionV1Path, kReflectionV1AlphaPath}) {
    context_.services[path] =
        std::make_unique<ReflectionService>(context_.stats.Of({.path = path}), served_, context_.memory);
  }
  user_calls_ =
      std::make_unique<UserCalls>(UserCalls{context_, shared_.admission, router_, traffic_, mirrors_, calls_});
  context_.services[kPredictStreamPath] = std::make_unique<StreamService>(*user_calls_, *predict_);
  MakeUserServices({});
  thread_ = std::thread([this, number] {
    pthread_setname_np(pthread_self(), ("ms-io-" + std::to_string(number)).c_str());
    bell_ = loop_.NewWatch(port_->bell_fd());
    timer_ = loop_.NewTimer();
    grace_ = loop_.NewTimer();
    AwaitBell();
    loop_.Run(this);
  });
}

IoThread::~IoThread() {
  loop_.Post([this] {
    TearDown();
    loop_.Stop();
  });
  thread_.join();
}

void IoThread::TearDown() {
  for (const Connected& each : connections_) each.connection->End({Code::kUnavailable, "the server is shutting down"});
  connections_.clear();
  direct_.Stop();
  for (const auto& worker : std::exchange(workers_, {})) {
    router_.RemoveWorker(worker);
    calls_.Remove(worker, {});
  }
  bell_.reset();
  timer_.reset();
  grace_.reset();
  drained_ = nullptr;
  direct_.door()->Close();
}

void IoThread::AwaitBell() {
  // Being awake is all that it is for.
  bell_->AwaitReadable([this] {
    port_->EmptyBell();
    AwaitBell();
  });
}

bool IoThread::PrepareSleep() {
  port_->Asleep();
  return !calls_.HasWork();
}

void IoThread::Awake() {
  port_->Awake();
  context_.now = Clock::now();
}

void IoThread::RoundEnd() {
  calls_.Poll();
  // Workers first: they may begin while replies are written.
  calls_.Flush();
  FlushConnections();
  if (direct_.Sweep()) CheckDrained();
  calls_.Flush();
  SetTimer();
}

void IoThread::FlushConnections() {
  bool gone = false;
  // Closing a connection may touch it again.
  while (!context_.dirty.empty()) {
    for (Http2Connection* connection : std::exchange(context_.dirty, {})) {
      connection->Flush();
      gone = gone || connection->closed();
    }
  }
  if (!gone) return;
  std::erase_if(connections_, [](const Connected& each) { return each.connection->closed(); });
  CheckDrained();
}

void IoThread::SetTimer() {
  const TimePoint next = context_.timers.next();
  if (!timer_ || next >= timer_at_) return;
  timer_at_ = next;
  timer_->Start(next, [this] {
    timer_at_ = kNever;
    context_.now = Clock::now();
    context_.timers.RunDue(context_.now);
  });
}

void IoThread::Serve(const Limits& limits) {
  context_.limits = limits;
  drained_ = nullptr;
  grace_->Cancel();
  takes_internal_ = true;
  health_.SetServing(true);
}

void IoThread::AddConnection(UniqueFd socket, std::shared_ptr<const net::TlsContext> tls, bool internal) {
  if (internal ? !takes_internal_ : !health_.serving()) return;
  auto transport = net::NewTransport(loop_, std::move(socket), std::move(tls));
  std::optional<PeerCount::Place> place;
  if (!internal) {
    const std::string peer = transport->peer().address;
    place = shared_.peers.Enter(peer, context_.limits.max_connections, context_.limits.max_connections_per_peer);
    if (!place) {
      context_.stats.Refuse(Refusal::kMaxConnections);
      context_.log.Warn(context_.now, "connection of " + peer + " refused: max_connections " +
                                          std::to_string(context_.limits.max_connections) +
                                          " or max_connections_per_peer " +
                                          std::to_string(context_.limits.max_connections_per_peer) + " is reached");
      return;
    }
    ++context_.stats.accepted;
  } else {
    shared_.children.Expect();
  }
  connections_.push_back(
      {std::make_unique<Http2Connection>(context_, std::move(transport), internal), std::move(place)});
  connections_.back().connection->Start();
}

void IoThread::Drain(bool internal, std::chrono::milliseconds grace, std::function<void()> done) {
  drained_ = std::move(done);
  drains_internal_ = internal;
  if (internal) {
    takes_internal_ = false;
  } else {
    health_.SetServing(false);
  }
  const auto each = [this, internal](const auto& task) {
    for (const Connected& connected : connections_) {
      if (connected.connection->internal() == internal) task(*connected.connection);
    }
  };
  each([](Http2Connection& connection) { connection.Drain(); });
  grace_->Start(Clock::now() + grace, [this, each] {
    const Status status(Code::kUnavailable, "the server is shutting down");
    each([&](Http2Connection& connection) { connection.End(status); });
    if (!drains_internal_) direct_.End(status);
  });
  CheckDrained();
}

size_t IoThread::Connections(bool internal) const {
  return static_cast<size_t>(std::ranges::count_if(
      connections_, [&](const Connected& each) { return each.connection->internal() == internal; }));
}

void IoThread::CheckDrained() {
  if (!drained_ || Connections(drains_internal_) > 0) return;
  if (!drains_internal_ && direct_.going_on() > 0) return;
  grace_->Cancel();
  std::exchange(drained_, nullptr)();
}

void IoThread::RequireTokens() {
  if (tokens_ != nullptr) return;
  tokens_ = std::make_unique<TokenCache>(shared_.tokens, context_.number);
  context_.tokens = tokens_.get();
}

void IoThread::OnVerdict(const std::string& text, uint64_t generation, const TokenCache::Verdict& verdict) {
  context_.now = Clock::now();
  tokens_->OnVerdict(text, generation, verdict);
}

void IoThread::ForgetTokens() {
  if (tokens_ != nullptr) tokens_->Forget();
}

void IoThread::DeclareServable(const std::string& name) {
  router_.Declare(name);
  health_.Changed();
}

void IoThread::RemoveServable(const std::string& name) {
  router_.Remove(name);
  health_.Changed();
}

void IoThread::SetServices(std::shared_ptr<const Served> served) {
  served_ = std::move(served);
  MakeUserServices(served_->services);
  health_.Changed();
}

void IoThread::SetTraffic(const std::vector<SplitSpec>& splits) {
  traffic_.Set(splits);
  health_.Changed();
}

void IoThread::MakeUserServices(const std::vector<ServiceSpec>& services) {
  std::map<std::string, UserService::Kind> wanted = {{kDriverPath, {}}};
  for (const ServiceSpec& service : services) {
    for (const ServiceSpec::Method& method : service.methods) {
      wanted["/" + service.name + "/" + method.name] = {.client_streaming = method.client_streaming,
                                                        .server_streaming = method.server_streaming};
    }
  }
  context_.last_served = nullptr;
  std::erase_if(users_, [&](const auto& each) {
    const auto& [path, service] = each;
    const auto found = wanted.find(path);
    if (found != wanted.end() && found->second == service->kind()) return false;
    auto entry = context_.services.extract(path);
    if (service->in_use()) replaced_.push_back(std::move(entry.mapped()));
    return true;
  });
  std::erase_if(replaced_, [](const auto& each) { return !static_cast<UserService&>(*each).in_use(); });
  for (const auto& [path, kind] : wanted) {
    if (users_.contains(path)) continue;
    auto service = std::make_unique<UserService>(*user_calls_, path, kind);
    users_[path] = service.get();
    context_.services[path] = std::move(service);
  }
}

void IoThread::AddWorker(WorkerSpec spec, std::shared_ptr<VersionState> version, std::unique_ptr<link::Lane> lane) {
  auto worker = std::make_shared<WorkerEnd>(std::move(spec), std::move(version), std::move(lane));
  workers_.push_back(worker);
  calls_.Add(worker);
  router_.AddWorker(std::move(worker));
  health_.Changed();
  predict_->OnWorkerAdded();
}

std::shared_ptr<WorkerEnd> IoThread::FindWorker(uint64_t id) const {
  const auto found = std::ranges::find(workers_, id, [](const auto& worker) { return worker->spec().id; });
  return found == workers_.end() ? nullptr : *found;
}

void IoThread::DrainWorker(uint64_t id) {
  if (const auto worker = FindWorker(id)) {
    calls_.Drain(*worker);
    health_.Changed();
  }
}

void IoThread::RemoveWorker(uint64_t id, const WorkerLoss& loss) {
  const auto worker = FindWorker(id);
  if (!worker) return;
  std::erase(workers_, worker);
  router_.RemoveWorker(worker);
  calls_.Remove(worker, loss);
  health_.Changed();
}

void IoThread::GiveUp(const ChildCall& child) {
  const auto found = std::ranges::find(connections_, child.connection,
                                       [](const Connected& each) { return each.connection->number(); });
  if (found != connections_.end()) found->connection->Abort(child.stream, ParentGivenUp());
}

void IoThread::RemoveVersion(const std::string& servable, uint64_t version) {
  router_.RemoveVersion(servable, version);
  health_.Changed();
}

}  // namespace mindserve::gateway
