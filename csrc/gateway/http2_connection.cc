#include "gateway/http2_connection.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <span>
#include <string_view>
#include <utility>

#include "gateway/plain_trailers.h"

namespace mindserve::gateway {
namespace {

// What is framed ahead of the socket at most; the rest waits where it is.
constexpr size_t kMaxBuffered = 512 * 1024;
// Of a reply in one DATA frame at most: nghttp2 keeps a buffer of that size.
constexpr size_t kMaxDataFrame = 64 * 1024;
// How long a client has, after all was said, to take it from the socket and to close. While the server's kernel still
// has bytes for it, a close with something unread, as a WINDOW_UPDATE, would throw them away.
constexpr auto kLinger = std::chrono::seconds(5);
// Reads before another connection has its turn.
constexpr int kReadsPerRound = 4;
// A client whose frames call for more answers than these, and that takes none, is not read from until it does.
constexpr size_t kMaxQueuedFrames = 4096;
// What the ping carries that waits for the client to know of a drain; its answer repeats it.
constexpr std::array<uint8_t, 8> kDrainPing = {'d', 'r', 'a', 'i', 'n'};
constexpr int32_t kEveryStream = std::numeric_limits<int32_t>::max();  // in the GOAWAY that only announces another one

std::span<const std::byte> Bytes(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const std::byte*>(data), size};
}

}  // namespace

// nghttp2's callbacks; `user` is the connection.
struct Http2Connection::Callbacks {
  static Http2Connection& Self(void* user) { return *static_cast<Http2Connection*>(user); }
  static GrpcStream* Stream(nghttp2_session* session, int32_t id) {
    return static_cast<GrpcStream*>(nghttp2_session_get_stream_user_data(session, id));
  }
  static bool IsRequest(const nghttp2_frame* frame) {
    return frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST;
  }

  // Only what is one of few, or pays for itself, is free: a frame costs about the same whatever it is.
  static int OnBeginFrame(nghttp2_session* session, const nghttp2_frame_hd* head, void* user) {
    Http2Connection& self = Self(user);
    // Nothing else may come within a block of header fields. One whose stream is over by now ends without a word.
    if (head->type != NGHTTP2_CONTINUATION) self.header_since_ = kNever;
    switch (head->type) {
      case NGHTTP2_HEADERS:
        // nghttp2 passes over those of calls that are over, without a word.
        if (Stream(session, head->stream_id) != nullptr) return 0;
        if (head->stream_id > nghttp2_session_get_last_proc_stream_id(session)) return 0;
        break;
      case NGHTTP2_CONTINUATION:
        // CountHeader and Feed count what the block has; those of one that means nothing here are not told.
        ++self.begun_cheap_;
        return 0;
      case NGHTTP2_DATA:
        if (FrameHeads::IsCheap(*head)) ++self.begun_cheap_;
        if (head->length > 0 || (head->flags & NGHTTP2_FLAG_END_STREAM) != 0) return 0;
        break;
      case NGHTTP2_RST_STREAM:
        if (Stream(session, head->stream_id) != nullptr) return 0;  // CountReset
        break;
      case NGHTTP2_PING:
      case NGHTTP2_WINDOW_UPDATE:
        if (self.earned_ > 0) {
          --self.earned_;
          return 0;
        }
        break;
      default:
        break;
    }
    return self.CountControlFrame();
  }

  static int OnExtension(nghttp2_session*, void**, const nghttp2_frame_hd*, void* user) {
    if (Self(user).CountControlFrame() != 0) return NGHTTP2_ERR_CALLBACK_FAILURE;
    return NGHTTP2_ERR_CANCEL;  // it means nothing here
  }

  static int OnBeginHeaders(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
    Http2Connection& self = Self(user);
    self.BeginHeader();
    if (!IsRequest(frame)) return 0;
    ++self.earned_ends_;
    self.heading_ = &self.NewStream(frame->hd.stream_id);
    nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, self.heading_);
    return 0;
  }

  static int OnHeader(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                      const uint8_t* value, size_t value_size, uint8_t, void* user) {
    Http2Connection& self = Self(user);
    if (const int error = self.CountHeader(name_size + value_size); error != 0) return error;
    if (!IsRequest(frame)) return 0;  // trailers mean nothing in a request
    if (self.heading_ != nullptr && self.heading_->id() == frame->hd.stream_id) {
      self.heading_->OnHeader({reinterpret_cast<const char*>(name), name_size},
                              {reinterpret_cast<const char*>(value), value_size});
    }
    return 0;
  }

  static int OnFrame(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
    Http2Connection& self = Self(user);
    switch (frame->hd.type) {
      case NGHTTP2_SETTINGS: {
        const std::span entries(frame->settings.iv, frame->settings.niv);
        self.table_changes_ |= self.established_ && std::ranges::any_of(entries, [](const auto& entry) {
                                 return entry.settings_id == NGHTTP2_SETTINGS_HEADER_TABLE_SIZE;
                               });
        self.established_ = true;
        return 0;
      }
      case NGHTTP2_PING:
        // The client has seen the first GOAWAY: what it sends from now on it need not have sent.
        if (self.draining_ && (frame->hd.flags & NGHTTP2_FLAG_ACK) != 0 &&
            std::ranges::equal(frame->ping.opaque_data, kDrainPing)) {
          nghttp2_submit_goaway(session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session),
                                NGHTTP2_NO_ERROR, nullptr, 0);
          self.closing_ = true;
        }
        return 0;
      case NGHTTP2_RST_STREAM:
        // To OnStreamClose it ends like one that is answered.
        if (frame->rst_stream.error_code == NGHTTP2_NO_ERROR && Stream(session, frame->hd.stream_id) != nullptr) {
          self.CountReset();
        }
        return 0;
      case NGHTTP2_HEADERS:
      case NGHTTP2_DATA: {
        GrpcStream* stream = Stream(session, frame->hd.stream_id);
        if (frame->hd.type == NGHTTP2_HEADERS) self.header_since_ = kNever;
        if (stream == nullptr) return 0;
        if (IsRequest(frame)) stream->OnHeadersEnd();
        const bool padding_only =
            frame->hd.type == NGHTTP2_DATA && frame->data.padlen > 0 && frame->hd.length == frame->data.padlen;
        if (padding_only && self.CountControlFrame() != 0) return NGHTTP2_ERR_CALLBACK_FAILURE;
        if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) stream->OnHalfClose();
        return 0;
      }
      default:
        return 0;
    }
  }

  static int OnData(nghttp2_session* session, uint8_t flags, int32_t id, const uint8_t* data, size_t size, void* user) {
    GrpcStream* stream = Stream(session, id);
    // The connection's window is given back whatever becomes of the stream: one that is slow must not stop others.
    constexpr size_t kWorthIt = kConnectionWindow / 64;
    size_t& consumed = Self(user).consumed_;
    if ((consumed += size) >= kWorthIt) nghttp2_session_consume_connection(session, std::exchange(consumed, 0));
    const bool withheld = stream != nullptr && stream->withholds();
    if (!withheld && (flags & NGHTTP2_FLAG_END_STREAM) == 0) nghttp2_session_consume_stream(session, id, size);
    if (stream != nullptr) stream->OnData(Bytes(data, size));
    return 0;
  }

  static int OnFrameSent(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
    if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.last_stream_id == kEveryStream) {
      // Only now: nghttp2 would send it ahead of the GOAWAY.
      nghttp2_submit_ping(session, NGHTTP2_FLAG_NONE, kDrainPing.data());
    }
    if (frame->hd.type == NGHTTP2_RST_STREAM && frame->rst_stream.error_code == NGHTTP2_REFUSED_STREAM) {
      Self(user).context_.stats.Refuse(Refusal::kMaxConcurrentStreams);
      Self(user).CountReset();  // of a call that never was, so that OnStreamClose knows of none
    }
    if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR) {
      Self(user).Say(
          std::string("HTTP/2 error ") + nghttp2_http2_strerror(frame->goaway.error_code) +
          (frame->goaway.opaque_data_len == 0 ? "" : ": ") +
          std::string(reinterpret_cast<const char*>(frame->goaway.opaque_data), frame->goaway.opaque_data_len));
    }
    const bool ends = (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) &&
                      (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    if (!ends) return 0;
    const GrpcStream* stream = Stream(session, frame->hd.stream_id);
    // The call is over; a client that still sends is to stop.
    if (stream != nullptr && !stream->half_closed()) {
      nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_NO_ERROR);
    }
    return 0;
  }

  static int OnStreamClose(nghttp2_session* session, int32_t id, uint32_t error, void* user) {
    GrpcStream* stream = Stream(session, id);
    if (stream == nullptr) return 0;
    nghttp2_session_set_stream_user_data(session, id, nullptr);
    // Resets count whoever sends them: a client can make the server reset streams too.
    if (error != NGHTTP2_NO_ERROR) Self(user).CountReset();
    Self(user).CloseStream(*stream);
    return 0;
  }

  // Reading a response: how much goes into the next DATA frame. The bytes themselves go out in SendData.
  static ssize_t Read(nghttp2_session*, int32_t, uint8_t*, size_t max, uint32_t* flags, nghttp2_data_source* source,
                      void* user) {
    auto& stream = *static_cast<GrpcStream*>(source->ptr);
    const size_t size = stream.Next(max);
    if (stream.output_ends(size)) {
      *flags |= NGHTTP2_DATA_FLAG_EOF;
      // Otherwise SendData puts them out; to nghttp2 the stream then ends with its data.
      if (!stream.ends_plainly() || Self(user).table_changes_) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        stream.SubmitTrailers();
      }
    } else if (size == 0) {
      stream.set_deferred();
      return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    return static_cast<ssize_t>(size);
  }

  static int SendData(nghttp2_session*, nghttp2_frame*, const uint8_t* head, size_t size, nghttp2_data_source* source,
                      void* user) {
    constexpr size_t kFrameHead = 9;
    constexpr size_t kFlags = 4;
    // A WINDOW_UPDATE for each window, and a PING by which clients measure how large these should be.
    constexpr uint64_t kEarned = 3;
    Self(user).earned_ += kEarned;
    Output& output = Self(user).output_;
    auto& stream = *static_cast<GrpcStream*>(source->ptr);
    std::array<uint8_t, kFrameHead> copy;
    std::copy_n(head, kFrameHead, copy.begin());  // never padded: there is no padding callback
    const bool ends = (copy[kFlags] & kEndStream) != 0;
    copy[kFlags] &= static_cast<uint8_t>(~kEndStream);
    output.Copy(Bytes(copy.data(), copy.size()));
    stream.Frame(size, output);
    Self(user).head_bytes_ = 0;  // header fields go before any DATA
    if (ends) PutPlainTrailers(stream.id(), stream.key(), output);
    // By itself nghttp2 puts out all that the windows allow, one such frame after the other.
    return output.size() < kMaxBuffered ? 0 : NGHTTP2_ERR_PAUSE;
  }

  static ssize_t DataFrameSize(nghttp2_session*, uint8_t, int32_t, int32_t connection_window, int32_t stream_window,
                               uint32_t max_frame, void*) {
    return static_cast<ssize_t>(
        std::min({static_cast<size_t>(std::max(connection_window, 0)), static_cast<size_t>(std::max(stream_window, 0)),
                  static_cast<size_t>(max_frame), kMaxDataFrame}));
  }
};

void Http2Connection::SetCallbacks(nghttp2_session_callbacks* callbacks) {
  nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, Callbacks::OnBeginFrame);
  nghttp2_session_callbacks_set_unpack_extension_callback(callbacks, Callbacks::OnExtension);
  nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, Callbacks::OnBeginHeaders);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, Callbacks::OnHeader);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, Callbacks::OnFrame);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, Callbacks::OnData);
  nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, Callbacks::OnFrameSent);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, Callbacks::OnStreamClose);
  nghttp2_session_callbacks_set_send_data_callback(callbacks, Callbacks::SendData);
  nghttp2_session_callbacks_set_data_source_read_length_callback(callbacks, Callbacks::DataFrameSize);
}

Http2Connection::Http2Connection(ThreadContext& context, std::unique_ptr<net::Transport> transport, bool internal)
    : context_(context),
      transport_(std::move(transport)),
      number_(context.next_client++),
      internal_(internal),
      settings_(context.http2),
      resets_(context.limits.max_resets_per_second, context.now),
      control_frames_(context.limits.max_control_frames_per_second, context.now),
      accepted_(context.now),
      last_active_(context.now),
      last_read_(context.now),
      last_written_(context.now) {
  nghttp2_session* session = nullptr;
  nghttp2_session_server_new2(&session, settings_->callbacks.get(), this, settings_->option.get());
  session_.reset(session);
}

Http2Connection::~Http2Connection() {
  Close();
  context_.timers.Cancel(*this);
  if (dirty_) std::erase(context_.dirty, this);
}

void Http2Connection::Start() {
  Arm();
  transport_->Start([this](const Status& status) { OnStarted(status); });
}

void Http2Connection::Abort(int32_t stream, const Status& status) {
  if (closed_) return;
  if (GrpcStream* call = Callbacks::Stream(session_.get(), stream)) call->Abort(status);
}

void Http2Connection::OnStarted(const Status& status) {
  if (closed_) return;
  if (!status.ok()) return Fail(status.message());
  started_ = true;
  // All calls of a worker's handlers may share one connection. They must not wait for each other: handlers that wait
  // for calls that wait for them would never end.
  constexpr uint32_t kAnyNumber = std::numeric_limits<int32_t>::max();
  SubmitSettings(session_.get(), context_.limits, internal_ ? kAnyNumber : context_.limits.max_concurrent_streams);
  if (draining_) SayGoodbye();
  Touch();
  AwaitRead();
}

void Http2Connection::AwaitRead() {
  transport_->AwaitReadable([this] { OnReadable(); });
}

void Http2Connection::OnReadable() {
  if (closed_) return;
  // What the kernel has for a plain socket comes in one read that is not full; TLS comes in records.
  const bool records = peer().tls;
  for (int i = 0; i < kReadsPerRound; ++i) {
    const net::IoResult result = transport_->Read(context_.read_buffer);
    if (result.kind == net::IoResult::Kind::kAgain) break;
    if (result.refused) return Fail(result.error);
    if (result.kind != net::IoResult::Kind::kDone) return Close();
    if (lingers_ != kNever) continue;
    if (!Feed(std::span<const std::byte>(context_.read_buffer).first(result.bytes))) return;
    if ((!records && result.bytes < context_.read_buffer.size()) || IsFull()) break;
  }
  Touch();
  Arm();
  // A client that makes us answer and doesn't read the answers waits until it does.
  read_paused_ = IsFull();
  if (!read_paused_) AwaitRead();
}

bool Http2Connection::IsFull() const {
  return write_blocked_ &&
         (head_bytes_ > kMaxBuffered || nghttp2_session_get_outbound_queue_size(session_.get()) > kMaxQueuedFrames);
}

void Http2Connection::CountHead(std::span<const nghttp2_nv> fields) {
  constexpr size_t kFieldCost = 32;
  for (const nghttp2_nv& field : fields) head_bytes_ += field.namelen + field.valuelen + kFieldCost;
}

bool Http2Connection::Feed(std::span<const std::byte> bytes) {
  last_active_ = last_read_ = context_.now;
  pinged_ = kNever;
  ssize_t n = nghttp2_session_mem_recv(session_.get(), reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  if (n >= 0 && CountIgnored(bytes) != 0) n = NGHTTP2_ERR_CALLBACK_FAILURE;
  if (n == NGHTTP2_ERR_BAD_CLIENT_MAGIC) {
    constexpr std::byte kTlsHandshake{0x16};
    Fail(bytes.front() == kTlsHandshake ? "a TLS client on a port without TLS"
                                        : "no HTTP/2 client: its preface is wrong");
    return false;
  }
  if (n < 0) {
    // What nghttp2 itself takes for an attack is fatal, too.
    const bool own = n == NGHTTP2_ERR_NOMEM || (n == NGHTTP2_ERR_CALLBACK_FAILURE && excess_.empty());
    const std::string why =
        excess_.empty() ? std::string("HTTP/2 error: ") + nghttp2_strerror(static_cast<int>(n)) : excess_;
    own ? Fail(why) : Calm(why);
    return false;
  }
  // Header blocks that never end, whatever frames they are cut into.
  const size_t most = 4 * context_.limits.max_metadata_bytes + context_.read_buffer.size();
  if (header_since_ != kNever) {
    header_bytes_ += bytes.size();
    if (header_bytes_ > most) {
      Excess("a block of header fields that does not end, of several times max_metadata_bytes " +
                 std::to_string(context_.limits.max_metadata_bytes),
             Refusal::kMaxMetadataBytes);
      Calm(excess_);
      return false;
    }
  }
  return true;
}

void Http2Connection::Touch() {
  if (dirty_ || closed_) return;
  dirty_ = true;
  context_.dirty.push_back(this);
}

void Http2Connection::Pull() {
  while (output_.size() < kMaxBuffered) {
    const uint8_t* data = nullptr;
    const ssize_t n = nghttp2_session_mem_send(session_.get(), &data);
    if (n < 0) return Fail(std::string("HTTP/2 error: ") + nghttp2_strerror(static_cast<int>(n)));
    if (n == 0) break;
    output_.Copy(Bytes(data, static_cast<size_t>(n)));
  }
  if (output_.size() < kMaxBuffered) head_bytes_ = 0;
}

void Http2Connection::Flush() {
  dirty_ = false;
  if (closed_ || !started_ || write_blocked_ || lingers_ != kNever) return;
  for (;;) {
    const bool begins = output_.empty();
    Pull();
    if (closed_) return;
    if (output_.empty()) break;
    if (begins) sending_.Begin(context_.now, context_.limits);
    const net::IoResult result = transport_->Write(output_.Front());
    if (result.kind == net::IoResult::Kind::kAgain) {
      write_blocked_ = true;
      blocked_since_ = context_.now;
      transport_->AwaitWritable([this] {
        write_blocked_ = false;
        for (const auto& stream : streams_) stream->PauseReply(context_.now - blocked_since_);
        Touch();
        if (std::exchange(read_paused_, false)) AwaitRead();
      });
      return Arm();
    }
    if (result.refused) return Fail(result.error);
    if (result.kind != net::IoResult::Kind::kDone) return Close();
    last_written_ = context_.now;
    sending_.Took(result.bytes, context_.now, context_.limits);
    output_.Consume(result.bytes);
  }
  last_written_ = context_.now;
  const bool over = nghttp2_session_want_read(session_.get()) == 0 && nghttp2_session_want_write(session_.get()) == 0;
  if (over || (closing_ && streams_.empty())) return Linger();
  Arm();
}

// All is said. Waits until the client has closed too.
void Http2Connection::Linger() {
  transport_->Shutdown();
  EndStreams();  // nghttp2 may have ended it over some that are only its own by now
  lingers_ = context_.now + kLinger;
  if (std::exchange(read_paused_, false)) AwaitRead();
  context_.timers.Set(*this, lingers_);
}

void Http2Connection::Say(const std::string& why) {
  if (std::exchange(said_, true)) return;
  context_.log.Warn(context_.now, "connection of " + peer().address + " closed: " + why);
}

void Http2Connection::Calm(const std::string& why) {
  if (closed_) return;
  Say(why);
  EndStreams();
  if (write_blocked_) return Close();  // it doesn't listen
  nghttp2_session_terminate_session(session_.get(), NGHTTP2_ENHANCE_YOUR_CALM);
  read_paused_ = true;  // until the socket has taken that, or all is said
  Touch();
}

void Http2Connection::Fail(const std::string& why) {
  if (closed_) return;
  Say(why);
  // nghttp2 may have a GOAWAY that says the same to the client.
  if (started_ && !write_blocked_) {
    const uint8_t* data = nullptr;
    for (ssize_t n; output_.size() < kMaxBuffered && (n = nghttp2_session_mem_send(session_.get(), &data)) > 0;) {
      output_.Copy(Bytes(data, static_cast<size_t>(n)));
    }
    if (!output_.empty()) (void)transport_->Write(output_.Front());
  }
  transport_->Shutdown();
  Close();
}

void Http2Connection::Close() {
  if (closed_) return;
  Touch();
  closed_ = true;
  EndStreams();
}

// Each is closed once, whether or not nghttp2 still knows it.
void Http2Connection::EndStreams() {
  for (const auto& stream : streams_) {
    nghttp2_session_set_stream_user_data(session_.get(), stream->id(), nullptr);
    stream->Close();
  }
  streams_.clear();
  heading_ = nullptr;
}

GrpcStream& Http2Connection::NewStream(int32_t id) {
  auto& spare = context_.spare_streams;
  std::unique_ptr<GrpcStream> stream;
  if (spare.empty()) {
    stream = std::make_unique<GrpcStream>(context_);
  } else {
    stream = std::move(spare.back());
    spare.pop_back();
  }
  stream->Open(*this, id);
  stream->index = streams_.size();
  streams_.push_back(std::move(stream));
  return *streams_.back();
}

void Http2Connection::CloseStream(GrpcStream& stream) {
  if (heading_ == &stream) heading_ = nullptr;
  stream.LeaveTo(output_);
  stream.Close();
  last_active_ = context_.now;
  Touch();
  const size_t index = stream.index;
  std::unique_ptr<GrpcStream> owned = std::move(streams_[index]);
  if (index + 1 != streams_.size()) {
    streams_[index] = std::move(streams_.back());
    streams_[index]->index = index;
  }
  streams_.pop_back();
  constexpr size_t kSpare = 1024;
  if (context_.spare_streams.size() < kSpare) context_.spare_streams.push_back(std::move(owned));
}

void Http2Connection::SubmitResponse(GrpcStream& stream, std::span<nghttp2_nv> fields) {
  nghttp2_data_provider provider{};
  provider.source.ptr = &stream;
  provider.read_callback = Callbacks::Read;
  CountHead(fields);
  nghttp2_submit_response(session_.get(), stream.id(), fields.data(), fields.size(), &provider);
}

void Http2Connection::Drain() {
  if (closed_ || draining_) return;
  draining_ = true;
  // One in its handshake is told afterwards: if it were closed, a client would take that for a server that is out of
  // order.
  if (started_) SayGoodbye();
}

void Http2Connection::SayGoodbye() {
  nghttp2_submit_shutdown_notice(session_.get());
  Touch();
}

void Http2Connection::End(const Status& status) {
  if (closed_) return;
  if (!started_ || lingers_ != kNever) return Close();
  for (const auto& stream : streams_) stream->Abort(status);
  Flush();  // by itself: a session that is to terminate sends nothing else
  if (closed_) return;
  nghttp2_session_terminate_session(session_.get(), NGHTTP2_NO_ERROR);
  Flush();
  if (closed_) return;
  transport_->Shutdown();
  Close();
}

}  // namespace mindserve::gateway
