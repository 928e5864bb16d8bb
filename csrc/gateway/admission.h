// How much work the gateway holds, in all of its I/O threads: over all, and of a servable.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/clock.h"

namespace mindserve::gateway {

// Thread-safe.
class Admission {
 public:
  void SetMaxRequests(size_t n) { max_requests_.store(n, std::memory_order_relaxed); }
  void SetMaxBytes(size_t n) { max_bytes_.store(n, std::memory_order_relaxed); }
  size_t max_requests() const { return max_requests_.load(std::memory_order_relaxed); }
  size_t max_bytes() const { return max_bytes_.load(std::memory_order_relaxed); }
  size_t requests() const { return requests_.load(std::memory_order_relaxed); }
  size_t bytes() const { return bytes_.load(std::memory_order_relaxed); }

  // `stream`: one whose client decides how long it lasts.
  bool AddRequest(bool stream, TimePoint now) {
    if (stream && !Add(streams_, 1, now < Noted(streams_leave_until_) ? max_streams() : SIZE_MAX)) return false;
    if (Add(requests_, 1, max_requests())) return true;
    if (stream) streams_.fetch_sub(1, std::memory_order_relaxed);
    return false;
  }
  void RemoveRequest(bool stream) {
    requests_.fetch_sub(1, std::memory_order_relaxed);
    if (stream) streams_.fetch_sub(1, std::memory_order_relaxed);
  }
  // From now until then streams leave a quarter of the requests that there may be, one at least, to others.
  void LimitStreams(TimePoint until) { Note(streams_leave_until_, until); }
  bool AddBytes(size_t n) { return Add(bytes_, n, max_bytes()); }
  void RemoveBytes(size_t n) { bytes_.fetch_sub(n, std::memory_order_relaxed); }
  // Of messages that have begun and are not whole.
  bool AddUnfinished(size_t n, TimePoint now) {
    const bool limited = now < Noted(unfinished_leaves_until_);
    return Add(unfinished_, n, limited ? max_bytes() - max_bytes() / 4 : SIZE_MAX) || AddAlone(n);
  }
  void RemoveUnfinished(size_t n) { unfinished_.fetch_sub(n, std::memory_order_relaxed); }
  // From now on until then such messages leave a quarter of the bytes to what comes whole, unless it is a single one.
  void LimitUnfinished(TimePoint until) { Note(unfinished_leaves_until_, until); }

  // Somebody was refused, at that time, for want of what others hold; and whether anybody was since then.
  void LackRequests(TimePoint now) { Note(requests_lacked_, now); }
  void LackBytes(TimePoint now) { Note(bytes_lacked_, now); }
  bool RequestsLacked(TimePoint since) const { return Noted(requests_lacked_) >= since; }
  bool BytesLacked(TimePoint since) const { return Noted(bytes_lacked_) >= since; }

 private:
  using Time = std::atomic<Clock::rep>;
  static void Note(Time& at, TimePoint now) { at.store(now.time_since_epoch().count(), std::memory_order_relaxed); }
  static TimePoint Noted(const Time& at) { return TimePoint(Clock::duration(at.load(std::memory_order_relaxed))); }

  static bool Add(std::atomic<size_t>& count, size_t n, size_t max) {
    // Not added first and taken back: what does not fit must not make another's fail meanwhile.
    size_t now = count.load(std::memory_order_relaxed);
    do {
      if (n > max || now > max - n) return false;
    } while (!count.compare_exchange_weak(now, now + n, std::memory_order_relaxed));
    return true;
  }

  bool AddAlone(size_t n) {
    size_t none = 0;
    return unfinished_.compare_exchange_strong(none, n, std::memory_order_relaxed);
  }
  size_t max_streams() const { return max_requests() - std::max<size_t>(max_requests() / 4, max_requests() > 1); }

  std::atomic<size_t> max_requests_{10'000};
  std::atomic<size_t> max_bytes_{size_t{1} << 30};
  alignas(64) std::atomic<size_t> requests_{0};
  std::atomic<size_t> streams_{0};
  alignas(64) std::atomic<size_t> bytes_{0};
  std::atomic<size_t> unfinished_{0};
  // When somebody was last refused; the least: never.
  alignas(64) Time requests_lacked_{Clock::duration::min().count()};
  Time bytes_lacked_{Clock::duration::min().count()};
  Time streams_leave_until_{Clock::duration::min().count()};
  Time unfinished_leaves_until_{Clock::duration::min().count()};
};

// A request that was admitted; counted until this is gone.
class Ticket {
 public:
  Ticket() = default;
  // Empty if there are too many already.
  static Ticket Take(Admission& admission, bool stream = false, TimePoint now = {}) {
    return Ticket(admission.AddRequest(stream, now) ? &admission : nullptr, stream);
  }
  Ticket(Ticket&& other) noexcept : admission_(std::exchange(other.admission_, nullptr)), stream_(other.stream_) {}
  Ticket& operator=(Ticket&& other) noexcept {
    Release();
    admission_ = std::exchange(other.admission_, nullptr);
    stream_ = other.stream_;
    return *this;
  }
  ~Ticket() { Release(); }
  explicit operator bool() const { return admission_ != nullptr; }
  void Release() {
    if (auto* admission = std::exchange(admission_, nullptr)) admission->RemoveRequest(stream_);
  }

 private:
  Ticket(Admission* admission, bool stream) : admission_(admission), stream_(stream) {}
  Admission* admission_ = nullptr;
  bool stream_ = false;
};

// Bytes that are counted until this is gone, and may become more.
class BytesTicket {
 public:
  BytesTicket() = default;
  explicit BytesTicket(Admission& admission) : admission_(&admission) {}
  BytesTicket(BytesTicket&& other) noexcept
      : admission_(std::exchange(other.admission_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  BytesTicket& operator=(BytesTicket&& other) noexcept {
    Release();
    admission_ = std::exchange(other.admission_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
    return *this;
  }
  ~BytesTicket() { Release(); }
  // False, and nothing changed, if that is more than may be.
  bool GrowTo(size_t bytes) {
    if (bytes <= bytes_) return true;
    if (!admission_->AddBytes(bytes - bytes_)) return false;
    bytes_ = bytes;
    return true;
  }

 private:
  void Release() {
    if (bytes_ > 0) admission_->RemoveBytes(std::exchange(bytes_, 0));
  }
  Admission* admission_ = nullptr;
  size_t bytes_ = 0;
};

// What a message that is not whole counts as, until this is gone.
class UnfinishedTicket {
 public:
  explicit UnfinishedTicket(Admission& admission) : admission_(admission) {}
  UnfinishedTicket(const UnfinishedTicket&) = delete;
  ~UnfinishedTicket() { Release(); }
  // False, and nothing changed, if that is more than may be.
  bool GrowTo(size_t bytes, TimePoint now) {
    if (bytes <= bytes_) return true;
    if (!admission_.AddUnfinished(bytes - bytes_, now)) return false;
    bytes_ = bytes;
    return true;
  }
  void Release() {
    if (bytes_ > 0) admission_.RemoveUnfinished(std::exchange(bytes_, 0));
  }

 private:
  Admission& admission_;
  size_t bytes_ = 0;
};

}  // namespace mindserve::gateway
