#include "worker/runtime.h"

#include <cstddef>
#include <span>
#include <utility>

#include "worker/releases.h"
#include "worker/session.h"

namespace mindserve::worker {

Runtime::Runtime(const TimeSource& time, RuntimeOptions options)
    : time_(time),
      options_(options),
      loop_(std::make_shared<net::EventLoop>()),
      engine_(std::make_unique<pipeline::Engine>(time, [loop = loop_] { loop->Wake(); })),
      releases_(std::make_shared<Releases>([loop = loop_] { loop->Wake(); })),
      handlers_(std::make_shared<Handlers>(time, [loop = loop_] { loop->Wake(); })) {}

Runtime::~Runtime() {
  Stop();
  releases_->Close();
  handlers_->Clear();
}

pipeline::Engine& Runtime::engine() {
  return *engine_;
}

Handlers& Runtime::handlers() {
  return *handlers_;
}

size_t Runtime::retained_bytes() const {
  return releases_->retained_bytes();
}

Status Runtime::Serve(UniqueFd socket, std::chrono::milliseconds handshake_timeout) {
  std::vector<link::StageName> names;
  watched_.clear();
  for (const auto& stage : engine_->stages()) {
    const bool is_model = stage.kind == pipeline::StageSpec::Kind::kModel;
    if (stage.timeout > Duration::zero()) watched_.push_back({.number = names.size(), .stage = stage});
    names.push_back({is_model ? link::StageKind::kModel : link::StageKind::kFunction, stage.name});
  }
  const size_t stages = names.size();
  for (size_t i = 0; i < handlers_->size(); ++i) {
    names.push_back({link::StageKind::kHandler, handlers_->spec(static_cast<int>(i)).path});
  }
  auto stats = link::StatsWriter::Create(names);
  if (!stats.ok()) return stats.status();
  stats_ = *std::move(stats);
  std::vector<StageStats*> entries;
  for (size_t i = 0; i < names.size(); ++i) entries.push_back(&stats_->stage(i));
  engine_->CountIn(std::span(entries).first(stages));
  handler_stats_.assign(entries.begin() + static_cast<std::ptrdiff_t>(stages), entries.end());
  auto link = link::WorkerLink::Connect(socket.get(), *stats_, options_.reply_arena_bytes, handshake_timeout);
  if (!link.ok()) return link.status();
  link_ = *std::move(link);
  // The session's requests are sinks of the engine's instances: the engine lets go of them before they go.
  auto session = std::make_unique<Session>(*this, std::move(socket));
  serving_ = true;
  const Status status = session->Run();
  Stop();
  engine_->Poll();
  // Cancels the calls of users' services, which their handlers' threads are still to see.
  session.reset();
  serving_ = false;
  handlers_->Stop();
  return status;
}

void Runtime::Stop() {
  loop_->Stop();
  engine_->Stop();
  if (!serving_) handlers_->Stop();
}

}  // namespace mindserve::worker
