#include "gateway/direct_events.h"

#include <sys/eventfd.h>

#include <cerrno>
#include <cstring>
#include <iterator>
#include <string>
#include <utility>

namespace mindserve::gateway {
namespace {

// Up to this size a copy costs less than to send lent bytes back by way of their thread.
constexpr size_t kCopyBelow = size_t{16} << 10;

size_t SizeOf(const Reply& message) {
  size_t size = 0;
  for (const ReplyPart& part : message) size += part.bytes().size();
  return size;
}

// On the thread of the call.
void CopyIfSmall(Reply* message, size_t size) {
  if (size >= kCopyBelow) return;
  std::string own;
  own.reserve(size);
  for (ReplyPart& part : *message) {
    const std::span<const std::byte> bytes = part.bytes();
    own.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  message->clear();
  message->emplace_back(std::move(own));
}

}  // namespace

Result<std::shared_ptr<DirectEvents>> DirectEvents::Create() {
  UniqueFd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event) return Status(Code::kResourceExhausted, std::string("an eventfd can't be made: ") + std::strerror(errno));
  return std::shared_ptr<DirectEvents>(new DirectEvents(std::move(event)));
}

uint64_t DirectEvents::NextNumber() {
  const std::lock_guard lock(mutex_);
  return next_++;
}

void DirectEvents::Add(uint64_t call, const std::shared_ptr<DirectCall>& direct, size_t thread) {
  const std::lock_guard lock(mutex_);
  Open& open = open_[call];
  open.call = direct;
  open.thread = thread;
}

// With the lock.
void DirectEvents::Ready(DirectEvent event) {
  ready_.push_back(std::move(event));
  if (ready_.size() == 1) ::eventfd_write(event_.get(), 1);
}

void DirectEvents::Put(DirectEvent event) {
  const std::lock_guard lock(mutex_);
  const auto found = open_.find(event.call);
  if (found == open_.end()) return;
  Open& open = found->second;
  switch (event.kind) {
    case DirectEvent::Kind::kInitial:
      if (open.given_up.ok()) Ready(std::move(event));
      return;
    case DirectEvent::Kind::kMessage: {
      if (!open.given_up.ok()) return;
      if (!open.held.empty() || !open.HasRoom()) {
        open.held.push_back(std::move(event));
        return;
      }
      const size_t size = SizeOf(event.message);
      CopyIfSmall(&event.message, size);
      open.given.push_back(size);
      open.given_bytes += size;
      return Ready(std::move(event));
    }
    case DirectEvent::Kind::kEnd:
      open.call.reset();
      if (!open.held.empty()) {
        open.held.push_back(std::move(event));
        return;
      }
      if (!open.given_up.ok()) event.status = std::move(open.given_up);
      open_.erase(found);
      return Ready(std::move(event));
  }
}

void DirectEvents::Take(std::vector<DirectEvent>* events) {
  events->clear();
  const std::lock_guard lock(mutex_);
  if (ready_.empty()) return;
  eventfd_t count = 0;
  ::eventfd_read(event_.get(), &count);
  events->swap(ready_);
}

void DirectEvents::Consumed(uint64_t call, size_t count) {
  const std::lock_guard lock(mutex_);
  const auto found = open_.find(call);
  if (found == open_.end()) return;
  Open& open = found->second;
  for (; count > 0 && !open.given.empty(); --count) {
    open.given_bytes -= open.given.front();
    open.given.pop_front();
  }
  while (!open.held.empty()) {
    const bool ends = open.held.front().kind == DirectEvent::Kind::kEnd;
    if (!ends && !open.HasRoom()) return;
    DirectEvent event = std::move(open.held.front());
    open.held.pop_front();
    if (ends) {
      open_.erase(found);
      return Ready(std::move(event));
    }
    open.given.push_back(SizeOf(event.message));
    open.given_bytes += open.given.back();
    Ready(std::move(event));
  }
}

DirectEvents::GivenUp DirectEvents::GiveUp(uint64_t call, Status status) {
  GivenUp given_up;
  const std::lock_guard lock(mutex_);
  const auto found = open_.find(call);
  if (found == open_.end() || !found->second.given_up.ok()) return given_up;
  Open& open = found->second;
  std::ranges::move(open.held, std::back_inserter(given_up.dropped));
  open.held.clear();
  if (!given_up.dropped.empty() && given_up.dropped.back().kind == DirectEvent::Kind::kEnd) {
    DirectEvent end = std::move(given_up.dropped.back());
    given_up.dropped.pop_back();
    end.status = std::move(status);
    open_.erase(found);
    Ready(std::move(end));
    return given_up;
  }
  open.given_up = std::move(status);
  if (auto direct = open.call.lock()) given_up.going_on.emplace_back(open.thread, std::move(direct));
  return given_up;
}

DirectEvents::GivenUp DirectEvents::Close() {
  GivenUp given_up;
  const std::lock_guard lock(mutex_);
  for (auto& [number, open] : open_) {
    std::ranges::move(open.held, std::back_inserter(given_up.dropped));
    if (auto direct = open.call.lock()) given_up.going_on.emplace_back(open.thread, std::move(direct));
  }
  open_.clear();
  std::ranges::move(ready_, std::back_inserter(given_up.dropped));
  ready_.clear();
  return given_up;
}

}  // namespace mindserve::gateway
