#include "gateway/direct_call.h"

#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/utf8.h"
#include "gateway/admit.h"
#include "gateway/direct_thread.h"
#include "gateway/grpc_text.h"
#include "gateway/inflater.h"
#include "gateway/message_reader.h"
#include "gateway/request_head.h"
#include "gateway/request_id.h"

namespace mindserve::gateway {
namespace {

// Of a service that holds messages so many wait there, or as many as make so many bytes. The others lie where the
// caller has them.
constexpr size_t kMostWaiting = 128;
constexpr size_t kMostWaitingBytes = size_t{1} << 20;

const uint8_t* Bytes(std::string_view text) {
  return reinterpret_cast<const uint8_t*>(text.data());
}

}  // namespace

DirectCall::~DirectCall() {
  if (finished_) return;
  // It never came to its thread, which has ended.
  DirectEvent end = Event(DirectEvent::Kind::kEnd);
  end.status = ServerGone();
  events_->Put(std::move(end));
}

DirectEvent DirectCall::Event(DirectEvent::Kind kind) const {
  return {.call = number_, .kind = kind, .thread = thread_number_};
}

std::string_view DirectCall::metadata_value(std::string_view key) const {
  const auto found = std::ranges::find(request_.metadata, key, &Metadata::value_type::first);
  return found == request_.metadata.end() ? std::string_view() : std::string_view(found->second);
}

void DirectCall::Begin(DirectThread& thread) {
  thread_ = &thread;
  context_ = &thread.context();
  client_ = thread.ClientOf(request_.client);
  ++context_->stats.begun;
  counter_.Begin(context_->now);
  counter_.As(&context_->unserved);
  Service* const service = context_->FindService(request_.path);
  if (Status status = Check(service); !status.ok()) {
    if (service != nullptr) service->OnRefused(*this);
    return Finish(std::move(status));
  }
  service_ = service;
  counter_.As(&service_->counts());
  if (request_.deadline) {
    deadline_ = *request_.deadline;
  } else if (context_->limits.default_deadline.count() > 0) {
    deadline_ = context_->now + context_->limits.default_deadline;
  }
  if (deadline_ != kNever) context_->timers.Set(*this, deadline_);
  if (context_->tokens != nullptr && !service_->open_to_all()) {
    LetIn(*context_, *service_);
    if (finished_) return;
  } else {
    handler_ = service_->Start(*this);
  }
  Deliver();
}

void DirectCall::DropCredentials() {
  std::erase_if(request_.metadata,
                [](const auto& each) { return each.first == "authorization" || each.first == "oauth_token"; });
}

Status DirectCall::Check(const Service* service) {
  if (!thread_->serving()) return {Code::kUnavailable, "the server is not serving: it starts, or is shutting down"};
  MS_RETURN_IF_ERROR(CheckMetadata());
  if (service == nullptr) {
    return {Code::kUnimplemented, "no method '" + std::string(CutUtf8(request_.path, 256)) + "' is served"};
  }
  if (service->client_streaming() || request_.messages.size() == 1) return Status::Ok();
  if (request_.messages.empty()) {
    return {Code::kInternal, "the request ends without the message that the call takes"};
  }
  return {Code::kUnimplemented, "a second message came in a call that takes one"};
}

Status DirectCall::CheckMetadata() const {
  const auto invalid = [](std::string_view key, const char* what) {
    return Status(Code::kInvalidArgument, "metadata '" + std::string(CutUtf8(key, 128)) + "' " + what);
  };
  constexpr size_t kFieldCost = 32;  // as HTTP/2 counts a header list
  size_t size = 0;
  for (const auto& [key, value] : request_.metadata) {
    size += key.size() + value.size() + kFieldCost;
    if (!IsMetadataKey(key)) return invalid(key, "is a name that HTTP or gRPC has for itself");
    if (nghttp2_check_header_name(Bytes(key), key.size()) == 0) {
      return invalid(key, "is no name for metadata, expected lower-case letters, digits, '-', '_' and '.'");
    }
    if (!IsBinaryKey(key) && nghttp2_check_header_value(Bytes(value), value.size()) == 0) {
      return invalid(key, "has a value that is not printable ASCII");
    }
  }
  const size_t most = context_->limits.max_metadata_bytes;
  if (size <= most) return Status::Ok();
  context_->stats.Refuse(Refusal::kMaxMetadataBytes);
  return MetadataTooLarge(most);
}

void DirectCall::Deliver() {
  const size_t most = context_->limits.max_msg_mb_size << 20;
  for (; !finished_ && next_ < request_.messages.size(); ++next_) {
    if (service_->holds_messages() && (waiting_.size() >= kMostWaiting || waiting_bytes_ >= kMostWaitingBytes)) return;
    const HeldBytes given = std::move(request_.messages[next_]);
    const size_t size = given.bytes.size();
    if (size > most) {
      context_->stats.Refuse(Refusal::kMaxMsgMbSize);
      return Abort(TooLarge(most));
    }
    auto message = PlaceMessage(context_->memory, size, given.bytes, service_->aligned_at());
    if (!message.ok()) {
      context_->stats.Refuse(Refusal::kMaxEnqueuedBytes);
      return Abort(message.status(), TryLater());
    }
    if (size > 0) std::memcpy(message->bytes().data(), given.bytes.data(), size);
    counter_.AddIn(size);
    if (service_->holds_messages()) {
      waiting_.push_back(size);
      waiting_bytes_ += size;
    }
    handler_->OnMessage(*std::move(message));
  }
  if (!finished_ && !std::exchange(half_closed_, true)) handler_->OnHalfClose();
}

void DirectCall::MessageTaken() {
  if (finished_ || waiting_.empty()) return;
  waiting_bytes_ -= waiting_.front();
  waiting_.pop_front();
  if (!half_closed_) Deliver();
}

void DirectCall::SendInitial(const Metadata& initial, bool) {
  if (finished_ || std::exchange(responded_, true)) return;
  DirectEvent event = Event(DirectEvent::Kind::kInitial);
  event.metadata = initial;
  events_->Put(std::move(event));
}

void DirectCall::Send(Reply reply) {
  if (finished_) return;
  responded_ = true;
  for (const ReplyPart& part : reply) counter_.AddOut(part.bytes().size());
  DirectEvent event = Event(DirectEvent::Kind::kMessage);
  event.message = std::move(reply);
  events_->Put(std::move(event));
}

// Never compressed: it was not said that this would be understood.
void DirectCall::SendOne(ReplyPart message, bool) {
  Reply reply;
  reply.push_back(std::move(message));
  Send(std::move(reply));
}

void DirectCall::Finish(Status status, Metadata trailing) {
  if (finished_) return;
  finished_ = true;
  context_->timers.Cancel(*this);
  Leave();
  counter_.End(context_->stats, status.code(), context_->now);
  DirectEvent end = Event(DirectEvent::Kind::kEnd);
  end.status = std::move(status);
  end.metadata = std::move(trailing_);
  if (key_.known()) end.metadata.emplace_back(kRequestIdKey, RequestId{.made = key_}.text());
  for (auto& each : trailing) {
    // The text of an OK; that of an error is the status's.
    if (each.first != "grpc-message") end.metadata.push_back(std::move(each));
  }
  thread_->Finished(*this);
  events_->Put(std::move(end));
}

void DirectCall::Abort(Status status, Metadata trailing) {
  // One that has not begun came to a thread that takes no more.
  if (finished_ || thread_ == nullptr) return;
  Finish(std::move(status), std::move(trailing));
  if (handler_) handler_->OnCancel();
}

void DirectCall::OnTimer() {
  Abort({Code::kDeadlineExceeded, "the call's deadline has passed"});
}

void DirectCall::Close() {
  handler_.reset();
  client_.reset();
  request_ = {};
}

}  // namespace mindserve::gateway
