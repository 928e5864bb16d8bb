#include "gateway/message_reader.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

namespace mindserve::gateway {
namespace {

// From here on a copy costs more than finding out how to avoid it.
constexpr size_t kLarge = 64 * 1024;

}  // namespace

Result<Message> PlaceMessage(RequestMemory& memory, size_t size, std::span<const std::byte> begin, AlignedAt aligned_at,
                             BytesTicket* counted) {
  constexpr size_t kAlignment = 64;
  size_t skew = 0;
  if (size >= kLarge && aligned_at != nullptr) {
    constexpr size_t kLookedAt = 16 * 1024;
    if (const auto at = aligned_at(begin.first(std::min(begin.size(), kLookedAt))))
      skew = (kAlignment - *at % kAlignment) % kAlignment;
  }
  return memory.Allocate(size, skew, counted);
}

bool MessageReader::Fail(Status status, std::optional<Refusal> limit) {
  error_ = {std::move(status), limit};
  message_.reset();
  inflater_.reset();
  gathered_.reset();
  unplaced_ = {};
  inflating_ = {};
  EndPartial();
  return false;
}

bool MessageReader::Allocate(size_t size, std::span<const std::byte> begin, BytesTicket* counted) {
  auto message = PlaceMessage(memory_, size, begin, aligned_at_, counted);
  if (!message.ok()) return Fail(message.status(), Refusal::kMaxEnqueuedBytes);
  message_ = *std::move(message);
  return true;
}

void MessageReader::EndPartial() {
  partial_.gathered -= std::exchange(gathers_, 0);
  unfinished_.Release();
}

bool MessageReader::CountUnfinished(size_t size) {
  const size_t max = memory_.admission().max_bytes();
  const size_t more = size - std::min(size, gathers_);
  const auto fail = [&](const char* which, const char* part) {
    return Fail({Code::kResourceExhausted,
                 std::string(which) + " take " + part + " of max_enqueued_bytes " + std::to_string(max)},
                Refusal::kMaxEnqueuedBytes);
  };
  if (partial_.gathered > gathers_ && partial_.gathered + more > max / 4) {
    return fail("messages that this connection has begun", "more than a quarter");
  }
  if (!unfinished_.GrowTo(size)) {
    memory_.Lack();
    return fail("messages that have begun and are not whole", "three quarters");
  }
  gathers_ += more;
  partial_.gathered += more;
  return true;
}

// `data`: what has come behind the prefix.
bool MessageReader::Begin(std::span<const std::byte> data) {
  const auto byte = [&](size_t i) { return static_cast<size_t>(prefix_[i]); };
  length_ = byte(1) << 24 | byte(2) << 16 | byte(3) << 8 | byte(4);
  taken_ = 0;
  if (byte(0) > 1) {
    return Fail({Code::kInternal, "broken gRPC framing: a message's compressed flag is " + std::to_string(byte(0)) +
                                      ", expected 0 or 1"});
  }
  if (length_ > max_bytes_) return Fail(TooLarge(max_bytes_), Refusal::kMaxMsgMbSize);
  if (byte(0) == 1) {
    if (encoding_ == Encoding::kNone || encoding_ == Encoding::kIdentity) {
      return Fail({Code::kInternal, "a message is flagged as compressed, but grpc-encoding names no compression"});
    }
    inflating_ = BytesTicket(memory_.admission());
    unplaced_ = BytesTicket(memory_.admission());
    if (data.size() < length_) {
      if (!CountUnfinished(kInflaterBytes)) return false;
      if (!inflating_.GrowTo(kInflaterBytes))
        return Fail(memory_.OverLimit(kInflaterBytes), Refusal::kMaxEnqueuedBytes);
    }
    inflater_.emplace(max_bytes_, encoding_);
    return true;
  }
  // What never fits in is refused before it comes.
  if (length_ > memory_.admission().max_bytes()) {
    return Fail(memory_.OverLimit(length_), Refusal::kMaxEnqueuedBytes);
  }
  if (data.size() < length_ && !unfinished_.Claim(length_)) {
    gathered_.emplace();
    unplaced_ = BytesTicket(memory_.admission());
    return true;
  }
  // A large one is placed when its first bytes are here.
  return length_ >= kLarge || Allocate(length_, {});
}

bool MessageReader::Gather(std::span<const std::byte> piece) {
  const size_t size = gathered_->size() + piece.size();
  if (size < length_ && !CountUnfinished(size)) return false;
  if (!unplaced_.GrowTo(size)) return Fail(memory_.OverLimit(size), Refusal::kMaxEnqueuedBytes);
  gathered_->Add(piece);
  return true;
}

bool MessageReader::Complete(std::optional<Message>* message) {
  prefix_size_ = 0;
  EndPartial();
  if (inflater_) {
    if (Status status = inflater_->End(); !status.ok()) return Fail(std::move(status));
    const std::span<const std::byte> output = inflater_->output();
    if (!Allocate(output.size(), output, &unplaced_)) return false;
    std::ranges::copy(output, message_->bytes().begin());
    inflater_.reset();
    inflating_ = BytesTicket();
  } else if (gathered_) {
    if (!Allocate(length_, gathered_->begin(), &unplaced_)) return false;
    gathered_->CopyTo(message_->bytes());
    gathered_.reset();
  }
  *message = std::exchange(message_, std::nullopt);
  return true;
}

bool MessageReader::Feed(std::span<const std::byte>* data, std::optional<Message>* message) {
  if (prefix_size_ < kPrefix) {
    const size_t n = std::min(data->size(), kPrefix - prefix_size_);
    std::copy_n(data->begin(), n, prefix_.begin() + static_cast<ptrdiff_t>(prefix_size_));
    *data = data->subspan(n);
    prefix_size_ += n;
    if (prefix_size_ < kPrefix) return false;
    if (!Begin(*data)) return false;
  }
  const std::span<const std::byte> piece = data->first(std::min(data->size(), length_ - taken_));
  *data = data->subspan(piece.size());
  if (inflater_) {
    if (Status status = inflater_->Feed(piece); !status.ok()) {
      const bool too_large = status.code() == Code::kResourceExhausted;
      return Fail(std::move(status), too_large ? std::optional(Refusal::kMaxMsgMbSize) : std::nullopt);
    }
    const size_t size = inflater_->output().size();
    if (taken_ + piece.size() < length_ && !CountUnfinished(kInflaterBytes + size)) return false;
    if (!unplaced_.GrowTo(size)) return Fail(memory_.OverLimit(size), Refusal::kMaxEnqueuedBytes);
  } else if (gathered_) {
    if (!Gather(piece)) return false;
  } else if (!piece.empty()) {
    if (!message_ && !Allocate(length_, piece)) return false;
    std::memcpy(message_->bytes().data() + taken_, piece.data(), piece.size());
  }
  taken_ += piece.size();
  return taken_ == length_ && Complete(message);
}

}  // namespace mindserve::gateway
