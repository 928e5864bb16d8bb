#include "worker/answer_line.h"

#include <utility>

namespace mindserve::worker {

void AnswerLine::Push(uint64_t call, uint64_t client, Tried why) {
  const auto [found, added] = clients_.try_emplace(client);
  if (added) {
    const bool rests = why == Tried::kOverShare || why == Tried::kTookShare;
    Clients& list = rests ? resting_ : turns_;
    found->second = list.insert(list.end(), Client{.number = client, .rests = rests, .stuck = false, .calls = {}});
  }
  auto& calls = found->second->calls;
  calls_[call] = {found->second, calls.insert(calls.end(), call)};
}

bool AnswerLine::Remove(uint64_t call) {
  const auto found = calls_.find(call);
  if (found == calls_.end()) return false;
  const auto [client, place] = found->second;
  calls_.erase(found);
  client->calls.erase(place);
  if (client->calls.empty()) Forget(client);
  return true;
}

void AnswerLine::Forget(Clients::iterator client) {
  clients_.erase(client->number);
  (client->rests ? resting_ : turns_).erase(client);
}

void AnswerLine::WakeNext() {
  if (to_wake_ == 0 || resting_.empty()) return;
  --to_wake_;
  resting_.front().rests = false;
  turns_.splice(turns_.end(), resting_, resting_.begin());
}

bool AnswerLine::Retry(uint64_t releases, const std::function<Tried(uint64_t call)>& attempt) {
  if (releases != releases_) to_wake_ = resting_.size();
  releases_ = releases;
  for (size_t tries = 0; tries < kMostTries; ++tries) {
    WakeNext();
    if (turns_.empty()) return false;
    const auto client = turns_.begin();
    const uint64_t call = client->calls.front();
    switch (attempt(call)) {
      case Tried::kFull:
        return false;
      case Tried::kTookShare:
        client->stuck = false;
        [[fallthrough]];
      case Tried::kOverShare:
        client->rests = true;
        resting_.splice(resting_.end(), turns_, client);
        break;
      case Tried::kDone:
        client->stuck = false;
        turns_.splice(turns_.end(), turns_, client);
        Remove(call);
        break;
    }
  }
  return true;
}

void AnswerLine::AddStuck(std::vector<uint64_t>* calls) {
  for (Client& client : resting_) {
    if (std::exchange(client.stuck, true)) calls->insert(calls->end(), client.calls.begin(), client.calls.end());
  }
}

}  // namespace mindserve::worker
