#include "gateway/grpc_stream.h"

#include <algorithm>
#include <utility>

#include "base/utf8.h"
#include "gateway/admit.h"
#include "gateway/grpc_text.h"
#include "gateway/http2_connection.h"
#include "gateway/http2_session.h"
#include "gateway/inner_call.h"
#include "gateway/request_id.h"

namespace mindserve::gateway {
namespace {

// Texts of the codes: a header's value that is never copied.
constexpr const char* kCodes[kCodeCount] = {"0", "1",  "2",  "3",  "4",  "5",  "6",  "7", "8",
                                            "9", "10", "11", "12", "13", "14", "15", "16"};

// Of what does not come again: a place in the header table would cost more than the field itself.
constexpr uint8_t kOnce = NGHTTP2_NV_FLAG_NO_INDEX;

// The request id that is made of the key. `text` lives until the field is submitted.
nghttp2_nv KeyField(const RequestKey& key, RequestKeyText* text) {
  *text = TextOf(key);
  nghttp2_nv field = Field(kRequestIdKey, std::string_view(text->data(), text->size()));
  field.flags |= kOnce;
  return field;
}

void AddMetadata(const Metadata& metadata, std::vector<std::string>* texts, std::vector<nghttp2_nv>* fields) {
  for (const auto& [key, value] : metadata) {
    if (IsBinaryKey(key)) {
      texts->push_back(Base64Encode(value));
      fields->push_back(Field(std::string_view(key), texts->back()));
    } else {
      fields->push_back(Field(std::string_view(key), value));
      if (key == kRequestIdKey) fields->back().flags |= kOnce;
    }
  }
}

// Header fields of the end of a call. The encoded texts live in `texts` and `id` until the fields are submitted.
void AddTrailers(const Status& status, const Metadata& trailing, const RequestKey& key, std::vector<std::string>* texts,
                 RequestKeyText* id, std::vector<nghttp2_nv>* fields) {
  texts->reserve(1 + trailing.size());
  fields->push_back(StaticField("grpc-status", kCodes[static_cast<size_t>(status.code())]));
  if (!status.message().empty()) {
    texts->push_back(PercentEncode(status.message(), kMostGrpcMessage));
    fields->push_back(Field("grpc-message", texts->back()));
  }
  if (status.code() == Code::kUnimplemented) {
    fields->push_back(StaticField("grpc-accept-encoding", kAcceptedEncodings));
  }
  AddMetadata(trailing, texts, fields);
  if (key.known()) fields->push_back(KeyField(key, id));
}

}  // namespace

void GrpcStream::Open(Http2Connection& connection, int32_t id) {
  connection_ = &connection;
  id_ = id;
  head_.Clear();
  deadline_ = kNever;
  inner_.depth = 0;
  inner_.callers.clear();
  coming_.Begin(context_.now, context_.limits);
  counter_.Begin(context_.now);
  messages_ = message_bytes_ = 0;
  message_since_ = context_.now;
  clients_turn_ = true;
  half_closed_ = ended_ = responded_ = finished_ = given_up_ = deferred_ = false;
  status_ = Status::Ok();
  trailing_.clear();
  key_ = {};
}

void GrpcStream::Close() {
  context_.timers.Cancel(*this);
  if (!finished_) {
    finished_ = true;
    counter_.End(context_.stats, Code::kCancelled, context_.now);
    if (handler_) handler_->OnCancel();
  }
  handler_.reset();
  Leave();
  child_ = {};
  head_bytes_ = {};
  reader_.reset();
  window_.reset();
  parts_.clear();
  part_ = part_offset_ = pending_ = 0;
  service_ = nullptr;
}

uint64_t GrpcStream::client() const {
  return connection_->number();
}
const net::Peer& GrpcStream::peer() const {
  return connection_->peer();
}

const net::AuthProperties& GrpcStream::auth() {
  return connection_->auth();
}

ClientTrust& GrpcStream::trust() {
  return connection_->trust();
}

void GrpcStream::OnHeadersEnd() {
  if (const int error = head_.http_error(); error != 0) return SubmitHttpError(error);
  ++context_.stats.begun;
  counter_.As(&context_.unserved);
  Service* const service = context_.FindService(head_.path());
  const auto refuse = [&](const Status& status) {
    if (service != nullptr) service->OnRefused(*this);
    Finish(status);
  };
  if (!head_.status().ok()) {
    if (head_.status().code() == Code::kResourceExhausted) context_.stats.Refuse(Refusal::kMaxMetadataBytes);
    return refuse(head_.status());
  }
  if (connection_->internal()) [[unlikely]] {
    if (const Status status = EnterInner(); !status.ok()) return refuse(status);
  }
  if (service == nullptr) {
    return Finish({Code::kUnimplemented, "no method '" + std::string(CutUtf8(head_.path(), 256)) + "' is served"});
  }
  constexpr size_t kLargeHead = 1024;
  if (head_.list_size() > kLargeHead && !service->open_to_all()) [[unlikely]] {
    head_bytes_ = BytesTicket(context_.memory.admission());
    if (!head_bytes_.GrowTo(head_.list_size())) {
      context_.stats.Refuse(Refusal::kMaxEnqueuedBytes);
      service->OnRefused(*this);
      return Finish(context_.memory.OverLimit(head_.list_size()), TryLater());
    }
  }
  if (head_.timeout()) {
    deadline_ = context_.now + *head_.timeout();
  } else if (context_.limits.default_deadline.count() > 0) {
    deadline_ = context_.now + context_.limits.default_deadline;
  }
  if (deadline_ != kNever) context_.timers.Set(*this, deadline_);
  service_ = service;
  counter_.As(&service_->counts());
  if (service_->holds_messages()) window_.emplace(context_.memory.admission());
  reader_.emplace(context_.memory, connection_->partial_bytes(), context_.limits.max_msg_mb_size << 20,
                  head_.encoding(), service_->aligned_at());
  if (context_.tokens != nullptr && !connection_->internal() && !service_->open_to_all()) [[unlikely]] {
    return LetIn(context_, *service_);
  }
  handler_ = service_->Start(*this);
}

void GrpcStream::DropCredentials() {
  head_.Drop("authorization");
  head_.Drop("oauth_token");
}

Status GrpcStream::EnterInner() {
  auto call = ReadInnerCall(head_.metadata());
  if (!call.ok()) return call.status();
  inner_ = *std::move(call);
  if (inner_.callers.empty()) return Status::Ok();
  auto place = context_.children.Enter(inner_.callers.front(),
                                       {.thread = context_.number, .connection = connection_->number(), .stream = id_});
  if (!place) return ParentGivenUp();
  child_ = *std::move(place);
  return Status::Ok();
}

void GrpcStream::OnData(std::span<const std::byte> data) {
  if (finished_) return;
  // Before a message the client may have rested.
  if (!reader_->within()) {
    coming_.Begin(context_.now, context_.limits);
    message_since_ = context_.now;
  }
  coming_.Took(data.size(), context_.now, context_.limits);
  window_ ? OnWithheldData(data) : Decode(&data);
}

void GrpcStream::Decode(std::span<const std::byte>* data) {
  while (!finished_ && !data->empty()) {
    if (messages_ > 0 && !service_->client_streaming()) {
      return Abort({Code::kUnimplemented, "a second message came in a call that takes one"});
    }
    if (window_ && window_->full()) return;
    const size_t before = data->size();
    std::optional<Message> message;
    const bool complete = reader_->Feed(data, &message);
    message_bytes_ += before - data->size();
    if (complete) {
      ++messages_;
      message_since_ = context_.now;
      clients_turn_ = false;
      const size_t size = message->bytes().size();
      counter_.AddIn(size);
      if (const size_t most = service_->most_message_bytes(); size > most) [[unlikely]] {
        return Abort({Code::kInvalidArgument,
                      "the message has " + std::to_string(size) + " bytes, expected at most " + std::to_string(most)});
      }
      if (window_) window_->Hold(std::exchange(message_bytes_, 0));
      handler_->OnMessage(*std::move(message));
    } else if (!reader_->error().status.ok()) {
      return AbortReading(reader_->error());
    }
  }
}

void GrpcStream::AbortReading(const MessageReader::Error& error) {
  Metadata trailing;
  if (error.limit) {
    context_.stats.Refuse(*error.limit);
    // What is too large stays so; what finds no room now may find it later.
    if (*error.limit == Refusal::kMaxEnqueuedBytes) trailing.emplace_back(kRetryPushbackKey, kRetryPushbackMs);
  }
  const Status status = error.status;  // the reader goes
  Abort(status, std::move(trailing));
}

void GrpcStream::OnWithheldData(std::span<const std::byte> data) {
  window_->Received(data.size());
  if (window_->kept().empty()) Decode(&data);
  if (finished_) return;
  if (!data.empty() && !window_->Keep(data)) {
    return AbortReading({context_.memory.OverLimit(window_->kept().size() + data.size()), Refusal::kMaxEnqueuedBytes});
  }
  GiveWindow();
}

void GrpcStream::MessageTaken() {
  if (finished_ || !window_ || !window_->Take()) return;
  coming_.Begin(context_.now, context_.limits);  // from now on the client may go on
  message_since_ = context_.now;
  connection_->Touch();  // also where no window is given: it is looked at again
  if (!window_->kept().empty()) {
    std::span<const std::byte> rest = window_->kept();
    const size_t before = rest.size();
    Decode(&rest);
    if (finished_) return;
    window_->Drop(before - rest.size(), context_.memory.admission());
  }
  GiveWindow();
  if (half_closed_ && window_->kept().empty() && !std::exchange(ended_, true)) EndMessages();
}

void GrpcStream::MessageWanted(uint32_t taken) {
  if (finished_ || clients_turn_ || reader_->within() || static_cast<uint32_t>(messages_) != taken) return;
  clients_turn_ = true;
  coming_.Begin(context_.now, context_.limits);
  connection_->Touch();
}

void GrpcStream::AnswerWaits() {
  if (finished_ || pending_ > 0) return;
  nghttp2_session* session = connection_->session();
  const int32_t room = std::min(nghttp2_session_get_stream_remote_window_size(session, id_),
                                nghttp2_session_get_remote_window_size(session));
  if (room > 0) connection_->AnswerWaits();  // else it is the client that does not go on
}

void GrpcStream::GiveWindow() {
  const size_t more = window_->Grant();
  if (more == 0 || half_closed_) return;
  nghttp2_session_consume_stream(connection_->session(), id_, more);
  connection_->Touch();
}

void GrpcStream::OnHalfClose() {
  half_closed_ = true;
  if (finished_ || (window_ && !window_->kept().empty())) return;
  EndMessages();
}

void GrpcStream::EndMessages() {
  ended_ = true;
  if (reader_->within()) return Abort({Code::kInternal, "broken gRPC framing: the request ends within a message"});
  if (messages_ == 0 && !service_->client_streaming()) {
    return Abort({Code::kInternal, "the request ends without the message that the call takes"});
  }
  handler_->OnHalfClose();
}

TimePoint GrpcStream::request_due() const {
  if (finished_ || half_closed_) return kNever;
  // Between the messages of a stream the client may take its time; within one it may wait for us.
  if (service_ != nullptr && service_->client_streaming() && (!reader_->within() || (window_ && window_->holds() > 0)))
    return kNever;
  return coming_.due();
}

TimePoint GrpcStream::reader_rests_since() const {
  if (finished_ || service_ == nullptr || !service_->counts_as_request()) return kNever;
  return service_->server_streaming() && pending_ > 0 ? going_.last() : kNever;
}

TimePoint GrpcStream::client_rests_since() const {
  if (finished_ || half_closed_ || service_ == nullptr || !service_->counts_as_request()) return kNever;
  if (!service_->client_streaming() || reader_->within() || (window_ && window_->holds() > 0)) return kNever;
  if (pending_ > 0) return kNever;  // reader_rests_since
  // It may wait for its answer. If that comes after its last message only, there is nothing to wait for before.
  if (service_->server_streaming() && !clients_turn_) return kNever;
  return std::max(coming_.last(), going_.last());
}

TimePoint GrpcStream::message_since() const {
  // It may wait for us.
  if (finished_ || !reader_ || !reader_->within() || (window_ && window_->holds() > 0)) return kNever;
  return message_since_;
}

TimePoint GrpcStream::answers_since() const {
  if (service_ == nullptr) return kNever;
  return pending_ > 0 && !given_up_ && service_->answers_are_enqueued() ? pending_since_ : kNever;
}

void GrpcStream::AddPrefix(size_t size, bool compressed) {
  const auto byte = [&](int shift) { return static_cast<char>(size >> shift & 0xff); };
  const char prefix[] = {static_cast<char>(compressed), byte(24), byte(16), byte(8), byte(0)};
  parts_.emplace_back(std::string(prefix, sizeof(prefix)));
  counter_.AddOut(size);
  clients_turn_ = true;
  if (pending_ == 0) {
    going_.Begin(context_.now, context_.limits);
    pending_since_ = front_since_ = context_.now;
  }
  pending_ += sizeof(prefix) + size;
}

void GrpcStream::Send(Reply reply) {
  if (finished_) return;
  size_t size = 0;
  for (const ReplyPart& part : reply) size += part.bytes().size();
  parts_.reserve(parts_.size() + reply.size() + 1);
  AddPrefix(size, /*compressed=*/false);
  for (ReplyPart& part : reply) {
    if (!part.bytes().empty()) parts_.push_back(std::move(part));
  }
  SubmitResponse();
}

void GrpcStream::SendOne(ReplyPart message, bool compressed) {
  if (finished_) return;
  AddPrefix(message.bytes().size(), compressed);
  // Also an empty one: whoever lent it is told when the prefix has gone.
  parts_.push_back(std::move(message));
  SubmitResponse();
}

void GrpcStream::SendInitial(const Metadata& initial, bool gzip) {
  if (finished_ || responded_) return;
  SubmitHeaders(initial, gzip);
}

void GrpcStream::Finish(Status status, Metadata trailing) {
  if (finished_) return;
  finished_ = true;
  context_.timers.Cancel(*this);
  child_ = {};
  Leave();
  reader_.reset();
  counter_.End(context_.stats, status.code(), context_.now);
  status_ = std::move(status);
  for (auto& each : trailing) trailing_.push_back(std::move(each));
  if (responded_) {
    SubmitResponse();
  } else {
    SubmitTrailersOnly();
  }
}

void GrpcStream::Abort(Status status, Metadata trailing) {
  if (finished_) return;
  if (trailing_.empty() && !key_.known() && service_ != nullptr) service_->OnRefused(*this);
  // What was not sent is not worth sending any more. A part that is half framed has to stay.
  Finish(std::move(status), std::move(trailing));
  if (handler_) handler_->OnCancel();
}

void GrpcStream::GiveUpReply() {
  Abort({Code::kCancelled, "the client does not take the reply"});
  given_up_ = true;
  nghttp2_submit_rst_stream(connection_->session(), NGHTTP2_FLAG_NONE, id_, NGHTTP2_CANCEL);
  connection_->Touch();
}

void GrpcStream::OnTimer() {
  Abort({Code::kDeadlineExceeded, "the call's deadline has passed"});
}

void GrpcStream::SubmitHttpError(int status) {
  finished_ = responded_ = true;
  connection_->Touch();
  const std::string text = std::to_string(status);
  nghttp2_nv fields[] = {Field(":status", text), StaticField("allow", "POST")};
  nghttp2_submit_response(connection_->session(), id_, fields, status == 405 ? 2 : 1, nullptr);
}

void GrpcStream::SubmitTrailersOnly() {
  responded_ = true;
  connection_->Touch();
  std::vector<std::string> texts;
  RequestKeyText id;
  std::vector<nghttp2_nv> fields = {StaticField(":status", "200"), StaticField("content-type", "application/grpc")};
  AddTrailers(status_, trailing_, key_, &texts, &id, &fields);
  connection_->CountHead(fields);
  nghttp2_submit_response(connection_->session(), id_, fields.data(), fields.size(), nullptr);
}

void GrpcStream::SubmitHeaders(const Metadata& initial, bool gzip) {
  responded_ = true;
  connection_->Touch();
  std::vector<std::string> texts;
  texts.reserve(initial.size());
  std::vector<nghttp2_nv> fields = {StaticField(":status", "200"), StaticField("content-type", "application/grpc")};
  if (gzip) fields.push_back(StaticField("grpc-encoding", "gzip"));
  AddMetadata(initial, &texts, &fields);
  connection_->SubmitResponse(*this, fields);
}

void GrpcStream::SubmitResponse() {
  connection_->Touch();
  if (!responded_) {
    responded_ = true;
    nghttp2_nv fields[] = {StaticField(":status", "200"), StaticField("content-type", "application/grpc")};
    connection_->SubmitResponse(*this, fields);
  } else if (std::exchange(deferred_, false)) {
    nghttp2_session_resume_data(connection_->session(), id_);
  }
}

void GrpcStream::SubmitTrailers() {
  std::vector<std::string> texts;
  RequestKeyText id;
  std::vector<nghttp2_nv> fields;
  AddTrailers(status_, trailing_, key_, &texts, &id, &fields);
  connection_->CountHead(fields);
  nghttp2_submit_trailer(connection_->session(), id_, fields.data(), fields.size());
}

void GrpcStream::Frame(size_t length, Output& output) {
  pending_ -= length;
  going_.Took(length, context_.now, context_.limits);
  // To the end of all parts that are framed, empty ones too: whoever lent them waits for them.
  while (part_ < parts_.size()) {
    ReplyPart& part = parts_[part_];
    const std::span<const std::byte> bytes = part.bytes();
    const std::span<const std::byte> rest = bytes.subspan(part_offset_);
    if (length == 0 && !rest.empty()) break;
    const std::span<const std::byte> piece = rest.first(std::min(length, rest.size()));
    length -= piece.size();
    // Short parts are copied even when a frame boundary cuts them: a moved short string's bytes move.
    const bool copied = bytes.size() < Output::kCopyBelow;
    copied ? output.Copy(piece) : output.Refer(piece);
    part_offset_ += piece.size();
    if (part_offset_ < bytes.size()) break;
    copied ? part.GiveBack() : output.Keep(std::move(part));
    ++part_;
    part_offset_ = 0;
    front_since_ = context_.now;
  }
  constexpr size_t kWaste = 1024;
  if (part_ == parts_.size()) {
    parts_.clear();
    part_ = 0;
  } else if (part_ >= kWaste && part_ * 2 >= parts_.size()) {
    parts_.erase(parts_.begin(), parts_.begin() + static_cast<ptrdiff_t>(part_));
    part_ = 0;
  }
}

void GrpcStream::LeaveTo(Output& output) {
  if (part_offset_ > 0) output.Keep(std::move(parts_[part_]));
}

}  // namespace mindserve::gateway
