// How much work the gateway holds, in all of its I/O threads: over all, and of a servable.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "base/clock.h"

namespace mindserve::gateway {

// Thread-safe.
//
// What is there is not for those alone who hold on to it. Streams, whose clients decide how long they last, leave a
// quarter of the requests that there may be to calls that end by themselves; and of a quarter of what streams may have,
// a client gets no more when it has more than an eighth of what is left. Likewise of a quarter of all requests, for a
// minute after somebody found no place who had few. Messages that are not whole leave a quarter of the bytes to those
// that are; and what was only announced is another quarter at most.
//
// A client is a connection.
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
  // What counts besides for its client: streams; and requests that come while there are more than half as many as there
  // may be, so that those who come before cost nothing.
  enum class Kind : uint8_t { kStream, kCrowded };
  enum class Place : uint8_t { kGiven, kNone, kOverShare };
  Place AddOf(uint64_t client, Kind kind, TimePoint now);
  void RemoveOf(uint64_t client, Kind kind);
  bool crowded() const { return requests() > max_requests() / 2; }
  size_t max_streams() const { return max_requests() - max_requests() / 4; }

  bool AddBytes(size_t n) { return Add(bytes_, n, max_bytes()); }
  void RemoveBytes(size_t n) { bytes_.fetch_sub(n, std::memory_order_relaxed); }
  // Of messages that have begun and are not whole, of one of which `own` are counted already. A single one may have
  // more than these together.
  bool AddUnfinished(size_t own, size_t n) {
    return Add(unfinished_, n, max_bytes() - max_bytes() / 4) || AddAlone(unfinished_, own, n);
  }
  void RemoveUnfinished(size_t n) { unfinished_.fetch_sub(n, std::memory_order_relaxed); }
  // Of these, bytes that were announced, and that the message has from the beginning, come or not.
  bool AddClaim(size_t n) { return Add(claimed_, n, max_bytes() / 4); }
  void RemoveClaim(size_t n) { claimed_.fetch_sub(n, std::memory_order_relaxed); }

  // Somebody was refused, at that time, for want of what others hold; and whether anybody was since then.
  void LackRequests(TimePoint now) { Note(requests_lacked_, now); }
  // The same of one that finds no place at all.
  void LackPlace(uint64_t client, TimePoint now);
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

  static bool AddAlone(std::atomic<size_t>& count, size_t own, size_t n) {
    return count.compare_exchange_strong(own, own + n, std::memory_order_relaxed);
  }

  std::atomic<size_t> max_requests_{10'000};
  std::atomic<size_t> max_bytes_{size_t{1} << 30};
  alignas(64) std::atomic<size_t> requests_{0};
  alignas(64) std::atomic<size_t> bytes_{0};
  std::atomic<size_t> unfinished_{0};
  std::atomic<size_t> claimed_{0};
  // When somebody was last refused; the least: never.
  alignas(64) Time requests_lacked_{Clock::duration::min().count()};
  Time bytes_lacked_{Clock::duration::min().count()};

  struct Counts {
    size_t all = 0;
    std::unordered_map<uint64_t, size_t> of;  // each client that has any
  };
  std::mutex mutex_;
  // Guarded by mutex_.
  std::array<Counts, 2> counts_;  // by kind
  TimePoint shared_until_ = TimePoint::min();
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

// What a request counts as for its client, besides its ticket, until this is gone.
class ShareTicket {
 public:
  using Kind = Admission::Kind;
  using Place = Admission::Place;

  ShareTicket() = default;
  ShareTicket(Admission& admission, uint64_t client, Kind kind, TimePoint now)
      : client_(client), kind_(kind), place_(admission.AddOf(client, kind, now)) {
    if (place_ == Place::kGiven) admission_ = &admission;
  }
  ShareTicket(ShareTicket&& other) noexcept
      : admission_(std::exchange(other.admission_, nullptr)),
        client_(other.client_),
        kind_(other.kind_),
        place_(other.place_) {}
  ShareTicket& operator=(ShareTicket&& other) noexcept {
    Release();
    admission_ = std::exchange(other.admission_, nullptr);
    client_ = other.client_;
    kind_ = other.kind_;
    place_ = other.place_;
    return *this;
  }
  ~ShareTicket() { Release(); }
  // What became of it when it was taken.
  Place place() const { return place_; }
  void Release() {
    if (auto* admission = std::exchange(admission_, nullptr)) admission->RemoveOf(client_, kind_);
  }

 private:
  Admission* admission_ = nullptr;
  uint64_t client_ = 0;
  Kind kind_ = Kind::kStream;
  Place place_ = Place::kNone;
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
  // Somebody else counts them from now on. How many that are.
  size_t HandOver() { return std::exchange(bytes_, 0); }

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
  // Nothing is counted yet. False, and nothing changed, if that is more than may be, of this or the next.
  bool Claim(size_t bytes) {
    if (!admission_.AddClaim(bytes)) return false;
    if (!GrowTo(bytes)) {
      admission_.RemoveClaim(bytes);
      return false;
    }
    claimed_ = bytes;
    return true;
  }
  bool GrowTo(size_t bytes) {
    if (bytes <= bytes_) return true;
    if (!admission_.AddUnfinished(bytes_, bytes - bytes_)) return false;
    bytes_ = bytes;
    return true;
  }
  void Release() {
    if (bytes_ > 0) admission_.RemoveUnfinished(std::exchange(bytes_, 0));
    if (claimed_ > 0) admission_.RemoveClaim(std::exchange(claimed_, 0));
  }

 private:
  Admission& admission_;
  size_t bytes_ = 0;
  size_t claimed_ = 0;
};

}  // namespace mindserve::gateway
