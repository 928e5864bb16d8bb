#include "gateway/grpc_stream.h"

#include <algorithm>
#include <utility>

#include "base/utf8.h"
#include "gateway/grpc_text.h"
#include "gateway/http2_connection.h"
#include "gateway/http2_session.h"

namespace mindserve::gateway {
namespace {

// Texts of the codes: a header's value that is never copied.
constexpr const char* kCodes[kCodeCount] = {"0", "1",  "2",  "3",  "4",  "5",  "6",  "7", "8",
                                            "9", "10", "11", "12", "13", "14", "15", "16"};

// Header fields of the end of a call. The encoded texts live in `texts` until the fields are submitted.
void AddTrailers(const Status& status, const Metadata& trailing, std::vector<std::string>* texts,
                 std::vector<nghttp2_nv>* fields) {
  texts->reserve(1 + trailing.size());
  fields->push_back(StaticField("grpc-status", kCodes[static_cast<size_t>(status.code())]));
  if (!status.message().empty()) {
    // What a peer takes at least, by HTTP/2's usual limit of 8 KiB for a header list.
    constexpr size_t kLongest = 2048;
    texts->push_back(PercentEncode(CutUtf8(status.message(), kLongest)));
    fields->push_back(Field("grpc-message", texts->back()));
  }
  if (status.code() == Code::kUnimplemented) {
    fields->push_back(StaticField("grpc-accept-encoding", "identity,gzip"));
  }
  for (const auto& [key, value] : trailing) {
    if (IsBinaryKey(key)) {
      texts->push_back(Base64Encode(value));
      fields->push_back(Field(std::string_view(key), texts->back()));
    } else {
      fields->push_back(Field(std::string_view(key), value));
    }
  }
}

}  // namespace

void GrpcStream::Open(Http2Connection& connection, int32_t id) {
  connection_ = &connection;
  id_ = id;
  head_.Clear();
  deadline_ = kNever;
  begun_ = last_data_ = context_.now;
  messages_ = 0;
  half_closed_ = responded_ = finished_ = deferred_ = false;
  SetCounts(nullptr);
  bytes_in_ = bytes_out_ = 0;
  status_ = Status::Ok();
  trailing_.clear();
}

void GrpcStream::Close() {
  context_.timers.Cancel(*this);
  if (!finished_) {
    finished_ = true;
    Count(Code::kCancelled);
    if (handler_) handler_->OnCancel();
  }
  handler_.reset();
  reader_.reset();
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

ClientTrust& GrpcStream::trust() {
  return connection_->trust();
}

void GrpcStream::OnHeadersEnd() {
  if (const int error = head_.http_error(); error != 0) return SubmitHttpError(error);
  ++context_.stats.begun;
  SetCounts(&context_.unserved);
  if (!head_.status().ok()) {
    if (head_.status().code() == Code::kResourceExhausted) context_.stats.Refuse(Refusal::kMaxMetadataBytes);
    return Finish(head_.status());
  }
  const auto found = context_.services.find(head_.path());
  if (found == context_.services.end()) {
    return Finish({Code::kUnimplemented, "no method '" + std::string(CutUtf8(head_.path(), 256)) + "' is served"});
  }
  if (head_.timeout()) {
    deadline_ = context_.now + *head_.timeout();
  } else if (context_.limits.default_deadline.count() > 0) {
    deadline_ = context_.now + context_.limits.default_deadline;
  }
  if (deadline_ != kNever) context_.timers.Set(*this, deadline_);
  service_ = found->second.get();
  SetCounts(&service_->counts());
  reader_.emplace(context_.memory, connection_->partial_bytes(), context_.limits.max_msg_mb_size << 20,
                  head_.encoding(), service_->aligned_at());
  handler_ = service_->Start(*this);
}

void GrpcStream::OnData(std::span<const std::byte> data) {
  last_data_ = context_.now;
  while (!finished_ && !data.empty()) {
    if (messages_ > 0 && !service_->client_streaming()) {
      return Abort({Code::kUnimplemented, "a second message came in a call that takes one"});
    }
    std::optional<Message> message;
    if (reader_->Feed(&data, &message)) {
      ++messages_;
      bytes_in_ += message->bytes().size();
      handler_->OnMessage(*std::move(message));
    } else if (const MessageReader::Error error = reader_->error(); !error.status.ok()) {
      Metadata trailing;
      if (error.limit) {
        context_.stats.Refuse(*error.limit);
        // What is too large stays so; what finds no room now may find it later.
        if (*error.limit == Refusal::kMaxEnqueuedBytes) trailing.emplace_back(kRetryPushbackKey, kRetryPushbackMs);
      }
      return Abort(error.status, std::move(trailing));
    }
  }
}

void GrpcStream::OnHalfClose() {
  half_closed_ = true;
  if (finished_) return;
  if (reader_->within()) return Abort({Code::kInternal, "broken gRPC framing: the request ends within a message"});
  if (messages_ == 0 && !service_->client_streaming()) {
    return Abort({Code::kInternal, "the request ends without the message that the call takes"});
  }
  handler_->OnHalfClose();
}

TimePoint GrpcStream::waiting_since() const {
  return finished_ || half_closed_ ? kNever : last_data_;
}

void GrpcStream::Send(Reply reply) {
  if (finished_) return;
  size_t size = 0;
  for (const ReplyPart& part : reply) size += part.bytes().size();
  const auto byte = [&](int shift) { return static_cast<char>(size >> shift & 0xff); };
  constexpr char kUncompressed = 0;
  const char prefix[] = {kUncompressed, byte(24), byte(16), byte(8), byte(0)};
  parts_.reserve(parts_.size() + reply.size() + 1);
  parts_.emplace_back(std::string(prefix, sizeof(prefix)));
  for (ReplyPart& part : reply) {
    if (!part.bytes().empty()) parts_.push_back(std::move(part));
  }
  bytes_out_ += size;
  pending_ += sizeof(prefix) + size;
  SubmitResponse();
}

void GrpcStream::Finish(Status status, Metadata trailing) {
  if (finished_) return;
  finished_ = true;
  context_.timers.Cancel(*this);
  reader_.reset();
  Count(status.code());
  status_ = std::move(status);
  trailing_ = std::move(trailing);
  if (responded_) {
    SubmitResponse();
  } else {
    SubmitTrailersOnly();
  }
}

void GrpcStream::Abort(Status status, Metadata trailing) {
  if (finished_) return;
  // What was not sent is not worth sending any more. A part that is half framed has to stay.
  Finish(std::move(status), std::move(trailing));
  if (handler_) handler_->OnCancel();
}

void GrpcStream::SetCounts(MethodCounts* counts) {
  if (counts_ != nullptr) --counts_->under_way;
  counts_ = counts;
  if (counts_ != nullptr) ++counts_->under_way;
}

void GrpcStream::Count(Code code) {
  MethodCounts* counts = counts_;
  if (counts == nullptr) return;
  SetCounts(nullptr);
  ++counts->ended[static_cast<size_t>(code)];
  if (code == Code::kOk) context_.stats.replies.Add();
  counts->bytes_in += bytes_in_;
  counts->bytes_out += bytes_out_;
  counts->latency_ns.AddTime(context_.now - begun_);
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
  std::vector<nghttp2_nv> fields = {StaticField(":status", "200"), StaticField("content-type", "application/grpc")};
  AddTrailers(status_, trailing_, &texts, &fields);
  nghttp2_submit_response(connection_->session(), id_, fields.data(), fields.size(), nullptr);
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
  if (status_.ok() && trailing_.empty()) {
    nghttp2_nv field = StaticField("grpc-status", "0");
    nghttp2_submit_trailer(connection_->session(), id_, &field, 1);
    return;
  }
  std::vector<std::string> texts;
  std::vector<nghttp2_nv> fields;
  AddTrailers(status_, trailing_, &texts, &fields);
  nghttp2_submit_trailer(connection_->session(), id_, fields.data(), fields.size());
}

void GrpcStream::Frame(size_t length, Output& output) {
  pending_ -= length;
  while (length > 0) {
    ReplyPart& part = parts_[part_];
    const std::span<const std::byte> rest = part.bytes().subspan(part_offset_);
    const std::span<const std::byte> piece = rest.first(std::min(length, rest.size()));
    length -= piece.size();
    // Short parts are copied even when a frame boundary cuts them: a moved short string's bytes move.
    const bool copied = part.bytes().size() < Output::kCopyBelow;
    copied ? output.Copy(piece) : output.Refer(piece);
    part_offset_ += piece.size();
    if (part_offset_ == part.bytes().size()) {
      if (!copied) output.Keep(std::move(part));
      ++part_;
      part_offset_ = 0;
    }
  }
  if (part_ == parts_.size()) {
    parts_.clear();
    part_ = 0;
  }
}

void GrpcStream::LeaveTo(Output& output) {
  if (part_offset_ > 0) output.Keep(std::move(parts_[part_]));
}

}  // namespace mindserve::gateway
