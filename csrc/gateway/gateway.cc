#include "gateway/gateway.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <latch>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "base/log.h"
#include "gateway/io_thread.h"
#include "gateway/traffic.h"
#include "gateway/worker_watch.h"

namespace mindserve::gateway {
namespace {

size_t MachineMemory() {
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long page = sysconf(_SC_PAGESIZE);
  size_t memory = pages > 0 && page > 0 ? static_cast<size_t>(pages) * static_cast<size_t>(page) : size_t{4} << 30;
  // A container may have less. "max" there, which is no number, means that it has not.
  size_t allowed = 0;
  if (std::ifstream("/sys/fs/cgroup/memory.max") >> allowed && allowed > 0) memory = std::min(memory, allowed);
  return memory;
}

size_t DefaultMaxEnqueuedBytes() {
  return std::min(MachineMemory() / 4, size_t{4} << 30);
}

int DefaultIoThreads() {
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / 4);
}

Status CheckLimits(const Limits& limits) {
  if (limits.max_msg_mb_size < 1 || limits.max_msg_mb_size > 512) {
    return {Code::kInvalidArgument,
            "max_msg_mb_size is " + std::to_string(limits.max_msg_mb_size) + ", expected 1 to 512"};
  }
  return Status::Ok();
}

}  // namespace

struct Gateway::State {
  State(const GatewayOptions& options, size_t max_bytes)
      : descriptors(options.descriptors), lost_event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    shared.most_suspense = options.most_suspense;
    shared.admission.SetMaxBytes(max_bytes);
  }
  ~State();

  void OnAll(const std::function<void(IoThread&)>& task);
  void OnFirst(const std::function<void()>& task);
  void Drain(bool internal, std::chrono::milliseconds grace);
  void WorkerDrained(uint64_t id);
  void Accept();
  void RemoveWorker(uint64_t id, const std::optional<WorkerLoss>& loss);
  void LoseWorker(uint64_t id, const std::string& why, bool dead);
  std::shared_ptr<Admission> AdmissionOf(const std::string& servable);
  std::shared_ptr<VersionState> VersionOf(const WorkerSpec& spec);

  const std::string descriptors;  // of the built-in services
  Shared shared;
  std::vector<std::unique_ptr<IoThread>> threads;  // the first one accepts, and watches the workers' sockets

  std::mutex listen_mutex;
  // These are guarded by listen_mutex.
  bool listening = false;
  bool listening_to_clients = false;

  struct Worker {
    std::shared_ptr<const link::StatsReader> stats;  // none before the handshake; shared with whoever reads them now
    std::shared_ptr<VersionState> version;           // shared as it says itself
    bool draining = false;
  };
  std::mutex workers_mutex;
  // These are guarded by workers_mutex.
  std::map<uint64_t, Worker> workers;  // that are attached, by their ids
  // What servables and their versions have besides workers, until they are removed.
  std::map<std::string, std::shared_ptr<Admission>> admissions;
  std::map<std::pair<std::string, uint64_t>, std::shared_ptr<VersionState>> versions;
  uint64_t next_version = 1;
  std::vector<LostWorker> lost;

  const UniqueFd lost_event;  // an eventfd, readable while `lost` has any

  // The rest belongs to the first I/O thread.
  std::map<uint64_t, size_t> drained;  // of workers that drain: threads on which they hold nothing
  struct Listening {
    std::unique_ptr<net::Listener> listener;
    std::shared_ptr<const net::TlsContext> tls;  // for new connections; null: plaintext
    bool internal = false;
    bool accepts = false;
  };
  // While it stops, those without a listener have stopped. In their own places: their handlers look at them.
  std::vector<std::unique_ptr<Listening>> listeners;
  std::unique_ptr<WorkerWatch> watch;  // null at the end: what threads still tell of workers concerns nobody then
  size_t next_thread = 0;
};

// Runs `task` on every I/O thread, for each when it comes to it, and waits.
void Gateway::State::OnAll(const std::function<void(IoThread&)>& task) {
  // Shared with the tasks: the last one may still be inside of it when the wait is over.
  const auto done = std::make_shared<std::latch>(static_cast<std::ptrdiff_t>(threads.size()));
  for (const auto& thread : threads) {
    if (thread->current()) {
      task(*thread);
      done->count_down();
      continue;
    }
    thread->loop().Post([&task, &io = *thread, done] {
      task(io);
      done->count_down();
    });
  }
  done->wait();
}

void Gateway::State::OnFirst(const std::function<void()>& task) {
  const auto done = std::make_shared<std::latch>(1);
  threads.front()->loop().Post([&task, done] {
    task();
    done->count_down();
  });
  done->wait();
}

Gateway::State::~State() {
  if (threads.empty()) return;
  OnFirst([this] {
    listeners.clear();
    watch.reset();
  });
  // The first one last: the others post to it until they have ended.
  while (!threads.empty()) threads.pop_back();
}

std::shared_ptr<Admission> Gateway::State::AdmissionOf(const std::string& servable) {
  auto& admission = admissions[servable];
  if (admission == nullptr) {
    admission = std::make_shared<Admission>();
    admission->SetMaxRequests(0);
    admission->SetMaxBytes(0);
  }
  return admission;
}

std::shared_ptr<VersionState> Gateway::State::VersionOf(const WorkerSpec& spec) {
  auto& version = versions[{spec.servable, spec.version}];
  if (version == nullptr) {
    version.reset(new VersionState{
        .number = next_version++, .version = spec.version, .admission = AdmissionOf(spec.servable), .quarantine = {}});
  }
  return version;
}

// On the first I/O thread. A loss tells what the worker did; without one it is detached in order.
void Gateway::State::RemoveWorker(uint64_t id, const std::optional<WorkerLoss>& loss) {
  drained.erase(id);
  const auto shared_loss =
      std::make_shared<const WorkerLoss>(loss.value_or(WorkerLoss{.why = "the server ends it"}));  // with each thread
  for (const auto& thread : threads) {
    thread->loop().Post([&io = *thread, id, shared_loss] { io.RemoveWorker(id, *shared_loss); });
  }
  std::lock_guard lock(workers_mutex);
  const auto found = workers.find(id);
  if (!found->second.draining) found->second.version->quarantine.OnGone(Clock::now());
  workers.erase(found);
}

// On the first I/O thread, of one that is watched no more. `dead`: its process is surely over.
void Gateway::State::LoseWorker(uint64_t id, const std::string& why, bool dead) {
  const auto stats = [&] {
    std::lock_guard lock(workers_mutex);
    if (!dead) {
      lost.push_back({id, why});
      ::eventfd_write(lost_event.get(), 1);
    }
    return workers.at(id).stats;
  }();
  const WorkerLoss loss = WorkerLoss::Of(why, dead, *stats);
  Log(LogLevel::kWarning, "worker " + std::to_string(id) + " is lost: " + loss.why);
  RemoveWorker(id, loss);
}

// On the first I/O thread: another thread has seen the last of what the worker held there, and will send it nothing
// more.
void Gateway::State::WorkerDrained(uint64_t id) {
  if (watch == nullptr || !watch->Watches(id) || ++drained[id] < threads.size()) return;
  watch->Remove(id);
  RemoveWorker(id, std::nullopt);
}

// On the first I/O thread.
void Gateway::State::Accept() {
  for (const auto& each : listeners) {
    if (each->listener == nullptr || std::exchange(each->accepts, true)) continue;
    each->listener->Start(threads.front()->loop(), [this, &from = *each](UniqueFd socket) {
      const auto tls = from.tls;
      const bool internal = from.internal;
      IoThread& io = *threads[next_thread++ % threads.size()];
      if (&io == threads.front().get()) return io.AddConnection(std::move(socket), tls, internal);
      auto owned = std::make_shared<UniqueFd>(std::move(socket));  // with the task, which has to be copyable
      io.loop().Post([&io, owned, tls, internal] { io.AddConnection(std::move(*owned), tls, internal); });
    });
  }
}

Gateway::Gateway(std::unique_ptr<State> state) : state_(std::move(state)) {}
Gateway::~Gateway() = default;

Result<std::unique_ptr<Gateway>> Gateway::Create(const GatewayOptions& options) {
  const int count = options.io_threads > 0 ? options.io_threads : DefaultIoThreads();
  // Address space, which costs nothing, but can't grow when Listen sets the limit. One thread may have all of
  // max_enqueued_bytes, of which an arena makes up to twice as much (link/arena.h), so that limits up to half of the
  // memory fit. More than the memory would be of no use, and all threads' together must be far from what a process can
  // map.
  const size_t most_bytes = std::min(MachineMemory(), (size_t{32} << 40) / static_cast<size_t>(count));
  const size_t arena_bytes = std::max(most_bytes, size_t{4} << 30);
  auto state = std::make_unique<State>(options, DefaultMaxEnqueuedBytes());
  if (state->lost_event.get() < 0) {
    return Status(Code::kResourceExhausted, std::string("an eventfd can't be made: ") + std::strerror(errno));
  }
  State* raw = state.get();
  state->shared.worker_fault = [raw](uint64_t worker, const Status& why) {
    raw->threads.front()->loop().Post([raw, worker, text = why.message()] {
      if (raw->watch != nullptr && raw->watch->Remove(worker)) raw->LoseWorker(worker, text, /*dead=*/false);
    });
  };
  state->shared.worker_drained = [raw](uint64_t worker) {
    raw->threads.front()->loop().Post([raw, worker] { raw->WorkerDrained(worker); });
  };
  state->shared.child_given_up = [raw](const ChildCall& child) {
    // By way of the first thread, which lives as long as any.
    raw->threads.front()->loop().Post([raw, child] {
      if (raw->watch == nullptr) return;
      IoThread& io = *raw->threads[child.thread];
      io.loop().Post([&io, child] { io.GiveUp(child); });
    });
  };
  for (int i = 0; i < count; ++i) {
    auto thread = IoThread::Create(state->shared, arena_bytes, i);
    if (!thread.ok()) return thread.status();
    state->threads.push_back(*std::move(thread));
  }
  state->OnFirst([raw] {
    raw->watch = std::make_unique<WorkerWatch>(raw->threads.front()->loop(),
                                               [raw](uint64_t worker, WorkerWatch::Sign sign, const std::string& why) {
                                                 raw->LoseWorker(worker, why, sign == WorkerWatch::Sign::kClosed);
                                               });
  });
  auto gateway = std::unique_ptr<Gateway>(new Gateway(std::move(state)));
  MS_RETURN_IF_ERROR(gateway->SetServices({}, ""));
  return gateway;
}

void Gateway::DeclareServable(const std::string& name, const ServableLimits& limits) {
  {
    std::lock_guard lock(state_->workers_mutex);
    const auto admission = state_->AdmissionOf(name);
    admission->SetMaxRequests(limits.max_enqueued_requests);
    admission->SetMaxBytes(limits.max_enqueued_bytes);
  }
  state_->OnAll([&](IoThread& io) { io.DeclareServable(name); });
}

void Gateway::RemoveServable(const std::string& name) {
  state_->OnAll([&](IoThread& io) { io.RemoveServable(name); });
  std::lock_guard lock(state_->workers_mutex);
  state_->admissions.erase(name);
  std::erase_if(state_->versions, [&](const auto& each) { return each.first.first == name; });
}

Status Gateway::SetServices(std::vector<ServiceSpec> services, std::string_view descriptors) {
  auto served = Served::Create(std::move(services), descriptors, state_->descriptors);
  if (!served.ok()) return served.status();
  state_->OnAll([&](IoThread& io) { io.SetServices(*served); });
  return Status::Ok();
}

Status Gateway::SetTraffic(const std::vector<SplitSpec>& splits) {
  MS_RETURN_IF_ERROR(CheckSplits(splits));
  state_->OnAll([&](IoThread& io) { io.SetTraffic(splits); });
  return Status::Ok();
}

Result<std::vector<net::Address>> Gateway::Listen(std::vector<ListenerSpec> specs, const Limits& limits, bool accept) {
  MS_RETURN_IF_ERROR(CheckLimits(limits));
  std::lock_guard lock(state_->listen_mutex);
  const bool to_clients = std::ranges::any_of(specs, [](const ListenerSpec& spec) { return !spec.internal; });
  if (state_->listening && (state_->listening_to_clients || !to_clients)) {
    return Status(Code::kFailedPrecondition, "Serving Error: Serving gRPC server is already running");
  }
  if (!std::ranges::is_partitioned(specs, [](const ListenerSpec& spec) { return !spec.internal; })) {
    return Status(Code::kInvalidArgument, "an internal listener stands before one for clients, expected behind them");
  }
  std::vector<std::unique_ptr<State::Listening>> listeners;
  std::vector<net::Address> addresses;
  for (ListenerSpec& spec : specs) {
    auto listener = spec.inherited ? net::Adopt(spec.address, spec.options, *std::move(spec.inherited))
                                   : net::Listen(spec.address, spec.options);
    if (!listener.ok()) {
      return Status(listener.status().code(),
                    "Serving Error: Serving gRPC server start failed, create server failed, address " +
                        spec.address.ToString() + ": " + listener.status().message());
    }
    addresses.push_back((*listener)->address());
    listeners.push_back(
        std::make_unique<State::Listening>(State::Listening{*std::move(listener), std::move(spec.tls), spec.internal}));
  }
  state_->shared.admission.SetMaxRequests(limits.max_enqueued_requests);
  state_->shared.admission.SetMaxBytes(limits.max_enqueued_bytes > 0 ? limits.max_enqueued_bytes
                                                                     : DefaultMaxEnqueuedBytes());
  state_->shared.mirrored.SetMaxRequests(limits.max_mirrored_requests);
  state_->shared.mirrored.SetMaxBytes(limits.max_mirrored_bytes);
  state_->OnAll([&](IoThread& io) { io.Serve(limits); });
  state_->OnFirst([&] {
    std::ranges::move(state_->listeners, std::back_inserter(listeners));  // internal ones, if any
    state_->listeners = std::move(listeners);
    if (accept) state_->Accept();
  });
  state_->listening = true;
  state_->listening_to_clients = to_clients;
  return addresses;
}

Status Gateway::SetTls(size_t listener, std::shared_ptr<const net::TlsContext> tls) {
  State& state = *state_;
  Status status;
  state.OnFirst([&] {
    if (state.listeners.empty()) {
      status = Status(Code::kFailedPrecondition, "the server is not listening");
    } else if (listener >= state.listeners.size()) {
      status = Status(Code::kInvalidArgument, "there is no listener " + std::to_string(listener) + ", only " +
                                                  std::to_string(state.listeners.size()));
    } else if (state.listeners[listener]->tls == nullptr) {
      status = Status(Code::kInvalidArgument, "listener " + std::to_string(listener) + " is plaintext");
    } else {
      state.listeners[listener]->tls = std::move(tls);
    }
  });
  return status;
}

void Gateway::Accept() {
  state_->OnFirst([&] { state_->Accept(); });
}

Result<std::vector<net::SharedSockets>> Gateway::ShareListeners() {
  std::vector<net::SharedSockets> shared;
  Status status = Status::Ok();
  state_->OnFirst([&] {
    for (const auto& each : state_->listeners) {
      if (each->internal || each->listener == nullptr) break;
      auto sockets = each->listener->Share();
      if (!sockets.ok()) {
        status = sockets.status();
        return;
      }
      shared.push_back(*std::move(sockets));
    }
  });
  MS_RETURN_IF_ERROR(status);
  return shared;
}

void Gateway::DisownListeners(const std::vector<size_t>& which) {
  state_->OnFirst([&] {
    for (const size_t i : which) {
      if (i >= state_->listeners.size() || state_->listeners[i]->listener == nullptr) continue;
      state_->listeners[i]->listener->Disown();
    }
  });
}

void Gateway::SetMaxEnqueuedRequests(size_t n) {
  state_->shared.admission.SetMaxRequests(n);
}

Status Gateway::AttachWorker(UniqueFd socket, WorkerSpec spec, std::chrono::milliseconds timeout) {
  State& state = *state_;
  const uint64_t id = spec.id;
  {
    std::lock_guard lock(state.workers_mutex);
    if (!state.workers.try_emplace(id).second) {
      return {Code::kAlreadyExists, "worker " + std::to_string(id) + " is attached already"};
    }
  }
  std::vector<link::GatewayPort*> ports;
  for (const auto& thread : state.threads) ports.push_back(&thread->port());
  auto shaken = link::GatewayHandshake::Run(socket.get(), ports, timeout);
  std::shared_ptr<const link::StatsReader> stats;
  std::shared_ptr<VersionState> version;
  {
    std::lock_guard lock(state.workers_mutex);
    if (!shaken.ok()) {
      state.workers.erase(id);
      return shaken.status();
    }
    stats = std::make_shared<const link::StatsReader>(std::move(shaken->stats));
    version = state.VersionOf(spec);
    version->quarantine.OnAttached();
    state.workers[id] = {stats, version};
  }
  for (size_t i = 0; i < ports.size(); ++i) {
    auto lane =
        std::make_shared<std::unique_ptr<link::Lane>>(std::move(shaken->lanes[i]));  // a task has to be copyable
    IoThread& io = *state.threads[i];
    io.loop().Post([&io, spec, version, lane] { io.AddWorker(spec, version, std::move(*lane)); });
  }
  // Watched only now: the end of the worker must not come to a thread before its beginning.
  state.OnFirst([&] {
    state.watch->Add(id, std::make_shared<UniqueFd>(std::move(socket)), stats, spec.heartbeat_timeout, Clock::now());
  });
  state.OnAll([](IoThread&) {});
  return Status::Ok();
}

void Gateway::DrainWorker(uint64_t id) {
  {
    std::lock_guard lock(state_->workers_mutex);
    const auto found = state_->workers.find(id);
    // None yet: its handshake goes on.
    if (found != state_->workers.end() && found->second.version != nullptr &&
        !std::exchange(found->second.draining, true)) {
      found->second.version->quarantine.OnDraining();
    }
  }
  state_->OnAll([&](IoThread& io) { io.DrainWorker(id); });
}

void Gateway::DetachWorker(uint64_t id, bool dead) {
  State& state = *state_;
  state.OnFirst([&] {
    if (!state.watch->Remove(id)) return;
    dead ? state.LoseWorker(id, "its process ended", dead) : state.RemoveWorker(id, std::nullopt);
  });
  state.OnAll([](IoThread&) {});
}

int Gateway::lost_workers_fd() const {
  return state_->lost_event.get();
}

std::vector<Gateway::LostWorker> Gateway::TakeLostWorkers() {
  std::lock_guard lock(state_->workers_mutex);
  eventfd_t count = 0;
  ::eventfd_read(state_->lost_event.get(), &count);
  return std::exchange(state_->lost, {});
}

void Gateway::RemoveVersion(const std::string& servable, uint64_t version) {
  state_->OnAll([&](IoThread& io) { io.RemoveVersion(servable, version); });
  std::lock_guard lock(state_->workers_mutex);
  state_->versions.erase({servable, version});
}

std::vector<TokenQueue::Question> Gateway::TakeTokens(size_t most) {
  return state_->shared.tokens.Take(most);
}

void Gateway::CloseTokens() {
  state_->shared.tokens.Close();
}

void Gateway::RequireTokens() {
  state_->OnAll([](IoThread& io) { io.RequireTokens(); });
}

void Gateway::AnswerToken(const TokenQueue::Question& question, TokenCache::Verdict verdict) {
  IoThread& io = *state_->threads[question.thread];
  io.loop().Post(
      [&io, question, verdict = std::move(verdict)] { io.OnVerdict(question.text, question.generation, verdict); });
}

void Gateway::ForgetTokens() {
  state_->OnAll([](IoThread& io) { io.ForgetTokens(); });
}

void Gateway::StopListening(std::chrono::milliseconds grace) {
  State& state = *state_;
  std::lock_guard lock(state.listen_mutex);
  if (!state.listening) return;
  state.listening = state.listening_to_clients = false;
  const TimePoint end = Clock::now() + grace;
  state.OnFirst([&] {
    for (const auto& each : state.listeners) {
      if (!each->internal) each->listener.reset();
    }
  });
  state.Drain(/*internal=*/false, grace);
  // Of handlers none is left that has a client.
  state.OnFirst([&] { state.listeners.clear(); });
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now());
  state.Drain(/*internal=*/true, std::max(left, std::chrono::milliseconds(0)));
}

// Lets the connections, of clients or internal ones, end for `grace`, then ends them; waits.
void Gateway::State::Drain(bool internal, std::chrono::milliseconds grace) {
  const auto done = std::make_shared<std::latch>(static_cast<std::ptrdiff_t>(threads.size()));
  for (const auto& thread : threads) {
    thread->loop().Post(
        [&io = *thread, internal, grace, done] { io.Drain(internal, grace, [done] { done->count_down(); }); });
  }
  done->wait();
}

Result<std::unique_ptr<DirectCalls>> Gateway::NewDirectCalls() {
  std::vector<std::shared_ptr<DirectDoor>> doors;
  for (const auto& thread : state_->threads) doors.push_back(thread->direct_door());
  return DirectCalls::Create(std::move(doors));
}

uint64_t Gateway::replies() const {
  uint64_t replies = 0;
  for (const auto& thread : state_->threads) replies += thread->stats().replies.value();
  return replies;
}

Gateway::Stats Gateway::GetStats() const {
  Stats stats;
  std::map<MethodKey, MethodStats> methods;
  std::map<uint64_t, WorkerStats> workers;
  std::mutex mutex;  // the threads come here at the same time
  state_->OnAll([&](IoThread& io) {
    const std::lock_guard lock(mutex);
    const CallStats& counted = io.stats();
    stats.requests += counted.begun;
    stats.connections += io.connections();
    stats.accepted += counted.accepted;
    for (size_t i = 0; i < stats.refused.size(); ++i) stats.refused[i] += counted.refused[i];
    for (const auto& [key, counts] : counted.methods) {
      MethodStats& method = methods[key];
      for (size_t i = 0; i < method.ended.size(); ++i) method.ended[i] += counts->ended[i];
      method.with_errors += counts->with_errors;
      for (size_t i = 0; i < method.errors.size(); ++i) method.errors[i] += counts->errors[i];
      method.instances += counts->instances;
      method.bytes_in += counts->bytes_in;
      method.bytes_out += counts->bytes_out;
      method.latency_ns.Add(counts->latency_ns.Read());
    }
    for (const auto& worker : io.workers()) {
      WorkerStats& of_worker = workers[worker->spec().id];
      of_worker.load += worker->load;
      of_worker.requests += worker->requests;
    }
  });
  for (auto& [key, method] : methods) {
    for (size_t code = 0; code < method.ended.size() && !key.mirrored; ++code) {
      (code == 0 ? stats.replies : stats.errors) += method.ended[code];
    }
    method.key = key;
    stats.methods.push_back(std::move(method));
  }
  const auto attached = [&] {
    const std::lock_guard lock(state_->workers_mutex);
    return state_->workers;
  }();
  for (const auto& [id, reading] : attached) {
    WorkerStats& worker = workers[id];
    worker.id = id;
    if (reading.stats) worker.stages = reading.stats->Read();
    stats.workers.push_back(std::move(worker));
  }
  stats.in_flight = state_->shared.admission.requests();
  stats.enqueued_bytes = state_->shared.admission.bytes();
  return stats;
}

}  // namespace mindserve::gateway
