// The call seam: between HTTP/2 gRPC on one side and the services on the other. A call is a stream of messages each way; a
// unary call is the case of one. Everything of a call happens on the I/O thread that owns its connection.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "link/arena.h"
#include "net/transport.h"

namespace mindserve::gateway {

// Metadata as gRPC has it: keys in lower case; values of "-bin" keys already decoded from base64.
using Metadata = std::vector<std::pair<std::string, std::string>>;

// A message that a client sent, in the I/O thread's arena. Whoever holds it frees it with Arena::Free(offset); zero-length
// messages have a slab too.
struct Message {
  link::Slab slab;
};

// Bytes to send, and what to do once they are not needed any more (sent, or the call is gone).
struct Reply {
  std::vector<std::span<const std::byte>> parts;  // sent one after the other as one gRPC message
  std::function<void()> done;                     // may be empty; called exactly once
};

// The transport's side of a call, as a service sees it.
class Call {
 public:
  virtual ~Call() = default;
  virtual const Metadata& metadata() const = 0;
  virtual TimePoint deadline() const = 0;    // from grpc-timeout, or the server's default; kNever
  virtual uint64_t client() const = 0;       // the connection's number, for fairness
  virtual const net::Peer& peer() const = 0;

  // Sends a message. Never fails: a call that is gone drops it (and calls its `done`).
  virtual void Send(Reply reply) = 0;
  // Ends the call, once: OK, or an error. After it the handler is destroyed by the transport, on its next round.
  virtual void Finish(Status status, Metadata trailing = {}) = 0;
};

// The service's side of a call. Destroyed when the call is over, however it ended; a handler that has work elsewhere then gives
// it up.
class CallHandler {
 public:
  virtual ~CallHandler() = default;
  virtual void OnMessage(Message message) = 0;  // takes it over
  virtual void OnHalfClose() = 0;               // the client sends no more
  // The client cancelled, the connection is lost, or the deadline has passed (the transport then answers DEADLINE_EXCEEDED by
  // itself). Call::Send and Finish have no effect any more.
  virtual void OnCancel() = 0;
};

// An entry of the service table. One for each I/O thread.
class Service {
 public:
  virtual ~Service() = default;
  // Whether a client may send more than one message (the transport then need not refuse a second).
  virtual bool client_streaming() const { return false; }
  virtual std::unique_ptr<CallHandler> Start(Call& call) = 0;
};

}  // namespace mindserve::gateway
