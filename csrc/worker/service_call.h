// One call of a user's service, as its handler and the runtime thread see it.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/execution.h"
#include "base/status.h"
#include "wire/call_head.h"
#include "worker/call_line.h"
#include "worker/handlers.h"

namespace mindserve::worker {

// A message that a handler gives: text of its own, or bytes that somebody else keeps.
class OutMessage {
 public:
  explicit OutMessage(std::string text, bool compressed = false) : compressed_(compressed), text_(std::move(text)) {}
  // `owner`, which all that hold the bytes share, is let go of on the runtime thread.
  OutMessage(std::span<const std::byte> bytes, std::shared_ptr<const void> owner, bool compressed = false)
      : compressed_(compressed), kept_(bytes), owner_(std::move(owner)) {}

  std::span<const std::byte> bytes() const { return owner_ ? kept_ : std::as_bytes(std::span(text_)); }
  bool compressed() const { return compressed_; }

 private:
  bool compressed_;
  std::string text_;
  std::span<const std::byte> kept_;
  std::shared_ptr<const void> owner_;
};

// Thread-safe: the handler's part may be called by any thread, at any time.
//
// What the client sends is looked at where it lies, in the request arena, until the call is over for the gateway: then,
// under the call's lock, all views of it go. Whatever a handler does afterwards is dropped.
class ServiceCall : public std::enable_shared_from_this<ServiceCall> {
 public:
  // A call holds its handler back while so much of its answer is queued or on its way, until it is half of that.
  static constexpr size_t kMaxBytesAhead = size_t{256} << 10;
  static constexpr size_t kMaxMessagesAhead = 256;

  struct Opened {
    size_t lane = 0;
    uint64_t number = 0;
    int handler = 0;
    uint64_t client = 0;
    TimePoint deadline = kNever;
    TimePoint arrived;
    ExecutionMark mark;
    uint32_t depth = 0;  // of the head, at most kMostDepth
    std::string head;    // a call head that parses
  };
  ServiceCall(std::shared_ptr<Handlers> handlers, Opened opened);
  ~ServiceCall();
  ServiceCall(const ServiceCall&) = delete;
  ServiceCall& operator=(const ServiceCall&) = delete;

  const std::shared_ptr<Handlers>& handlers() const { return handlers_; }
  int handler() const { return opened_.handler; }
  const HandlerSpec& spec() const { return handlers_->spec(opened_.handler); }
  uint64_t client() const { return opened_.client; }
  // How the gateway knows the call.
  ExecutionTag tag() const { return opened_.mark.tag; }
  TimePoint deadline() const { return opened_.deadline; }
  uint32_t depth() const { return opened_.depth; }
  // Views into the call.
  wire::CallHead head() const;
  bool cancelled() const;
  bool over() const;  // cancelled, or finished
  // Whether more messages of the client may come.
  bool ClientMaySend() const;

  // To be said by who runs the handler, just before it does. False: the call is over already.
  bool Begin(TimePoint now);

  enum class Reading : uint8_t {
    kMessage,
    kHalfClosed,  // the client sends no more
    kNotYet,      // a call on the event loop gets kReadable once this has changed
    kGone,        // cancelled, or finished
  };
  // The next message is handed to `take`, which copies it, under the call's lock.
  template <typename Take>
  Reading Read(Take take) {
    std::unique_lock lock(mutex_);
    const Reading reading = Look();
    if (reading == Reading::kNotYet) Want(lock);
    if (reading != Reading::kMessage) return reading;
    take(request_ ? *request_ : inbox_[inbox_read_]);
    Taken(lock);
    return reading;
  }
  // Blocks while Read would say kNotYet.
  void AwaitReadable();

  enum class Writing : uint8_t {
    kGoOn,
    kHoldBack,  // taken, but no more should come until the call is writable again
    kGone,
  };
  Writing Write(OutMessage message);
  // Blocks until the call is writable again; false: it is gone.
  bool AwaitWritable();
  // False: it was sent already, or a message was.
  bool SendInitial(const wire::MetadataView& metadata, bool compressed);
  // The answer's end. Once; later ones, and those of a call that is gone, do nothing.
  void Finish(Code code, std::string_view details, const wire::MetadataView& trailing);
  // The same with status OK after a last message, in one step.
  void WriteLast(OutMessage message);
  // Has kCancelled told to the event loop's thread, too, for a call that is not the loop's. Once it is over: nothing.
  void WatchCancel();
  // The handler's last word was lost: ends the call with INTERNAL if it has no end.
  void Drop();

  enum class Parked : uint8_t {
    kNo,     // there is nothing to wait for
    kYes,    // comes to the line again once it is writable or cancelled
    kAgain,  // may go on at once; is in the line again
  };
  // Of a handler thread that has run the handler: has it stopped because Write said kHoldBack?
  Parked Park();

  // The executor's own; the call doesn't look at it.
  void* executor_data = nullptr;
  // Of Handlers, guarded by its locks.
  uint8_t loop_events = 0;         // that were not yet taken
  size_t loop_place = 0;           // where those are
  void* holder = nullptr;          // the Handlers::Thread whose call this is
  size_t calls = 0;                // of servables that other threads than the holder make for it
  TimePoint rests_since = kNever;  // the holder waits for the client's next message
  bool dismissed = false;          // it was ended for its thread
  CallLine::Place place;

  // The runtime thread's part.
  size_t lane() const { return opened_.lane; }
  uint64_t number() const { return opened_.number; }
  // Of ServiceCalls: what it knows of the call, until it has ended there.
  void* record = nullptr;
  // The client's next message, if there is one; `ends`: it was the last. An error: not what the method takes.
  Status Deliver(std::optional<std::span<const std::byte>> message, bool ends);
  // The call is over for the gateway: nothing of the client's bytes is looked at after this.
  void Cancel();
  enum class Dismissed : uint8_t {
    kNo,      // it goes on
    kYes,     // Cancel has been done
    kAtRead,  // as soon as the handler wants a message it gets none, and the call has Outgoing::dismissed
  };
  // Of a call whose handler's thread others lack: if it still waits for the client's next message as it has done since
  // then, or, kNever, still works, and more may come.
  Dismissed Dismiss(TimePoint since);
  // A message of the answer has left the gateway. True: the call waited for that, and waits no more.
  bool Credit();

  struct Initial {
    std::string metadata;
    bool compressed = false;
  };
  struct End {
    bool there = false;
    bool plain = false;  // status OK, and nothing else is to be said
    Code code = Code::kOk;
    std::string block;               // a call end, unless plain
    std::optional<OutMessage> last;  // the last message, if it came with the end; TakeOutgoing adds it to the others
    Duration waited{0};              // until the handler began
    Duration took{0};                // the handler
  };
  struct Outgoing {
    std::unique_ptr<Initial> initial;
    std::vector<OutMessage> messages;
    End end;
    size_t taken = 0;  // messages of the client
    // The handler waits for another one, has taken so many in all, and answered none since: the gateway can't know.
    std::optional<uint32_t> wants_after;
    bool dismissed = false;
    bool waits_for_credit = false;
  };
  // Adds what the handler has put out to `out`. Once there is an end, nothing looks at the client's bytes any more.
  void TakeOutgoing(Outgoing* out);

 private:
  struct Waiter;
  Reading Look() const;
  void Want(std::unique_lock<std::mutex>& lock);
  void Taken(std::unique_lock<std::mutex>& lock);
  void MarkPosted(std::unique_lock<std::mutex>& lock);
  bool gone() const { return cancelled_ || finished_; }
  bool Full() const { return ahead_ >= kMaxMessagesAhead || bytes_ahead_ >= kMaxBytesAhead; }
  void Put(OutMessage message);
  void SetEnd(Code code, std::string block, bool plain);
  bool HasMessage() const { return request_ || inbox_read_ < inbox_.size(); }
  void DropInbox();
  void WakeWaiters();
  template <typename Until>
  void Wait(std::unique_lock<std::mutex>& lock, bool reads, Until until);
  bool Readable() const { return gone() || (!dismissed_ && (HasMessage() || half_closed_)); }
  void CancelWith(std::unique_lock<std::mutex>& lock);

  const std::shared_ptr<Handlers> handlers_;  // shared as Handlers says
  const Opened opened_;

  mutable std::mutex mutex_;
  // All guarded by mutex_.
  bool told_ = false;  // the executor knows of the call
  bool watched_ = false;
  bool begun_ = false;
  bool half_closed_ = false;
  TimePoint silent_since_ = kNever;  // a stream of which the handler has taken nothing: when it came
  bool cancelled_ = false;
  bool finished_ = false;
  bool posted_ = false;         // in the list for the runtime thread
  bool wants_message_ = false;  // Read said kNotYet
  bool unanswered_ = false;     // the last message read, where both stream
  bool dismissed_ = false;      // gives the handler no message any more
  bool dismissal_due_ = false;  // it wanted one
  bool answering_ = false;      // initial metadata or a message was written
  bool held_back_ = false;      // Full, and not yet half of that again
  bool resumes_ = false;        // the last Write said kHoldBack
  bool parked_ = false;
  TimePoint began_at_;
  std::optional<std::span<const std::byte>> request_;  // of a client that sends one message; of others:
  std::vector<std::span<const std::byte>> inbox_;
  size_t inbox_read_ = 0;
  size_t taken_ = 0;  // messages read, of which the gateway was not told
  uint32_t all_taken_ = 0;
  std::vector<OutMessage> outbox_;
  std::unique_ptr<Initial> initial_;
  End end_;
  std::vector<uint32_t> sizes_;  // of the messages queued and on their way, from sizes_gone_
  size_t sizes_gone_ = 0;
  size_t ahead_ = 0;
  size_t bytes_ahead_ = 0;
  Waiter* waiters_ = nullptr;
};

}  // namespace mindserve::worker
