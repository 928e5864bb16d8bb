// How much work the gateway holds, in all of its I/O threads: over all, and of a servable.
#pragma once

#include <atomic>
#include <cstddef>
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

  bool AddRequest() { return Add(requests_, 1, max_requests()); }
  void RemoveRequest() { requests_.fetch_sub(1, std::memory_order_relaxed); }
  bool AddBytes(size_t n) { return Add(bytes_, n, max_bytes()); }
  void RemoveBytes(size_t n) { bytes_.fetch_sub(n, std::memory_order_relaxed); }

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

  std::atomic<size_t> max_requests_{10'000};
  std::atomic<size_t> max_bytes_{size_t{1} << 30};
  alignas(64) std::atomic<size_t> requests_{0};
  alignas(64) std::atomic<size_t> bytes_{0};
  // When somebody was last refused; the least: never.
  alignas(64) Time requests_lacked_{Clock::duration::min().count()};
  Time bytes_lacked_{Clock::duration::min().count()};
};

// A request that was admitted; counted until this is gone.
class Ticket {
 public:
  Ticket() = default;
  // Empty if there are too many already.
  static Ticket Take(Admission& admission) { return Ticket(admission.AddRequest() ? &admission : nullptr); }
  Ticket(Ticket&& other) noexcept : admission_(std::exchange(other.admission_, nullptr)) {}
  Ticket& operator=(Ticket&& other) noexcept {
    Release();
    admission_ = std::exchange(other.admission_, nullptr);
    return *this;
  }
  ~Ticket() { Release(); }
  explicit operator bool() const { return admission_ != nullptr; }
  void Release() {
    if (auto* admission = std::exchange(admission_, nullptr)) admission->RemoveRequest();
  }

 private:
  explicit Ticket(Admission* admission) : admission_(admission) {}
  Admission* admission_ = nullptr;
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

}  // namespace mindserve::gateway
