#include "worker/service_call.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace mindserve::worker {

// On the stack of a thread that waits: few calls ever have one.
struct ServiceCall::Waiter {
  std::condition_variable changed;
  Waiter* next = nullptr;
};

ServiceCall::ServiceCall(std::shared_ptr<Handlers> handlers, Opened opened)
    : handlers_(std::move(handlers)), opened_(std::move(opened)) {}

ServiceCall::~ServiceCall() = default;

wire::CallHead ServiceCall::head() const {
  auto head = wire::ReadCallHead(std::as_bytes(std::span(opened_.head)));
  return head.ok() ? *std::move(head) : wire::CallHead{};  // it was looked at when the call was opened
}

bool ServiceCall::cancelled() const {
  const std::lock_guard lock(mutex_);
  return cancelled_;
}

bool ServiceCall::over() const {
  const std::lock_guard lock(mutex_);
  return gone();
}

bool ServiceCall::ClientMaySend() const {
  if (!spec().client_streaming) return false;
  const std::lock_guard lock(mutex_);
  return !half_closed_ && !gone();
}

bool ServiceCall::Begin(TimePoint now) {
  const std::lock_guard lock(mutex_);
  resumes_ = false;
  if (begun_) return true;
  if (gone()) return false;
  begun_ = true;
  began_at_ = now;
  opened_.mark.Begin();
  return true;
}

ServiceCall::Reading ServiceCall::Look() const {
  if (gone()) return Reading::kGone;
  if (dismissed_) return Reading::kNotYet;
  if (HasMessage()) return Reading::kMessage;
  return half_closed_ ? Reading::kHalfClosed : Reading::kNotYet;
}

void ServiceCall::Want(std::unique_lock<std::mutex>& lock) {
  const bool tells = !std::exchange(wants_message_, true) && unanswered_;
  const bool leaves = dismissed_ && !std::exchange(dismissal_due_, true);
  if (tells || leaves) MarkPosted(lock);
}

void ServiceCall::Taken(std::unique_lock<std::mutex>& lock) {
  // The message of a client that sends one goes with the call.
  if (request_) return request_.reset();
  if (++inbox_read_ == inbox_.size()) {
    inbox_.clear();
    inbox_read_ = 0;
  }
  silent_since_ = kNever;
  unanswered_ = spec().server_streaming;
  ++all_taken_;
  ++taken_;
  MarkPosted(lock);
}

template <typename Until>
void ServiceCall::Wait(std::unique_lock<std::mutex>& lock, bool reads, Until until) {
  if (until()) return;
  handlers_->BeginBlocked(reads ? this : nullptr, silent_since_);
  Waiter waiter;
  waiter.next = waiters_;
  waiters_ = &waiter;
  waiter.changed.wait(lock, until);
  Waiter** link = &waiters_;
  while (*link != &waiter) link = &(*link)->next;
  *link = waiter.next;
  handlers_->EndBlocked();
}

void ServiceCall::AwaitReadable() {
  std::unique_lock lock(mutex_);
  Wait(lock, true, [this] { return Readable(); });
}

bool ServiceCall::AwaitWritable() {
  std::unique_lock lock(mutex_);
  Wait(lock, false, [this] { return gone() || !held_back_; });
  resumes_ = false;
  return !gone();
}

void ServiceCall::WakeWaiters() {
  for (Waiter* waiter = waiters_; waiter != nullptr; waiter = waiter->next) waiter->changed.notify_one();
}

void ServiceCall::MarkPosted(std::unique_lock<std::mutex>& lock) {
  const bool posted = std::exchange(posted_, true);
  lock.unlock();
  if (!posted) handlers_->Post(shared_from_this());
}

void ServiceCall::Put(OutMessage message) {
  const size_t size = message.bytes().size();
  sizes_.push_back(static_cast<uint32_t>(std::min<size_t>(size, UINT32_MAX)));
  bytes_ahead_ += sizes_.back();
  ++ahead_;
  answering_ = true;
  unanswered_ = false;
  outbox_.push_back(std::move(message));
}

ServiceCall::Writing ServiceCall::Write(OutMessage message) {
  std::unique_lock lock(mutex_);
  if (gone()) return Writing::kGone;
  Put(std::move(message));
  held_back_ = held_back_ || Full();
  resumes_ = held_back_;
  const Writing writing = held_back_ ? Writing::kHoldBack : Writing::kGoOn;
  MarkPosted(lock);
  return writing;
}

void ServiceCall::WriteLast(OutMessage message) {
  std::unique_lock lock(mutex_);
  if (gone()) return;
  SetEnd(Code::kOk, {}, true);
  end_.last = std::move(message);
  MarkPosted(lock);
}

bool ServiceCall::SendInitial(const wire::MetadataView& metadata, bool compressed) {
  auto initial = std::make_unique<Initial>(Initial{wire::WriteMetadata(metadata), compressed});
  std::unique_lock lock(mutex_);
  if (gone()) return true;
  if (std::exchange(answering_, true)) return false;
  initial_ = std::move(initial);
  MarkPosted(lock);
  return true;
}

void ServiceCall::Finish(Code code, std::string_view details, const wire::MetadataView& trailing) {
  const bool plain = code == Code::kOk && details.empty() && trailing.empty();
  std::string block = plain ? std::string() : wire::WriteCallEnd({details, trailing});
  std::unique_lock lock(mutex_);
  if (gone()) return;
  SetEnd(code, std::move(block), plain);
  const bool parked = std::exchange(parked_, false);
  MarkPosted(lock);
  if (parked) handlers_->Push(shared_from_this());
}

void ServiceCall::SetEnd(Code code, std::string block, bool plain) {
  finished_ = true;
  DropInbox();
  end_.there = true;
  end_.plain = plain;
  end_.code = code;
  end_.block = std::move(block);
  if (begun_) {
    end_.waited = began_at_ - opened_.arrived;
    end_.took = handlers_->time().Now() - began_at_;
  }
  WakeWaiters();
}

void ServiceCall::Drop() {
  if (!over()) Finish(Code::kInternal, "the handler gave no answer", {});
}

ServiceCall::Parked ServiceCall::Park() {
  std::unique_lock lock(mutex_);
  if (!resumes_ || finished_) return Parked::kNo;
  if (held_back_ && !cancelled_) {
    parked_ = true;
    return Parked::kYes;
  }
  lock.unlock();
  handlers_->PushBack(shared_from_this());
  return Parked::kAgain;
}

void ServiceCall::DropInbox() {
  request_.reset();
  inbox_ = {};
  inbox_read_ = 0;
  taken_ = 0;
}

Status ServiceCall::Deliver(std::optional<std::span<const std::byte>> message, bool ends) {
  const HandlerSpec& called = spec();
  std::unique_lock lock(mutex_);
  if (gone()) return Status::Ok();
  if (message && half_closed_) return {Code::kInternal, "the client sent more messages than the method takes"};
  if (message && called.client_streaming) {
    inbox_.push_back(*message);
  } else if (message) {
    request_ = message;
  }
  if (!called.client_streaming && !half_closed_ && !message) {
    // The head alone begins nothing.
    if (ends) return {Code::kInternal, "the client sent no message to a method that takes one"};
    return Status::Ok();
  }
  half_closed_ = half_closed_ || ends || !called.client_streaming;
  const bool first = !std::exchange(told_, true);
  const bool becomes_whole = ends && !first && called.client_streaming && !called.on_loop;
  if (first && called.client_streaming && !called.on_loop) silent_since_ = handlers_->time().Now();
  const bool wanted = std::exchange(wants_message_, false);
  WakeWaiters();
  lock.unlock();
  if (called.on_loop) {
    if (first || wanted) handlers_->Notify(shared_from_this(), first ? Handlers::kOpened : Handlers::kReadable);
  } else if (first) {
    handlers_->Push(shared_from_this());
  } else if (becomes_whole) {
    handlers_->BecomeWhole(*this);
  }
  return Status::Ok();
}

void ServiceCall::Cancel() {
  std::unique_lock lock(mutex_);
  CancelWith(lock);
}

ServiceCall::Dismissed ServiceCall::Dismiss(TimePoint since) {
  std::unique_lock lock(mutex_);
  if (gone() || half_closed_ || (since != kNever && HasMessage())) return Dismissed::kNo;
  // As long as it rests and this lock is held, its thread is in Wait.
  if (!handlers_->Dismiss(*this, since)) return Dismissed::kNo;
  dismissed_ = true;
  if (since == kNever && !wants_message_) return Dismissed::kAtRead;
  CancelWith(lock);
  return Dismissed::kYes;
}

void ServiceCall::CancelWith(std::unique_lock<std::mutex>& lock) {
  std::vector<OutMessage> dropped;  // goes when the lock has gone
  cancelled_ = true;
  const bool watched = watched_;
  DropInbox();
  dropped.swap(outbox_);
  initial_.reset();
  end_ = {};
  const bool parked = std::exchange(parked_, false);
  WakeWaiters();
  const bool nobody_sees = !told_ || finished_;
  const bool begun = begun_;
  lock.unlock();
  if (nobody_sees) return;
  if (!begun) return handlers_->Withdraw(*this);
  if (spec().on_loop || watched) handlers_->Notify(shared_from_this(), Handlers::kCancelled);
  if (parked) handlers_->Push(shared_from_this());
}

void ServiceCall::WatchCancel() {
  const std::lock_guard lock(mutex_);
  watched_ = true;
}

bool ServiceCall::Credit() {
  bool parked = false;
  {
    const std::lock_guard lock(mutex_);
    if (ahead_ == 0) return false;
    --ahead_;
    bytes_ahead_ -= sizes_[sizes_gone_++];
    if (ahead_ == 0 || sizes_gone_ >= kMaxMessagesAhead) {
      sizes_.erase(sizes_.begin(), sizes_.begin() + static_cast<std::ptrdiff_t>(sizes_gone_));
      sizes_gone_ = 0;
    }
    if (!held_back_ || ahead_ > kMaxMessagesAhead / 2 || bytes_ahead_ > kMaxBytesAhead / 2) return false;
    held_back_ = false;
    parked = std::exchange(parked_, false);
    WakeWaiters();
    if (gone()) return true;
  }
  if (spec().on_loop) {
    handlers_->Notify(shared_from_this(), Handlers::kWritable);
  } else if (parked) {
    handlers_->Push(shared_from_this());
  }
  return true;
}

void ServiceCall::TakeOutgoing(Outgoing* out) {
  const std::lock_guard lock(mutex_);
  posted_ = false;
  if (initial_) out->initial = std::move(initial_);
  if (out->messages.empty()) {
    out->messages.swap(outbox_);
  } else {
    std::move(outbox_.begin(), outbox_.end(), std::back_inserter(out->messages));
    outbox_.clear();
  }
  if (end_.there) {
    out->end = std::move(end_);
    end_.there = false;
    end_.last.reset();
    if (out->end.last) out->messages.push_back(*std::move(out->end.last));
  }
  out->taken += std::exchange(taken_, size_t{0});
  // Once it is told, there is nothing more to tell before the next message.
  if (wants_message_ && std::exchange(unanswered_, false)) out->wants_after = all_taken_;
  out->dismissed = dismissal_due_;
  out->waits_for_credit = held_back_;
}

}  // namespace mindserve::worker
