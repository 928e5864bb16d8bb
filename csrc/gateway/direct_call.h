// One call from inside the process: a Call without HTTP/2.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "gateway/call.h"
#include "gateway/call_counter.h"
#include "gateway/direct_events.h"
#include "gateway/guarded_call.h"
#include "gateway/thread_context.h"
#include "gateway/timer_heap.h"
#include "net/transport.h"

namespace mindserve::gateway {

// Bytes that stay as they are while somebody holds them.
struct HeldBytes {
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> holder;  // any thread may be the last to let go
};

// What a call is made with.
struct DirectRequest {
  std::string path = {};
  // Keys in lower case; values of "-bin" keys as they are.
  Metadata metadata = {};
  std::vector<HeldBytes> messages = {};    // all that the client sends
  std::optional<TimePoint> deadline = {};  // nothing: the server's default
  net::Peer peer = {};                     // whom it is made for
  net::AuthProperties auth = {};           // what authenticated that one
  uint64_t client = 0;                     // names that one's connection, among those of all DirectCalls
};

// What is known of a client beyond its calls. Belongs to an I/O thread; shared by its table and the client's calls.
struct DirectClient {
  uint64_t number;  // among the thread's connections
  ClientTrust trust;
};

class DirectThread;

// Made by any thread, then an I/O thread's. Whichever is the last to hold it: if it has not ended, it ends so.
class DirectCall final : public GuardedCall, public TimerNode {
 public:
  DirectCall(DirectRequest request, uint64_t number, size_t thread_number, std::shared_ptr<DirectEvents> events)
      : request_(std::move(request)), number_(number), thread_number_(thread_number), events_(std::move(events)) {}
  ~DirectCall() override;

  // The rest on the I/O thread.
  void Begin(DirectThread& thread);
  // Ends it from outside; the handler is told that it is over.
  void Abort(Status status, Metadata trailing = {});
  // It has ended: lets go of everything. Not from within a handler.
  void Close();
  size_t index = 0;  // in the thread's list

  // Call
  const Metadata& metadata() const override { return request_.metadata; }
  std::string_view metadata_value(std::string_view key) const override;
  void DropMetadata() override { request_.metadata = Metadata(); }
  TimePoint deadline() const override { return deadline_; }
  uint64_t client() const override { return client_->number; }
  const net::Peer& peer() const override { return request_.peer; }
  const net::AuthProperties& auth() override { return request_.auth; }
  const InnerCall& inner() const override { return inner_; }
  bool accepts_gzip() const override { return false; }
  ClientTrust& trust() override { return client_->trust; }
  void CountAs(MethodCounts& counts) override { counter_.As(&counts); }
  void SetTrailing(Metadata trailing) override { trailing_ = std::move(trailing); }
  void SendInitial(const Metadata& initial, bool gzip) override;
  void Send(Reply reply) override;
  void SendOne(ReplyPart message, bool compressed) override;
  void Finish(Status status, Metadata trailing = {}) override;
  void MessageTaken() override;
  void AnswerWaits() override {}            // a reader that rests is closed by the REST server
  void MessageWanted(uint32_t) override {}  // there is no client that could rest: it has given them all

  // TimerNode: the deadline has passed.
  void OnTimer() override;

 private:
  // GuardedCall
  void DropCredentials() override;
  // What is wrong with it before anybody is asked.
  Status Check(const Service* service);
  Status CheckMetadata() const;
  // Gives the handler as many messages as may wait there.
  void Deliver();
  DirectEvent Event(DirectEvent::Kind kind) const;

  DirectRequest request_;
  const uint64_t number_;
  const size_t thread_number_;
  const std::shared_ptr<DirectEvents> events_;  // shared as it says itself
  DirectThread* thread_ = nullptr;              // these two from Begin on
  ThreadContext* context_ = nullptr;
  std::shared_ptr<DirectClient> client_;  // shared as it says itself
  Service* service_ = nullptr;
  TimePoint deadline_ = kNever;
  const InnerCall inner_;
  CallCounter counter_;
  size_t next_ = 0;             // of the request's messages
  std::deque<size_t> waiting_;  // sizes of those that wait to be taken, of a service that holds messages
  size_t waiting_bytes_ = 0;
  bool half_closed_ = false;
  bool responded_ = false;
  Metadata trailing_;
};

}  // namespace mindserve::gateway
