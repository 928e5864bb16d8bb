// One client's connection: bytes from and to a transport, frames by nghttp2, calls by GrpcStream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/rate_limit.h"
#include "gateway/frame_heads.h"
#include "gateway/grpc_stream.h"
#include "gateway/http2_session.h"
#include "gateway/output.h"
#include "gateway/progress.h"
#include "gateway/thread_context.h"
#include "net/transport.h"

namespace mindserve::gateway {

// Belongs to an I/O thread, which flushes it at the end of a round if it is on the context's dirty list, and destroys
// it once it is closed.
class Http2Connection final : private TimerNode {
 public:
  // `internal`: the client is a worker of this server.
  Http2Connection(ThreadContext& context, std::unique_ptr<net::Transport> transport, bool internal);
  ~Http2Connection();

  void Start();
  // Writes what there is to write. For the end of a round.
  void Flush();
  // No more from this client, and nothing for it. To be destroyed, not from within a handler.
  bool closed() const { return closed_; }

  // Says goodbye: takes no new calls once the client knows, closes when those it has are over.
  void Drain();
  // Ends the calls that are left with `status`, and closes, with as much said to the client as the socket takes now.
  void End(const Status& status);
  // Ends one of its calls, if it is not over.
  void Abort(int32_t stream, const Status& status);

  uint64_t number() const { return number_; }
  const net::Peer& peer() const { return transport_->peer(); }
  const net::AuthProperties& auth() { return transport_->auth(); }
  bool internal() const { return internal_; }
  size_t calls() const { return streams_.size(); }

  // For streams.
  nghttp2_session* session() { return session_.get(); }
  void Touch();  // there is something to write
  PartialBytes& partial_bytes() { return partial_bytes_; }
  ClientTrust& trust() { return trust_; }
  // A call of which the client has taken all, and could take more, waits for what the client has not taken of others.
  void AnswerWaits() { answer_waited_ = context_.now; }
  // A block of header fields of an answer waits to be sent.
  void CountHead(std::span<const nghttp2_nv> fields);
  void SubmitResponse(GrpcStream& stream, std::span<nghttp2_nv> fields);

  static void SetCallbacks(nghttp2_session_callbacks* callbacks);

 private:
  struct Callbacks;

  void OnStarted(const Status& status);
  void AwaitRead();
  void OnReadable();
  bool Feed(std::span<const std::byte> bytes);
  // Whether what waits behind a full socket is so much that nothing more may call for answers.
  bool IsFull() const;
  void Pull();
  void SayGoodbye();
  void Linger();
  void Close();
  void Fail(const std::string& why);
  void EndStreams();
  void Say(const std::string& why);  // in the log, once

  // Of what the client must not do. Excess: notes why the session ends, once; the error for nghttp2's callback.
  int Excess(std::string why, Refusal limit);
  int CountControlFrame();
  int CountIgnored(std::span<const std::byte> bytes);  // that came
  int CountHeader(size_t bytes);
  void BeginHeader();
  // Ends it with a GOAWAY that says ENHANCE_YOUR_CALM.
  void Calm(const std::string& why);
  void CheckStreams();
  // What somebody lacked lately.
  struct Lacks {
    bool requests = false;
    bool bytes = false;
    bool answers = false;  // memory for them
    bool share = false;    // of that memory, this client itself
    bool any() const { return requests || bytes || answers || share; }
  };
  Lacks FindLacks() const;
  void EndForOthers(GrpcStream& stream, const Lacks& lacks);
  std::string TooSlow(const Progress& progress);  // counts it, too

  GrpcStream& NewStream(int32_t id);
  void CloseStream(GrpcStream& stream);
  void CountReset();

  void OnTimer() override;
  TimePoint NextCheck() const;
  TimePoint NextLook(const GrpcStream& stream) const;
  TimePoint ping_due() const;  // to be answered by then; kNever: none is out
  void Arm();

  ThreadContext& context_;
  std::unique_ptr<net::Transport> transport_;
  const uint64_t number_;
  const bool internal_;
  std::shared_ptr<const Http2Settings> settings_;  // the session's callbacks; shared as the context says
  Http2Owned<nghttp2_session> session_;
  PartialBytes partial_bytes_;
  ClientTrust trust_;
  std::vector<std::unique_ptr<GrpcStream>> streams_;
  GrpcStream* heading_ = nullptr;  // the one of them whose header fields came last; null: it is gone
  Output output_;
  RateLimit resets_;
  RateLimit control_frames_;
  FrameHeads heads_;
  uint64_t begun_cheap_ = 0;  // frames as FrameHeads counts them, of those that nghttp2 told of in this round
  uint64_t earned_ends_ = 0;  // that may come for calls that are over, and count nothing: one for each call
  uint64_t earned_ = 0;       // control frames that answer what was sent to the client, and count nothing

  TimePoint accepted_;
  TimePoint answer_waited_ = TimePoint::min();
  TimePoint last_active_;            // something came, or a call ended
  TimePoint last_read_;              // something came
  TimePoint pinged_ = kNever;        // nothing has come since that keepalive ping
  TimePoint last_written_;           // the socket took something, or there was nothing for it
  Progress sending_;                 // what the socket takes; only while there is something for it
  TimePoint blocked_since_;          // while write_blocked_
  TimePoint header_since_ = kNever;  // a block of header fields is coming since then
  size_t header_bytes_ = 0;          // that came meanwhile
  size_t header_list_ = 0;           // what they came to, unpacked
  size_t head_bytes_ = 0;            // of answers, that were submitted since all was framed
  size_t consumed_ = 0;              // of bodies, since the connection's window was last given back
  std::string excess_;               // why the client has to be calm; "" while it is
  bool said_ = false;                // the log has why it ends
  bool started_ = false;             // the transport's handshake is done
  bool established_ = false;         // the client's preface and SETTINGS came
  // The client has changed the size of the header table after its first SETTINGS: the next block of header fields that
  // is sent must say so, which only nghttp2's do.
  bool table_changes_ = false;
  bool dirty_ = false;
  bool write_blocked_ = false;
  bool read_paused_ = false;
  bool draining_ = false;
  bool closing_ = false;        // close once everything is written
  TimePoint lingers_ = kNever;  // everything is: until then the client may take it, and close
  bool closed_ = false;
};

}  // namespace mindserve::gateway
