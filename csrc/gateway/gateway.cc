#include "gateway/gateway.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <latch>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "base/log.h"
#include "gateway/io_thread.h"

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
  explicit State(size_t max_bytes) { shared.admission.SetMaxBytes(max_bytes); }
  ~State();

  void OnAll(const std::function<void(IoThread&)>& task);
  void OnFirst(const std::function<void()>& task);
  void RemoveWorker(uint64_t id, const std::string& why);
  void WatchWorker(uint64_t id, std::shared_ptr<UniqueFd> socket);
  void WorkerDrained(uint64_t id);
  void Accept();

  Shared shared;
  std::vector<std::unique_ptr<IoThread>> threads;  // the first one accepts, and watches the workers' sockets

  std::mutex listen_mutex;
  bool listening = false;  // guarded by listen_mutex

  std::mutex workers_mutex;
  // Guarded by workers_mutex: those that are attached, by their ids, and their statistics; none before the handshake.
  // Shared with whoever reads them just now.
  std::map<uint64_t, std::shared_ptr<const link::StatsReader>> workers;

  // The rest belongs to the first I/O thread.
  struct WorkerSocket {
    std::shared_ptr<UniqueFd> fd;  // shared with the task that brings it here
    std::unique_ptr<net::Watch> watch;
    size_t drained = 0;  // threads on which it drains and holds nothing
  };
  std::map<uint64_t, WorkerSocket> sockets;
  struct Listening {
    std::unique_ptr<net::Listener> listener;
    std::shared_ptr<const net::TlsContext> tls;  // for new connections; null: plaintext
    bool accepts = false;
  };
  std::vector<Listening> listeners;
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
    sockets.clear();
  });
  // The first one last: the others post to it until they have ended.
  while (!threads.empty()) threads.pop_back();
}

// On the first I/O thread.
void Gateway::State::RemoveWorker(uint64_t id, const std::string& why) {
  const auto found = sockets.find(id);
  if (found == sockets.end()) return;
  if (!why.empty()) Log(LogLevel::kWarning, "worker " + std::to_string(id) + " is lost: " + why);
  sockets.erase(found);
  for (const auto& thread : threads) {
    thread->loop().Post([&io = *thread, id] { io.RemoveWorker(id); });
  }
  std::lock_guard lock(workers_mutex);
  workers.erase(id);
}

// On the first I/O thread.
void Gateway::State::WatchWorker(uint64_t id, std::shared_ptr<UniqueFd> socket) {
  WorkerSocket& watched = sockets[id];
  watched.fd = std::move(socket);
  watched.watch = threads.front()->loop().NewWatch(watched.fd->get());
  // A worker says nothing on its socket after the handshake: whatever comes is its end.
  watched.watch->AwaitReadable([this, id] { RemoveWorker(id, "its socket was closed"); });
}

// On the first I/O thread: another thread has seen the last of what the worker held there, and will send it nothing
// more.
void Gateway::State::WorkerDrained(uint64_t id) {
  const auto found = sockets.find(id);
  if (found != sockets.end() && ++found->second.drained == threads.size()) RemoveWorker(id, "");
}

// On the first I/O thread.
void Gateway::State::Accept() {
  for (size_t i = 0; i < listeners.size(); ++i) {
    if (std::exchange(listeners[i].accepts, true)) continue;
    listeners[i].listener->Start(threads.front()->loop(), [this, i](UniqueFd socket) {
      const auto tls = listeners[i].tls;
      IoThread& io = *threads[next_thread++ % threads.size()];
      if (&io == threads.front().get()) return io.AddConnection(std::move(socket), tls);
      auto owned = std::make_shared<UniqueFd>(std::move(socket));  // with the task, which has to be copyable
      io.loop().Post([&io, owned, tls] { io.AddConnection(std::move(*owned), tls); });
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
  auto state = std::make_unique<State>(DefaultMaxEnqueuedBytes());
  state->shared.keepalive = options.keepalive;
  State* raw = state.get();
  state->shared.worker_fault = [raw](uint64_t worker, const Status& why) {
    raw->threads.front()->loop().Post([raw, worker, text = why.message()] { raw->RemoveWorker(worker, text); });
  };
  state->shared.worker_drained = [raw](uint64_t worker) {
    raw->threads.front()->loop().Post([raw, worker] { raw->WorkerDrained(worker); });
  };
  for (int i = 0; i < count; ++i) {
    auto thread = IoThread::Create(state->shared, arena_bytes, i);
    if (!thread.ok()) return thread.status();
    state->threads.push_back(*std::move(thread));
  }
  return std::unique_ptr<Gateway>(new Gateway(std::move(state)));
}

void Gateway::DeclareServable(const std::string& name) {
  state_->OnAll([&](IoThread& io) { io.DeclareServable(name); });
}

void Gateway::RemoveServable(const std::string& name) {
  state_->OnAll([&](IoThread& io) { io.RemoveServable(name); });
}

Result<std::vector<net::Address>> Gateway::Listen(std::vector<ListenerSpec> specs, const Limits& limits, bool accept) {
  MS_RETURN_IF_ERROR(CheckLimits(limits));
  std::lock_guard lock(state_->listen_mutex);
  if (state_->listening) {
    return Status(Code::kFailedPrecondition, "Serving Error: Serving gRPC server is already running");
  }
  std::vector<State::Listening> listeners;
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
    listeners.push_back({*std::move(listener), std::move(spec.tls)});
  }
  state_->shared.admission.SetMaxRequests(limits.max_enqueued_requests);
  state_->shared.admission.SetMaxBytes(limits.max_enqueued_bytes > 0 ? limits.max_enqueued_bytes
                                                                     : DefaultMaxEnqueuedBytes());
  state_->OnAll([&](IoThread& io) { io.Serve(limits); });
  state_->OnFirst([&] {
    state_->listeners = std::move(listeners);
    if (accept) state_->Accept();
  });
  state_->listening = true;
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
    } else if (state.listeners[listener].tls == nullptr) {
      status = Status(Code::kInvalidArgument, "listener " + std::to_string(listener) + " is plaintext");
    } else {
      state.listeners[listener].tls = std::move(tls);
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
    for (const State::Listening& each : state_->listeners) {
      auto sockets = each.listener->Share();
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
      if (i < state_->listeners.size()) state_->listeners[i].listener->Disown();
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
  {
    std::lock_guard lock(state.workers_mutex);
    if (!shaken.ok()) {
      state.workers.erase(id);
      return shaken.status();
    }
    state.workers[id] = std::make_shared<const link::StatsReader>(std::move(shaken->stats));
  }
  for (size_t i = 0; i < ports.size(); ++i) {
    auto lane =
        std::make_shared<std::unique_ptr<link::Lane>>(std::move(shaken->lanes[i]));  // a task has to be copyable
    IoThread& io = *state.threads[i];
    io.loop().Post([&io, spec, lane] { io.AddWorker(spec, std::move(*lane)); });
  }
  // Watched only now: the end of the worker must not come to a thread before its beginning.
  state.OnFirst([&] { state.WatchWorker(id, std::make_shared<UniqueFd>(std::move(socket))); });
  state.OnAll([](IoThread&) {});
  return Status::Ok();
}

void Gateway::DrainWorker(uint64_t id) {
  state_->OnAll([&](IoThread& io) { io.DrainWorker(id); });
}

void Gateway::DetachWorker(uint64_t id) {
  state_->OnFirst([&] { state_->RemoveWorker(id, ""); });
  state_->OnAll([](IoThread&) {});
}

void Gateway::RemoveVersion(const std::string& servable, uint64_t version) {
  state_->OnAll([&](IoThread& io) { io.RemoveVersion(servable, version); });
}

void Gateway::StopListening(std::chrono::milliseconds grace) {
  State& state = *state_;
  std::lock_guard lock(state.listen_mutex);
  if (!state.listening) return;
  state.listening = false;
  state.OnFirst([&] { state.listeners.clear(); });
  const auto done = std::make_shared<std::latch>(static_cast<std::ptrdiff_t>(state.threads.size()));
  for (const auto& thread : state.threads) {
    thread->loop().Post([&io = *thread, grace, done] { io.Drain(grace, [done] { done->count_down(); }); });
  }
  done->wait();
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
    for (size_t code = 0; code < method.ended.size(); ++code) {
      (code == 0 ? stats.replies : stats.errors) += method.ended[code];
    }
    method.key = key;
    stats.methods.push_back(std::move(method));
  }
  const auto attached = [&] {
    const std::lock_guard lock(state_->workers_mutex);
    return state_->workers;
  }();
  for (const auto& [id, stages] : attached) {
    WorkerStats& worker = workers[id];
    worker.id = id;
    if (stages) worker.stages = stages->Read();
    stats.workers.push_back(std::move(worker));
  }
  stats.in_flight = state_->shared.admission.requests();
  stats.enqueued_bytes = state_->shared.admission.bytes();
  return stats;
}

}  // namespace mindserve::gateway
