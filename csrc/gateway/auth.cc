#include "gateway/auth.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "base/utf8.h"

namespace mindserve::gateway {
namespace {

constexpr double kSecond = 1e9;  // in ns

// A number as people write it: 5, or 0.5.
std::string Shown(double value) {
  std::string text = std::to_string(value);
  while (text.ends_with('0')) text.pop_back();
  if (text.ends_with('.')) text.pop_back();
  return text;
}

int64_t Nanoseconds(double value) {
  return static_cast<int64_t>(std::min(value, 1e18));
}

bool IsTokenCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
}

bool EqualsIgnoringCase(std::string_view text, std::string_view lower) {
  return std::ranges::equal(
      text, lower, [](char a, char b) { return (a >= 'A' && a <= 'Z' ? static_cast<char>(a - 'A' + 'a') : a) == b; });
}

Status Unauthenticated(std::string text) {
  return {Code::kUnauthenticated, std::move(text)};
}

}  // namespace

ClientIdentity::ClientIdentity(Spec spec, const ClientIdentity* before)
    : spec_(std::move(spec)),
      interval_ns_(spec_.rate > 0 ? Nanoseconds(kSecond / spec_.rate) : 0),
      tolerance_ns_(spec_.rate > 0 ? Nanoseconds(std::max(spec_.burst - 1, 0.0) * kSecond / spec_.rate) : 0),
      usage_(before != nullptr ? before->usage_ : std::make_shared<Usage>()) {}

Status ClientIdentity::Check(std::string_view servable) const {
  if (MayCall(servable)) return Status::Ok();
  return {Code::kPermissionDenied, "client '" + spec_.name + "' may not call servable '" +
                                       std::string(CutUtf8(servable, 256)) + "': its key does not list it"};
}

Status ClientIdentity::DenyAll(std::string_view what) const {
  return {Code::kPermissionDenied, "client '" + spec_.name + "' may call no servable that answers " +
                                       std::string(what) + ": its key lists none"};
}

std::optional<ClientPass::Refused> ClientPass::Enter(std::shared_ptr<const ClientIdentity> identity, TimePoint now) {
  Leave();
  const ClientIdentity::Spec& spec = identity->spec_;
  ClientIdentity::Usage& usage = *identity->usage_;
  if (spec.max_in_flight > 0) {
    if (usage.in_flight.fetch_add(1, std::memory_order_relaxed) >= spec.max_in_flight) {
      usage.in_flight.fetch_sub(1, std::memory_order_relaxed);
      return Refused{
          .status = {Code::kResourceExhausted, "client '" + spec.name + "' has " + std::to_string(spec.max_in_flight) +
                                                   " calls under way, as many as its max_in_flight allows"},
          .by_rate = false,
          .retry = std::chrono::milliseconds(100)};
    }
    counted_ = true;
  }
  identity_ = std::move(identity);
  if (spec.rate > 0) {
    // The generic cell rate algorithm: one number says how far the client is ahead of its rate.
    const int64_t at = std::chrono::duration_cast<Duration>(now.time_since_epoch()).count();
    int64_t busy = usage.busy_until.load(std::memory_order_relaxed);
    for (;;) {
      const int64_t begin = std::max(busy, at);
      const int64_t wait = begin - at - identity_->tolerance_ns_;
      if (wait > 0) {
        Refused refused{.status = {Code::kResourceExhausted,
                                   "client '" + spec.name + "' makes more calls than its rate of " + Shown(spec.rate) +
                                       " a second (burst " + Shown(spec.burst) + ") allows"},
                        .by_rate = true,
                        .retry = std::chrono::ceil<std::chrono::milliseconds>(Duration(wait))};
        Leave();
        return refused;
      }
      if (usage.busy_until.compare_exchange_weak(busy, begin + identity_->interval_ns_, std::memory_order_relaxed))
        break;
    }
  }
  return std::nullopt;
}

void ClientPass::Leave() {
  if (identity_ == nullptr) return;
  if (std::exchange(counted_, false)) identity_->usage_->in_flight.fetch_sub(1, std::memory_order_relaxed);
  identity_.reset();
}

Status NoCredentials() {
  return Unauthenticated(
      "the call carries no token: expected metadata 'authorization' with 'Bearer' and a token, or 'oauth_token'");
}

Result<std::string_view> TokenOf(std::string_view authorization, std::string_view oauth_token) {
  std::string_view token = oauth_token;
  if (token.empty()) {
    const size_t space = authorization.find(' ');
    const std::string_view scheme = authorization.substr(0, space);
    if (!EqualsIgnoringCase(scheme, "bearer")) {
      // What is no scheme may be a secret.
      const bool shown = space != std::string_view::npos && scheme.size() <= 16;
      return Unauthenticated("metadata 'authorization' has " +
                             (shown ? "the scheme '" + std::string(CutUtf8(scheme, 16)) + "'" : "no scheme") +
                             ", expected 'Bearer' and a token");
    }
    token = space == std::string_view::npos ? std::string_view() : authorization.substr(space);
    while (token.starts_with(' ')) token.remove_prefix(1);
  }
  // It must not be taken for the names of a certificate.
  if (token.starts_with('\n')) return Unauthenticated("the token begins with a line break");
  return token;
}

Status CheckToken(std::string_view token) {
  if (token.size() > kMaxTokenBytes) {
    return Unauthenticated("the token has " + std::to_string(token.size()) + " bytes, expected at most " +
                           std::to_string(kMaxTokenBytes));
  }
  if (!std::ranges::all_of(token, IsTokenCharacter) || std::ranges::count(token, '.') != 2) {
    return Unauthenticated("the token is no JWT: expected three parts in base64url, with dots between them");
  }
  return Status::Ok();
}

std::string CertificateNames(const net::AuthProperties& auth) {
  std::string names;
  for (const auto& [name, value] : auth) {
    if (name != "x509_common_name" && name != "x509_subject_alternative_name") continue;
    if (!value.empty() && value.find('\n') == std::string::npos) names.append("\n").append(value);
  }
  return names;
}

// --- TokenQueue ---

bool TokenQueue::Put(Question question) {
  {
    const std::lock_guard lock(mutex_);
    if (closed_ || waiting_.size() >= kMostWaiting) return false;
    waiting_.push_back(std::move(question));
  }
  changed_.notify_one();
  return true;
}

std::vector<TokenQueue::Question> TokenQueue::Take(size_t most) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return closed_ || !waiting_.empty(); });
  std::vector<Question> taken;
  if (closed_) return taken;
  const auto end = waiting_.begin() + static_cast<ptrdiff_t>(std::min(most, waiting_.size()));
  std::move(waiting_.begin(), end, std::back_inserter(taken));
  waiting_.erase(waiting_.begin(), end);
  if (!waiting_.empty()) changed_.notify_one();
  return taken;
}

void TokenQueue::Close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    waiting_.clear();
  }
  changed_.notify_all();
}

// --- TokenCache ---

TokenCache::Known* TokenCache::Kept::Find(std::string_view text) {
  const auto found = by_text.find(text);
  if (found == by_text.end()) return nullptr;
  by_use.splice(by_use.begin(), by_use, found->second);
  return &*found->second;
}

void TokenCache::Kept::Erase(std::string_view text) {
  const auto found = by_text.find(text);
  if (found == by_text.end()) return;
  const auto at = found->second;
  by_text.erase(found);
  by_use.erase(at);
}

void TokenCache::Kept::Add(Known known) {
  Erase(known.text);
  if (by_use.size() >= kMostKept) {
    by_text.erase(by_use.back().text);
    by_use.pop_back();
  }
  by_use.push_front(std::move(known));
  by_text[by_use.front().text] = by_use.begin();
}

void TokenCache::Kept::Clear() {
  by_text.clear();
  by_use.clear();
}

const TokenCache::Verdict* TokenCache::Find(std::string_view text, TimePoint now) {
  if (last_ != nullptr && now < last_->verdict.expires && last_->text == text) [[likely]]
    return &last_->verdict;
  if (const Known* known = good_.Find(text); known != nullptr && now < known->verdict.expires) {
    last_ = known;
    return &known->verdict;
  }
  if (const Known* known = bad_.Find(text); known != nullptr && now < known->verdict.expires) return &known->verdict;
  return nullptr;
}

bool TokenCache::Await(std::string_view text, Waiter& waiter) {
  if (waiting_calls_ >= kMostWaitingCalls) return false;
  auto found = pending_.find(text);
  if (found == pending_.end()) {
    if (!queue_.Put({.thread = thread_, .generation = generation_, .text = std::string(text)})) return false;
    found = pending_.emplace(text, std::list<Waiter*>()).first;
  }
  waiter.line_ = &found->second;
  waiter.at_ = found->second.insert(found->second.end(), &waiter);
  ++waiting_calls_;
  return true;
}

void TokenCache::Leave(Waiter& waiter) {
  if (waiter.line_ == nullptr) return;
  waiter.line_->erase(waiter.at_);
  waiter.line_ = nullptr;
  --waiting_calls_;
}

void TokenCache::OnVerdict(const std::string& text, uint64_t generation, const Verdict& verdict) {
  if (generation != generation_) return;  // it is asked again
  last_ = nullptr;
  good_.Erase(text);
  bad_.Erase(text);
  (verdict.identity != nullptr ? good_ : bad_).Add({text, verdict});
  // From now on it is known, also to those that come while the waiting are told.
  auto pending = pending_.extract(text);
  if (!pending.empty()) Answer(std::move(pending.mapped()), verdict);
}

void TokenCache::Answer(std::list<Waiter*> waiting, const Verdict& verdict) {
  for (Waiter* waiter : waiting) waiter->line_ = &waiting;
  while (!waiting.empty()) {  // to tell one may make others leave
    Waiter& waiter = *waiting.front();
    Leave(waiter);
    waiter.OnVerdict(verdict);
  }
}

void TokenCache::Forget() {
  ++generation_;
  last_ = nullptr;
  good_.Clear();
  bad_.Clear();
  Pending lost;
  for (auto pending = pending_.begin(); pending != pending_.end();) {
    const auto next = std::next(pending);
    if (!queue_.Put({.thread = thread_, .generation = generation_, .text = pending->first})) {
      lost.insert(pending_.extract(pending));
    }
    pending = next;
  }
  for (auto& [text, waiting] : lost) {
    Answer(std::move(waiting),
           {.identity = nullptr, .refusal = {Code::kResourceExhausted, "too many tokens wait to be verified"}});
  }
}

}  // namespace mindserve::gateway
