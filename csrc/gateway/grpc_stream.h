// One HTTP/2 stream as a gRPC call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/call.h"
#include "gateway/call_counter.h"
#include "gateway/child_calls.h"
#include "gateway/guarded_call.h"
#include "gateway/message_reader.h"
#include "gateway/output.h"
#include "gateway/progress.h"
#include "gateway/request_head.h"
#include "gateway/stream_window.h"
#include "gateway/thread_context.h"
#include "gateway/timer_heap.h"

namespace mindserve::gateway {

// Owned by its connection. Streams are used again: Open makes an old one new.
class GrpcStream final : public GuardedCall, public TimerNode {
 public:
  explicit GrpcStream(ThreadContext& context) : context_(context) {}
  ~GrpcStream() { context_.timers.Cancel(*this); }

  void Open(Http2Connection& connection, int32_t id);
  // The stream is over; tells the handler if it doesn't know, destroys it, and frees what the stream holds.
  void Close();

  int32_t id() const { return id_; }
  size_t index = 0;  // in the connection's list

  // What the client sends. Of its window on this stream the stream gives back what withholds() says it does not give
  // back by itself.
  void OnHeader(std::string_view name, std::string_view value) {
    head_.Add(name, value, context_.limits.max_metadata_bytes);
  }
  void OnHeadersEnd();
  void OnData(std::span<const std::byte> data);
  void OnHalfClose();
  bool half_closed() const { return half_closed_; }
  bool withholds() const { return window_.has_value(); }
  // By when the client has to send more of a message; kNever: nothing is awaited.
  TimePoint request_due() const;
  const Progress& request_progress() const { return coming_; }

  // Of what a client may do as long as nobody lacks what the call holds meanwhile, since when it does so; kNever: it
  // doesn't.
  //
  // The reader of a stream takes nothing.
  TimePoint reader_rests_since() const;
  // It is the turn of a client that streams, which sends nothing.
  TimePoint client_rests_since() const;
  // A message is coming.
  TimePoint message_since() const;
  // Answers that count are not all taken.
  TimePoint answers_since() const;
  // A message of the answer, or a part of it, is being taken.
  TimePoint front_since() const { return pending_ > 0 && !given_up_ ? front_since_ : kNever; }

  // What is sent. Next: how much of it a DATA frame of up to `max` bytes takes. Frame: puts that much out.
  size_t Next(size_t max) const { return std::min(max, pending_); }
  void Frame(size_t length, Output& output);
  bool output_ends(size_t length) const { return finished_ && length == pending_; }
  size_t pending() const { return pending_; }
  // By when the client has to take more of what is pending; kNever: whenever it likes. A stream's reader may take its
  // time: what is sent of it is bounded.
  TimePoint reply_due() const {
    return pending_ > 0 && !given_up_ && !service_->server_streaming() ? going_.due() : kNever;
  }
  const Progress& reply_progress() const { return going_; }
  // For so long nobody could have taken anything.
  void PauseReply(Clock::duration time) { going_.Pause(time); }
  // It is not taken: the call is reset.
  void GiveUpReply();
  // Its trailers are those of PutPlainTrailers.
  bool ends_plainly() const { return status_.ok() && trailing_.empty(); }
  const RequestKey& key() const { return key_; }
  void SubmitTrailers();
  void set_deferred() { deferred_ = true; }
  // What was framed and may still be unwritten has to outlive the stream.
  void LeaveTo(Output& output);

  // Call
  const Metadata& metadata() const override { return head_.metadata(); }
  std::string_view metadata_value(std::string_view key) const override { return head_.Value(key); }
  void DropMetadata() override {
    head_.DropTexts();
    head_bytes_ = BytesTicket();
  }
  TimePoint deadline() const override { return deadline_; }
  uint64_t client() const override;
  const net::Peer& peer() const override;
  const net::AuthProperties& auth() override;
  const InnerCall& inner() const override { return inner_; }
  bool accepts_gzip() const override { return head_.accepts_gzip(); }
  ClientTrust& trust() override;
  void CountAs(MethodCounts& counts) override { counter_.As(&counts); }
  void SetTrailing(Metadata trailing) override { trailing_ = std::move(trailing); }
  void SendInitial(const Metadata& initial, bool gzip) override;
  void Send(Reply reply) override;
  void SendOne(ReplyPart message, bool compressed) override;
  void Finish(Status status, Metadata trailing = {}) override;
  void MessageTaken() override;
  void MessageWanted(uint32_t taken) override;
  void AnswerWaits() override;

  // TimerNode: the deadline has passed.
  void OnTimer() override;
  // Ends the call from the transport's side; the handler is told that it is over.
  void Abort(Status status, Metadata trailing = {});

 private:
  // Cuts messages from the front of `data` until there is no whole one, or no more may wait.
  void Decode(std::span<const std::byte>* data);
  void OnWithheldData(std::span<const std::byte> data);
  void GiveWindow();
  void AbortReading(const MessageReader::Error& error);
  void EndMessages();
  void AddPrefix(size_t size, bool compressed);
  // Of a worker's call: takes in what it says of itself. An error: it is refused.
  Status EnterInner();

  // GuardedCall
  void DropCredentials() override;

  void SubmitHttpError(int status);
  void SubmitTrailersOnly();
  void SubmitResponse();
  void SubmitHeaders(const Metadata& initial, bool gzip);

  ThreadContext& context_;
  Http2Connection* connection_ = nullptr;
  int32_t id_ = 0;
  RequestHead head_;
  BytesTicket head_bytes_;  // what it counts as; empty where that is little
  std::optional<MessageReader> reader_;
  Service* service_ = nullptr;
  TimePoint deadline_ = kNever;
  InnerCall inner_;
  ChildCalls::Place child_;  // of a worker's call, until it is finished
  Progress coming_;          // the message that is coming
  Progress going_;           // what is pending
  size_t messages_ = 0;
  std::optional<StreamWindow> window_;  // of a service that holds messages
  size_t message_bytes_ = 0;            // of the message that is coming; only with window_
  bool half_closed_ = false;
  TimePoint message_since_;   // the message that is coming began no earlier
  TimePoint pending_since_;   // while anything is pending
  TimePoint front_since_;     // the first of parts_ is, since then
  bool clients_turn_ = true;  // it was sent something since its last message, or has sent none
  bool ended_ = false;        // the handler knows that, or is about to
  bool responded_ = false;    // the response's HEADERS are queued
  bool given_up_ = false;     // the stream is being reset
  bool deferred_ = false;     // nghttp2 waits for more of the response
  CallCounter counter_;
  Status status_;
  Metadata trailing_;
  // The response's bytes: the parts from parts_[part_], the first from part_offset_.
  std::vector<ReplyPart> parts_;
  size_t part_ = 0;
  size_t part_offset_ = 0;
  size_t pending_ = 0;
};

}  // namespace mindserve::gateway
