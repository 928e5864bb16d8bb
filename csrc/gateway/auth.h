// Who makes a call, and what that one may: clients, what is known of their tokens, and the line of those that nobody
// has looked at yet. What a token or a certificate is worth is decided outside (Python): here it is asked and kept.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "net/transport.h"

namespace mindserve::gateway {

// A client, as the keys have it. What it may is fixed; what it does is counted. Shared by the verdicts on its tokens
// and by its calls, on all threads.
class ClientIdentity {
 public:
  struct Spec {
    std::string name;
    std::optional<std::set<std::string, std::less<>>> servables = {};  // that it may call; nothing: all
    double rate = 0;                                                   // calls a second; 0: no limit
    double burst = 1;                                                  // calls at once; only with a rate
    uint64_t max_in_flight = 0;                                        // calls at a time; 0: no limit
  };
  // `before`: the same client under other terms, whose counts go on. Null: there was none.
  explicit ClientIdentity(Spec spec, const ClientIdentity* before = nullptr);

  const std::string& name() const { return spec_.name; }
  bool MayCall(std::string_view servable) const { return !spec_.servables || spec_.servables->contains(servable); }
  // PERMISSION_DENIED for one that it may not call; else OK.
  Status Check(std::string_view servable) const;
  // PERMISSION_DENIED for a call that names nobody, where it may call nobody who answers `what`. Names none of them.
  Status DenyAll(std::string_view what) const;

 private:
  friend class ClientPass;
  struct Usage {
    std::atomic<int64_t> busy_until{0};  // of an ideal server of its rate: time since the clock's epoch in ns
    std::atomic<uint64_t> in_flight{0};
  };

  const Spec spec_;
  const int64_t interval_ns_;
  const int64_t tolerance_ns_;
  const std::shared_ptr<Usage> usage_;  // shared by the identities that follow one another
};

// A call's place among its client's.
class ClientPass {
 public:
  struct Refused {
    Status status;                    // RESOURCE_EXHAUSTED
    bool by_rate = false;             // else by max_in_flight
    std::chrono::milliseconds retry;  // when it is worth trying again
  };

  ClientPass() = default;
  ClientPass(ClientPass&& other) noexcept : identity_(std::move(other.identity_)), counted_(other.counted_) {
    other.counted_ = false;
  }
  ClientPass& operator=(ClientPass&& other) noexcept {
    Leave();
    identity_ = std::move(other.identity_);
    counted_ = std::exchange(other.counted_, false);
    return *this;
  }
  ~ClientPass() { Leave(); }

  // Nothing: it is in.
  std::optional<Refused> Enter(std::shared_ptr<const ClientIdentity> identity, TimePoint now);
  void Leave();
  const ClientIdentity* identity() const { return identity_.get(); }

 private:
  std::shared_ptr<const ClientIdentity> identity_;
  bool counted_ = false;
};

// What a call shows of whom it comes from, as one text: its token, or else the names in its client's certificate, each
// behind a line break, which no token has.
inline constexpr size_t kMaxTokenBytes = 8 * 1024;
// UNAUTHENTICATED: there is none. `authorization`, `oauth_token`: the metadata.
Result<std::string_view> TokenOf(std::string_view authorization, std::string_view oauth_token);
// UNAUTHENTICATED for what can be no token, so that nobody has to look at it. Costs more than to find one that is
// known.
Status CheckToken(std::string_view token);
// Empty: there are none.
std::string CertificateNames(const net::AuthProperties& auth);
Status NoCredentials();

// Texts that wait to be looked at, of all I/O threads. Thread-safe.
class TokenQueue {
 public:
  static constexpr size_t kMostWaiting = 1'000;
  struct Question {
    size_t thread = 0;        // who asks
    uint64_t generation = 0;  // of the keys that it asks about
    std::string text;
  };

  // False: too many wait, or nobody will look.
  bool Put(Question question);
  // Waits until there is one. None: it was closed.
  std::vector<Question> Take(size_t most);
  void Close();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Question> waiting_;  // these two guarded by mutex_
  bool closed_ = false;
};

// What an I/O thread knows of tokens. Bad ones have places of their own, so that a flood of them drives no good one
// out.
class TokenCache {
 public:
  static constexpr size_t kMostKept = 10'000;          // of good ones, and of bad ones
  static constexpr size_t kMostWaitingCalls = 10'000;  // over all texts

  struct Verdict {
    std::shared_ptr<const ClientIdentity> identity;  // null: refused
    Status refusal;
    TimePoint expires = kNever;
  };
  // A call that waits for a verdict.
  class Waiter {
   public:
    virtual ~Waiter() = default;
    virtual void OnVerdict(const Verdict& verdict) = 0;

   private:
    friend class TokenCache;
    std::list<Waiter*>* line_ = nullptr;
    std::list<Waiter*>::iterator at_;
  };

  // `queue` outlives the cache.
  TokenCache(TokenQueue& queue, size_t thread) : queue_(queue), thread_(thread) {}

  // Null: it is not known.
  const Verdict* Find(std::string_view text, TimePoint now);
  // Calls the waiter once the text is known, unless it has left. False: too many wait.
  bool Await(std::string_view text, Waiter& waiter);
  void Leave(Waiter& waiter);

  // An answer to a question of this generation.
  void OnVerdict(const std::string& text, uint64_t generation, const Verdict& verdict);
  // The keys have changed: what was known holds no more.
  void Forget();

 private:
  struct Known {
    std::string text;
    Verdict verdict;
  };
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  struct Kept {
    std::list<Known> by_use;  // the last used first
    std::unordered_map<std::string_view, std::list<Known>::iterator> by_text;

    Known* Find(std::string_view text);
    void Erase(std::string_view text);
    void Add(Known known);
    void Clear();
  };
  using Pending = std::unordered_map<std::string, std::list<Waiter*>, Hash, std::equal_to<>>;

  void Answer(std::list<Waiter*> waiting, const Verdict& verdict);

  TokenQueue& queue_;
  const size_t thread_;
  uint64_t generation_ = 0;
  Kept good_;
  Kept bad_;
  const Known* last_ = nullptr;  // one of good_: what comes is mostly what came before
  Pending pending_;
  size_t waiting_calls_ = 0;
};

}  // namespace mindserve::gateway
