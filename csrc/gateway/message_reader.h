// gRPC's framing: messages with a prefix of five bytes, cut from a stream of bytes that knows nothing of them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/status.h"
#include "gateway/call_stats.h"
#include "gateway/gathered_bytes.h"
#include "gateway/inflater.h"
#include "gateway/request_memory.h"

namespace mindserve::gateway {

// Bytes that have come of the messages that a connection has begun and not completed, but for those that have their
// place. A client that sends slowly, or not at all, must not take what others need: it may have a quarter of
// max_enqueued_bytes in this way, or one message. Outlives its readers.
struct PartialBytes {
  size_t gathered = 0;
};

// A place for a message of `size` bytes, of which `begin` are the first: a large one where `aligned_at`, which may be
// null, wants it. RESOURCE_EXHAUSTED, and `counted`, as RequestMemory says.
Result<Message> PlaceMessage(RequestMemory& memory, size_t size, std::span<const std::byte> begin, AlignedAt aligned_at,
                             BytesTicket* counted = nullptr);

// A message that comes in pieces has its place from the beginning, as long as what was announced so, and is not whole,
// is no more than a quarter of max_enqueued_bytes. What is announced beyond that counts, and takes memory, as it comes,
// and is copied to its place when it is whole: so to announce much, and send little, takes little from others.
class MessageReader {
 public:
  // `max_bytes` of a message, compressed or not. `aligned_at` tells what a large message is to be placed by; may be
  // null.
  MessageReader(RequestMemory& memory, PartialBytes& partial, size_t max_bytes, Encoding encoding, AlignedAt aligned_at)
      : memory_(memory), partial_(partial), max_bytes_(max_bytes), encoding_(encoding), aligned_at_(aligned_at) {}
  MessageReader(const MessageReader&) = delete;
  ~MessageReader() { EndPartial(); }

  struct Error {
    Status status;
    std::optional<Refusal> limit = std::nullopt;  // that refused it
  };

  // Takes bytes from the front of `data`, up to the end of a message. True if `message` then holds one; false with an
  // error if error() says so, else everything was taken and there is no message yet.
  bool Feed(std::span<const std::byte>* data, std::optional<Message>* message);
  const Error& error() const { return error_; }

  // Whether the stream stops within a message.
  bool within() const { return prefix_size_ > 0; }

 private:
  bool Fail(Status status, std::optional<Refusal> limit = std::nullopt);
  bool Begin(std::span<const std::byte> data);
  // Counts so much of it that has come.
  bool CountUnfinished(size_t size);
  bool Gather(std::span<const std::byte> piece);
  // message_, of which `begin` are the first bytes
  bool Allocate(size_t size, std::span<const std::byte> begin, BytesTicket* counted = nullptr);
  void EndPartial();
  bool Complete(std::optional<Message>* message);

  static constexpr size_t kPrefix = 5;
  RequestMemory& memory_;
  PartialBytes& partial_;
  size_t gathers_ = 0;  // in partial_
  UnfinishedTicket unfinished_{memory_.admission()};
  size_t max_bytes_;
  Encoding encoding_;
  AlignedAt aligned_at_;
  std::array<std::byte, kPrefix> prefix_{};
  size_t prefix_size_ = 0;
  size_t length_ = 0;  // of the message as sent
  size_t taken_ = 0;   // of it
  std::optional<Message> message_;
  std::optional<Inflater> inflater_;
  std::optional<GatheredBytes> gathered_;
  BytesTicket unplaced_;   // what one of these two has
  BytesTicket inflating_;  // what the first needs besides
  Error error_;
};

}  // namespace mindserve::gateway
