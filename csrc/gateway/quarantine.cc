#include "gateway/quarantine.h"

#include <algorithm>

namespace mindserve::gateway {

uint64_t Quarantine::Fingerprint(std::string_view method, std::span<const std::byte> payload) const {
  constexpr std::byte kEnd{0};
  SipHash hash(key_);
  hash.Add(std::as_bytes(std::span(method)));
  hash.Add({&kEnd, 1});
  hash.Add(payload);
  return hash.Finish();
}

void Quarantine::Extend(TimePoint now) {
  if (!UnderAttack(now)) attack_.fetch_add(1, std::memory_order_relaxed);
  until_ns_.store((now + kAttackTime).time_since_epoch().count(), std::memory_order_relaxed);
}

void Quarantine::DropOldest() {
  const auto oldest = verdicts_.find(order_.front());
  const auto size = sizes_.find(oldest->second.size);
  if (--size->second == 0) sizes_.erase(size);
  verdicts_.erase(oldest);
  order_.pop_front();
}

void Quarantine::Convict(std::string_view method, std::span<const std::byte> payload, std::string text, TimePoint now) {
  const uint64_t fingerprint = Fingerprint(method, payload);
  const std::lock_guard lock(mutex_);
  Verdict verdict{payload.size(), std::move(text), now + kAttackTime};
  if (verdicts_.insert_or_assign(fingerprint, std::move(verdict)).second) {
    ++sizes_[payload.size()];
    order_.push_back(fingerprint);
    if (order_.size() > kMostVerdicts) DropOldest();
  }
  Extend(now);
  convicted_until_ns_.store(until_ns_.load(std::memory_order_relaxed), std::memory_order_relaxed);
}

std::optional<std::string> Quarantine::VerdictOn(std::string_view method, std::span<const std::byte> payload,
                                                 TimePoint now) {
  {
    const std::lock_guard lock(mutex_);
    if (!sizes_.contains(payload.size())) return std::nullopt;  // spares most large ones the hash
  }
  const uint64_t fingerprint = Fingerprint(method, payload);
  const std::lock_guard lock(mutex_);
  const auto found = verdicts_.find(fingerprint);
  if (found == verdicts_.end() || found->second.until <= now) return std::nullopt;
  return found->second.text;
}

void Quarantine::Accuse(TimePoint now) {
  const std::lock_guard lock(mutex_);
  Extend(now);
}

void Quarantine::OnAttached() {
  const std::lock_guard lock(mutex_);
  ++workers_;
}

void Quarantine::OnDraining() {
  const std::lock_guard lock(mutex_);
  --workers_;
}

void Quarantine::OnGone(TimePoint now) {
  const std::lock_guard lock(mutex_);
  if (workers_ > 1) several_until_ = now + kAttackTime;
  --workers_;
}

bool Quarantine::HadSeveral(TimePoint now) const {
  const std::lock_guard lock(mutex_);
  return workers_ > 1 || several_until_ > now;
}

ClientTrust::Entry& ClientTrust::Of(uint64_t version) {
  const auto found = std::ranges::find(entries_, version, &Entry::version);
  if (found != entries_.end()) return *found;
  if (entries_.size() == kMostVersions) entries_.erase(entries_.begin());
  return entries_.emplace_back(Entry{version, false, std::nullopt});
}

void ClientTrust::Answered(uint64_t version) {
  Of(version).answered = true;
  last_answer_ = version;
}

void ClientTrust::Distrust(uint64_t version, uint64_t attack) {
  Of(version).distrusted_in = attack;
}

void ClientTrust::Forget(uint64_t version) {
  Of(version).answered = false;
  if (last_answer_ == version) last_answer_ = 0;
}

ClientTrust::Standing ClientTrust::StandingIn(uint64_t version, uint64_t attack) const {
  const auto found = std::ranges::find(entries_, version, &Entry::version);
  if (found == entries_.end()) return Standing::kUnknown;
  if (found->distrusted_in == attack) return Standing::kDistrusted;
  return found->answered ? Standing::kKnown : Standing::kUnknown;
}

}  // namespace mindserve::gateway
