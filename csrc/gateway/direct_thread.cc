#include "gateway/direct_thread.h"

namespace mindserve::gateway {

bool DirectDoor::Post(std::function<void(DirectThread&)> task) {
  const std::lock_guard lock(mutex_);
  if (loop_ == nullptr) return false;
  loop_->Post([&thread = thread_, task = std::move(task)] { task(thread); });
  return true;
}

void DirectDoor::Close() {
  const std::lock_guard lock(mutex_);
  loop_ = nullptr;
}

void DirectThread::Begin(const std::shared_ptr<DirectCall>& call) {
  if (stopped_) return;  // it ends with the task
  call->index = calls_.size();
  calls_.push_back(call);
  call->Begin(*this);
}

void DirectThread::Finished(DirectCall& call) {
  ended_.push_back(std::move(calls_[call.index]));
  if (call.index + 1 < calls_.size()) {
    calls_[call.index] = std::move(calls_.back());
    calls_[call.index]->index = call.index;
  }
  calls_.pop_back();
}

void DirectThread::End(const Status& status) {
  while (!calls_.empty()) calls_.back()->Abort(status);
}

void DirectThread::Stop() {
  stopped_ = true;
  End(ServerGone());
  Sweep();
}

bool DirectThread::Sweep() {
  if (ended_.empty()) return false;
  // To destroy a handler may end others.
  while (!ended_.empty()) {
    for (const auto& call : std::exchange(ended_, {})) call->Close();
  }
  return true;
}

std::shared_ptr<DirectClient> DirectThread::ClientOf(uint64_t client) {
  const auto found = client_places_.find(client);
  if (found != client_places_.end()) {
    clients_.splice(clients_.begin(), clients_, found->second);
  } else {
    clients_.emplace_front(client,
                           std::make_shared<DirectClient>(DirectClient{.number = context_.next_client++, .trust = {}}));
    client_places_[client] = clients_.begin();
    if (clients_.size() > kMostClients) {
      client_places_.erase(clients_.back().first);
      clients_.pop_back();
    }
  }
  return clients_.front().second;
}

}  // namespace mindserve::gateway
