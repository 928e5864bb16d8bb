// The call seam: between HTTP/2 gRPC on one side and the services on the other. A call is a stream of messages each
// way; a unary call is the case of one. Everything of a call happens on the I/O thread that owns its connection.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/execution.h"
#include "base/request_key.h"
#include "base/status.h"
#include "gateway/call_stats.h"
#include "gateway/quarantine.h"
#include "gateway/request_memory.h"
#include "net/transport.h"

namespace mindserve::gateway {

class ClientIdentity;

// Metadata as gRPC has it: keys in lower case; values of "-bin" keys already decoded from base64.
using Metadata = std::vector<std::pair<std::string, std::string>>;

// What a call by a worker of this server says of itself; of a client's call there is nothing to be said.
struct InnerCall {
  uint32_t depth = 0;                      // of how many calls within calls of servables it is the innermost
  std::vector<ExecutionTag> callers = {};  // those that wait for it, by their workers' names, the innermost first
};

// Whoever lent bytes for a reply and wants them back.
class ReplyLender {
 public:
  virtual ~ReplyLender() = default;
  // `bytes` may be none: a lender may count what it has lent.
  virtual void Return(std::span<const std::byte> bytes) = 0;
};

// Bytes to send. Its own, or lent; lent ones go back when the part is destroyed, which the transport does once they are
// sent or the call is gone.
class ReplyPart {
 public:
  explicit ReplyPart(std::string own) : own_(std::move(own)) {}
  // `lender` is shared by all that was lent and not yet given back, and whoever else needs it.
  ReplyPart(std::span<const std::byte> lent, std::shared_ptr<ReplyLender> lender)
      : lent_(lent), lender_(std::move(lender)) {}
  ReplyPart(ReplyPart&& other) noexcept = default;
  ReplyPart& operator=(ReplyPart&& other) noexcept {
    GiveBack();
    own_ = std::move(other.own_);
    lent_ = other.lent_;
    lender_ = std::move(other.lender_);
    return *this;
  }
  ~ReplyPart() { GiveBack(); }

  // Moving a part moves the bytes of an owned text that is short; longer and lent ones stay where they are.
  std::span<const std::byte> bytes() const {
    return lender_ ? lent_ : std::as_bytes(std::span<const char>(own_.data(), own_.size()));
  }

  bool lent() const { return lender_ != nullptr; }

  // What is lent goes back now; the part has no bytes then.
  void GiveBack() {
    if (lender_ == nullptr) return;
    const auto lender = std::move(lender_);
    lender->Return(lent_);
  }

 private:
  std::string own_;
  std::span<const std::byte> lent_;
  std::shared_ptr<ReplyLender> lender_;
};

// One message: its parts one after the other.
using Reply = std::vector<ReplyPart>;

// The transport's side of a call, as a service sees it.
class Call {
 public:
  virtual ~Call() = default;
  virtual const Metadata& metadata() const = 0;
  // The first value of a key, "" without one: costs less than the above.
  virtual std::string_view metadata_value(std::string_view key) const = 0;
  // The handler asks for none of these any more: there is no metadata from now on. For a call that may stay for as long
  // as its client likes.
  virtual void DropMetadata() = 0;
  virtual TimePoint deadline() const = 0;  // from grpc-timeout, or the server's default; kNever
  virtual uint64_t client() const = 0;     // the connection's number, for fairness
  virtual const net::Peer& peer() const = 0;
  virtual const net::AuthProperties& auth() = 0;  // of the peer, as grpcio's auth_context has them
  // Who makes it, as long as it is under way; null: nobody is asked, or it comes from one of our own workers.
  virtual const ClientIdentity* identity() const = 0;
  virtual const InnerCall& inner() const = 0;
  virtual bool accepts_gzip() const = 0;
  virtual ClientTrust& trust() = 0;  // the connection's

  // The call is counted as one of these instead of as one of its service. They live until it is finished.
  virtual void CountAs(MethodCounts& counts) = 0;

  // What is sent never fails: a call that is gone drops it.
  //
  // Trailing metadata that goes with whatever ends the call. Before anything can.
  virtual void SetTrailing(Metadata trailing) = 0;
  // The same of the request id that is made of the key, for less than that costs. Once at most.
  virtual void SetKey(const RequestKey& key) = 0;
  // Sends initial metadata, at once. Not after Send. With `gzip` messages may be compressed.
  virtual void SendInitial(const Metadata& initial, bool gzip) = 0;
  // Sends a message.
  virtual void Send(Reply reply) = 0;
  // The same of a message in one piece, one of many. `compressed`: by gzip, as SendInitial said.
  virtual void SendOne(ReplyPart message, bool compressed) = 0;
  // Ends the call: OK, or an error. The first time counts. What the handler still holds it may free at once; the
  // handler itself is destroyed by the transport later, never from within this.
  virtual void Finish(Status status, Metadata trailing = {}) = 0;
  // Of a service that holds messages: the oldest that was given to the handler, and not been told of, takes no room any
  // more, so that the client may send others. May call OnMessage, OnHalfClose and OnCancel.
  virtual void MessageTaken() = 0;
  // Of such a service: the handler waits for the next message, having taken so many, modulo 2^32, without an answer to
  // the last one. So it is the client's turn.
  virtual void MessageWanted(uint32_t taken) = 0;
  // An answer, or a message of it, has waited for long at a worker, where the client holds its share of the memory for
  // answers: it has to take others, or to lose them.
  virtual void AnswerWaits() = 0;
};

// The service's side of a call. Destroyed when the call is over, however it ended; a handler that has work elsewhere
// then gives it up.
class CallHandler {
 public:
  virtual ~CallHandler() = default;
  virtual void OnMessage(Message message) = 0;  // takes it over
  virtual void OnHalfClose() = 0;               // the client sends no more
  // The client cancelled, the connection is lost, or the deadline has passed (the transport then answers
  // DEADLINE_EXCEEDED by itself). Call::Send and Finish have no effect any more. Not called after Finish.
  virtual void OnCancel() = 0;
};

// Bytes that a message of nothing but names may have, where a call keeps or repeats them.
inline constexpr size_t kMostNameBytes = 4096;

// An entry of the service table. One for each I/O thread.
class Service {
 public:
  // `counts` outlive the service.
  explicit Service(MethodCounts& counts) : counts_(counts) {}
  virtual ~Service() = default;
  MethodCounts& counts() { return counts_; }
  // Whether a client may send more than one message; if not, the transport sees to it that OnHalfClose follows exactly
  // one.
  virtual bool client_streaming() const { return false; }
  // Whether its answer is a stream, whose reader may take its time.
  virtual bool server_streaming() const { return false; }
  // Whether its calls count as max_enqueued_requests while they last.
  virtual bool counts_as_request() const { return false; }
  // Whether its answers count as max_enqueued_bytes until they are sent.
  virtual bool answers_are_enqueued() const { return false; }
  // Whether it answers everybody, whoever else is asked for a token.
  virtual bool open_to_all() const { return false; }
  // What a message to it may have at most, besides max_msg_mb_size.
  virtual size_t most_message_bytes() const { return SIZE_MAX; }
  // Whether its handlers say when they have taken a message (Call::MessageTaken). Their clients are held back
  // meanwhile.
  virtual bool holds_messages() const { return false; }
  virtual std::unique_ptr<CallHandler> Start(Call& call) = 0;
  // A call is refused before Start, or ended by the transport, and has no trailing metadata yet: for Call::SetTrailing.
  virtual void OnRefused(Call&) {}
  // What large messages to it are placed by; null: nothing.
  virtual AlignedAt aligned_at() const { return nullptr; }

 private:
  MethodCounts& counts_;
};

}  // namespace mindserve::gateway
