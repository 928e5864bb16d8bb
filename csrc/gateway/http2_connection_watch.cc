// What a connection looks at besides its calls: how much its client sends that carries nothing of them, and how long it
// takes.
#include <algorithm>
#include <array>
#include <chrono>
#include <string>
#include <utility>

#include "gateway/admit.h"
#include "gateway/http2_connection.h"

namespace mindserve::gateway {
namespace {

// What the ping carries that any word of the client answers.
constexpr std::array<uint8_t, 8> kKeepalivePing = {'k', 'e', 'e', 'p'};

}  // namespace

int Http2Connection::Excess(std::string why, Refusal limit) {
  if (excess_.empty()) {
    excess_ = std::move(why);
    context_.stats.Refuse(limit);
  }
  return NGHTTP2_ERR_CALLBACK_FAILURE;
}

int Http2Connection::CountControlFrame() {
  if (internal_ || control_frames_.Take(context_.now)) return 0;
  return Excess("more than max_control_frames_per_second " +
                    std::to_string(context_.limits.max_control_frames_per_second) +
                    " frames came that carry nothing of a call",
                Refusal::kMaxControlFramesPerSecond);
}

// Of DATA and CONTINUATION for calls that are over nghttp2 tells nobody. Each call may have one that ends it: its
// client need not have known by then that it was over. What carries bytes costs its sender as much as it costs here.
int Http2Connection::CountIgnored(std::span<const std::byte> bytes) {
  const uint64_t came = heads_.CountCheap(bytes);
  const uint64_t begun = std::exchange(begun_cheap_, 0);
  if (came <= begun) return 0;
  if (nghttp2_session_want_read(session_.get()) == 0) return 0;  // it is at its end, and passes over everything
  uint64_t ignored = came - begun;
  const uint64_t free = std::min(ignored, earned_ends_);
  earned_ends_ -= free;
  for (ignored -= free; ignored > 0; --ignored) {
    if (const int error = CountControlFrame(); error != 0) return error;
  }
  return 0;
}

void Http2Connection::BeginHeader() {
  header_since_ = context_.now;
  header_bytes_ = header_list_ = 0;
}

// A few bytes may refer to a field of kilobytes again and again, and each costs its whole size.
int Http2Connection::CountHeader(size_t bytes) {
  constexpr size_t kFieldCost = 32;  // as RequestHead counts
  constexpr size_t kAlwaysAllowed = 64 * 1024;
  header_list_ += bytes + kFieldCost;
  const size_t limit = context_.limits.max_metadata_bytes;
  if (internal_ || header_list_ <= std::max(kAlwaysAllowed, 4 * limit)) return 0;
  return Excess("header fields of one call that are several times max_metadata_bytes " + std::to_string(limit),
                Refusal::kMaxMetadataBytes);
}

void Http2Connection::CountReset() {
  if (internal_ || resets_.Take(context_.now)) return;
  if (excess_.empty()) {
    Excess("more than max_resets_per_second " + std::to_string(context_.limits.max_resets_per_second) +
               " calls were reset",
           Refusal::kMaxResetsPerSecond);
    Say(excess_);
  }
  nghttp2_session_terminate_session(session_.get(), NGHTTP2_ENHANCE_YOUR_CALM);
}

TimePoint Http2Connection::ping_due() const {
  // The ping may stand behind a reply that the client takes slowly.
  return pinged_ == kNever ? kNever : std::max(pinged_, last_written_) + context_.limits.keepalive_timeout;
}

TimePoint Http2Connection::NextCheck() const {
  const Limits& limits = context_.limits;
  TimePoint at = established_ ? (pinged_ == kNever ? last_read_ + context_.limits.keepalive_time : ping_due())
                              : accepted_ + limits.header_timeout;
  if (header_since_ != kNever) at = std::min(at, header_since_ + limits.header_timeout);
  if (streams_.empty() && !internal_) {
    if (limits.idle_connection_timeout.count() > 0) at = std::min(at, last_active_ + limits.idle_connection_timeout);
  }
  // Both kinds of stalling: a body that doesn't come, replies that are not taken. The reader of a stream of replies may
  // stall as long as nobody lacks what it holds: that its client lives is what keepalive pings are for.
  for (const auto& stream : streams_) {
    at = std::min(at, stream->request_due());
    if (!write_blocked_) at = std::min(at, stream->reply_due());
    if (!internal_) at = std::min(at, NextLook(*stream));
  }
  if (!output_.empty()) at = std::min(at, sending_.due());
  return at;
}

// When it is to be seen whether somebody lacks what the call holds while its client rests, or is slow.
TimePoint Http2Connection::NextLook(const GrpcStream& stream) const {
  TimePoint since = std::min({stream.client_rests_since(), stream.message_since(), stream.front_since()});
  if (!write_blocked_) since = std::min({since, stream.reader_rests_since(), stream.answers_since()});
  if (since == kNever) return kNever;
  const Clock::duration timeout = context_.limits.body_idle_timeout;
  return since + timeout > context_.now ? since + timeout : context_.now + timeout / 4;
}

std::string Http2Connection::TooSlow(const Progress& progress) {
  const Limits& limits = context_.limits;
  if (progress.halted(context_.now, limits)) {
    context_.stats.Refuse(Refusal::kBodyIdleTimeout);
    return "within body_idle_timeout " + std::to_string(limits.body_idle_timeout.count()) + " ms";
  }
  context_.stats.Refuse(Refusal::kMinBytesPerSecond);
  return "at min_bytes_per_second " + std::to_string(limits.min_bytes_per_second);
}

Http2Connection::Lacks Http2Connection::FindLacks() const {
  if (internal_) return {};
  const Admission& admission = context_.memory.admission();
  const TimePoint lately = context_.now - context_.limits.body_idle_timeout;
  return {.requests = admission.RequestsLacked(lately),
          .bytes = admission.BytesLacked(lately),
          .answers = context_.answers_lacked >= lately,
          .share = answer_waited_ >= lately};
}

// Ends what rests, or is slow, where that has lasted too long for those who lack what it holds.
void Http2Connection::EndForOthers(GrpcStream& stream, const Lacks& lacks) {
  const TimePoint now = context_.now;
  const auto timeout = context_.limits.body_idle_timeout;
  const auto too_long = [&](TimePoint since) { return since != kNever && since + timeout <= now; };
  const auto refuse = [&](const char* what, Refusal by, const char* lacked) {
    context_.stats.Refuse(by);
    return std::string(what) + " within body_idle_timeout " + std::to_string(timeout.count()) + " ms, while " + lacked;
  };
  const auto for_bytes = [&](const char* what) {
    return refuse(what, Refusal::kMaxEnqueuedBytes, "others lacked max_enqueued_bytes");
  };
  const auto for_requests = [&](const char* what) {
    return refuse(what, Refusal::kMaxEnqueuedRequests, "others lacked max_enqueued_requests");
  };
  const auto for_answers = [&](const char* what) {
    return refuse(
        what, Refusal::kBodyIdleTimeout,
        lacks.answers ? "others lacked memory for answers" : "other calls of its client waited for memory for answers");
  };
  const auto give_up = [&](const std::string& why) {
    context_.log.Warn(now, "a call of " + peer().address + " reset: " + why);
    stream.GiveUpReply();
  };
  if (lacks.bytes && too_long(stream.message_since())) {
    stream.Abort({Code::kResourceExhausted, for_bytes("the message did not come whole")}, TryLater());
  }
  // While the socket is full it is not known which of them the client would take.
  if (!write_blocked_ && too_long(stream.reader_rests_since())) {
    constexpr const char* kWhat = "its reply was not taken";
    give_up(lacks.requests ? for_requests(kWhat) : lacks.bytes ? for_bytes(kWhat) : for_answers(kWhat));
  }
  if (lacks.answers && too_long(stream.front_since())) {
    give_up(for_answers("a message of its reply was not taken whole"));
  }
  if (lacks.bytes && !write_blocked_ && too_long(stream.answers_since())) {
    give_up(for_bytes("its replies were not all taken"));
  }
  if (lacks.requests && too_long(stream.client_rests_since())) {
    const std::string why = for_requests("no message came");
    context_.log.Warn(now, "a call of " + peer().address + " ended: " + why);
    stream.Abort({Code::kResourceExhausted, why}, TryLater());
  }
}

void Http2Connection::CheckStreams() {
  const TimePoint now = context_.now;
  const Lacks lacks = FindLacks();
  const auto is_old = [&](const auto& stream) {
    return stream->front_since() != kNever && stream->front_since() + context_.limits.body_idle_timeout <= now;
  };
  // What is half sent stays for as long as the socket has not taken it.
  if (lacks.answers && write_blocked_ && std::ranges::any_of(streams_, is_old)) {
    context_.stats.Refuse(Refusal::kBodyIdleTimeout);
    return Fail("it did not take a message of a reply whole within body_idle_timeout " +
                std::to_string(context_.limits.body_idle_timeout.count()) +
                " ms, while others lacked memory for answers");
  }
  for (const auto& stream : streams_) {
    if (stream->request_due() <= now) {
      stream->Abort({Code::kCancelled, "the request's body did not go on " + TooSlow(stream->request_progress())});
    }
    // While the socket is full it is not known which of them the client would take.
    if (!write_blocked_ && stream->reply_due() <= now) {
      context_.log.Warn(
          now, "a call of " + peer().address + " reset: its reply was not taken " + TooSlow(stream->reply_progress()));
      stream->GiveUpReply();
    }
    if (lacks.any()) EndForOthers(*stream, lacks);
  }
}

// Whatever begins to wait now is due after the shortest of the timeouts at the earliest. A check by then looks at each
// stream once for all that came meanwhile; one that comes too early finds nothing to do and sets the next.
void Http2Connection::Arm() {
  if (closed_ || lingers_ != kNever) return;
  const Limits& limits = context_.limits;
  auto shortest = std::min({limits.header_timeout, limits.body_idle_timeout, context_.limits.keepalive_time,
                            context_.limits.keepalive_timeout});
  if (limits.idle_connection_timeout.count() > 0) shortest = std::min(shortest, limits.idle_connection_timeout);
  const TimePoint at = context_.now + shortest;
  if (!armed() || at < this->at()) context_.timers.Set(*this, at);
}

void Http2Connection::OnTimer() {
  if (closed_) return;
  const Limits& limits = context_.limits;
  const TimePoint now = context_.now;
  if (lingers_ != kNever) {
    if (lingers_ <= now) return Close();
    return context_.timers.Set(*this, lingers_);
  }
  const auto over = [&](TimePoint since, std::chrono::milliseconds limit) { return since + limit <= now; };
  const auto text = [](const char* name, std::chrono::milliseconds limit) {
    return std::string(name) + " " + std::to_string(limit.count()) + " ms";
  };
  if ((!established_ && over(accepted_, limits.header_timeout)) ||
      (header_since_ != kNever && over(header_since_, limits.header_timeout))) {
    context_.stats.Refuse(Refusal::kHeaderTimeout);
    return Fail("its header did not come within " + text("header_timeout", limits.header_timeout));
  }
  if (streams_.empty() && !internal_ && limits.idle_connection_timeout.count() > 0 &&
      over(last_active_, limits.idle_connection_timeout)) {
    context_.stats.Refuse(Refusal::kIdleConnectionTimeout);
    nghttp2_session_terminate_session(session_.get(), NGHTTP2_NO_ERROR);
    closing_ = true;
    return Touch();
  }
  if (ping_due() <= now) {
    context_.stats.Refuse(Refusal::kKeepaliveTimeout);
    return Fail("it did not answer a PING within " + text("keepalive_timeout", limits.keepalive_timeout));
  }
  if (established_ && pinged_ == kNever && over(last_read_, context_.limits.keepalive_time)) {
    nghttp2_submit_ping(session_.get(), NGHTTP2_FLAG_NONE, kKeepalivePing.data());
    pinged_ = now;
    Touch();
  }
  if (!output_.empty() && sending_.over(now)) return Fail("it took no reply " + TooSlow(sending_));
  CheckStreams();
  if (closed_) return;
  if (const TimePoint next = NextCheck(); next != kNever) context_.timers.Set(*this, next);
}

}  // namespace mindserve::gateway
