// Requests that kill workers, told from their neighbours and kept from taking a version of a servable from others.
//
// A request is set aside (convicted) when a worker died while it executed nothing else. From then on, for kAttackTime
// after the last conviction or accusation, the version is *under attack*:
//   - the connection that sent it is distrusted: all of its requests to the version are suspects;
//   - a request with the same bytes for the same method is refused with the text of the conviction;
//   - a connection that has not had an answer from the version yet is suspect until it has one;
//   - suspects are executed alone, and only by one worker: the routable one with the highest id, which is the same for
//     all I/O threads without a word between them; and only while there is another. Where there is none, they wait for
//     one to be attached: those of connections that are known come first (they are suspects because a worker died while
//     it executed them among others), those of distrusted ones last;
//   - all other requests avoid that worker as long as they can.
// So what kills workers meets the same place again and again, and what the others use stays: each death costs the
// attacker a request and the service the one worker that is kept for suspects.
//
// A version that had several workers and loses the last of them while it executed something goes under attack too,
// without a conviction: those whose requests were executed are as if they had not had an answer yet (accused). Else a
// flood whose requests die with all workers at once would never have one executed alone. As long as nothing is
// convicted suspects may go to the only worker that there is, since the deaths may have had another cause: if it dies
// too, what it executed alone is convicted.
//
// Where this fails:
//   - the first burst, before anything is known, can take all workers once;
//   - a connection that was answered before it sends its first killer has that one executed among the others, so that
//     it costs one worker of each kind; connections that behave at first, one killer each, cost as much each time;
//   - a request that its client has given up by the time it kills is not executed again, and so never convicted;
//   - requests of others that come over the same connection (of a proxy) are distrusted with it;
//   - during an attack new connections of honest clients wait behind those of the attacker for their first answer;
//   - a version with one worker has no other to find anything out by, and no protection;
//   - a request of a method that is not idempotent is not executed again, and so is convicted only if it was executed
//     alone at first, as a suspect.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/siphash.h"
#include "gateway/admission.h"

namespace mindserve::gateway {

// How long after the last conviction or accusation a version counts as under attack.
inline constexpr std::chrono::seconds kAttackTime{60};

// What is known of one version of a servable. Thread-safe; outside of an attack a request costs one look at an atomic.
class Quarantine {
 public:
  // Of so many convicted requests the bytes are known again; of more the latest.
  static constexpr size_t kMostVerdicts = 1024;

  bool UnderAttack(TimePoint now) const {
    return until_ns_.load(std::memory_order_relaxed) > now.time_since_epoch().count();
  }
  // Whether any was convicted in this attack. Before, the last worker may be risked: what it then dies of is known.
  bool HasConvicted(TimePoint now) const {
    return convicted_until_ns_.load(std::memory_order_relaxed) > now.time_since_epoch().count();
  }
  // Different for each attack.
  uint64_t attack() const { return attack_.load(std::memory_order_relaxed); }

  // Such a request was set aside. `text` is what its likes are answered.
  void Convict(std::string_view method, std::span<const std::byte> payload, std::string text, TimePoint now);
  // The text for a request that was convicted not longer than kAttackTime ago.
  std::optional<std::string> VerdictOn(std::string_view method, std::span<const std::byte> payload, TimePoint now);
  // Requests died with the last worker, of which there had been several.
  void Accuse(TimePoint now);

  // Workers of the version come and go. One that drains has gone by that, in order: who replaces one by another never
  // had several.
  void OnAttached();
  void OnDraining();
  void OnGone(TimePoint now);
  // Whether it had more than one worker at a time, not longer than kAttackTime ago.
  bool HadSeveral(TimePoint now) const;

 private:
  uint64_t Fingerprint(std::string_view method, std::span<const std::byte> payload) const;
  void Extend(TimePoint now);
  void DropOldest();

  const SipHash::Key key_ = SipHash::RandomKey();
  std::atomic<int64_t> until_ns_{0};
  std::atomic<int64_t> convicted_until_ns_{0};
  std::atomic<uint64_t> attack_{0};
  struct Verdict {
    size_t size = 0;
    std::string text;
    TimePoint until;
  };
  mutable std::mutex mutex_;                        // guards what follows
  std::unordered_map<uint64_t, Verdict> verdicts_;  // by fingerprint
  std::unordered_map<size_t, size_t> sizes_;        // how many of them are of that size
  std::deque<uint64_t> order_;                      // of the verdicts, the oldest first
  size_t workers_ = 0;
  TimePoint several_until_{};
};

// What all I/O threads share of a version of a servable. Owned by the gateway and by the version's workers.
struct VersionState {
  const uint64_t number;                       // different for each; not 0
  const uint64_t version;                      // of the servable
  const std::shared_ptr<Admission> admission;  // of the servable, in all of its versions
  Quarantine quarantine;
};

// What versions know of a connection. Belongs to the connection.
class ClientTrust {
 public:
  // Of so many versions something is known, of more those that came last: a connection may outlive any number of them.
  static constexpr size_t kMostVersions = 64;

  // It had an answer from the version.
  void OnAnswer(uint64_t version) {
    if (version != last_answer_) Answered(version);
  }
  // A request that it sent was convicted, in this attack.
  void Distrust(uint64_t version, uint64_t attack);
  // As if it had not had an answer.
  void Forget(uint64_t version);
  // How it stands in this attack. All but kKnown: its requests are suspects.
  enum class Standing : uint8_t { kKnown, kUnknown, kDistrusted };
  Standing StandingIn(uint64_t version, uint64_t attack) const;

 private:
  struct Entry {
    uint64_t version;
    bool answered = false;
    std::optional<uint64_t> distrusted_in;
  };
  void Answered(uint64_t version);
  Entry& Of(uint64_t version);
  uint64_t last_answer_ = 0;  // a version that is known to have answered; 0: none
  std::vector<Entry> entries_;
};

}  // namespace mindserve::gateway
