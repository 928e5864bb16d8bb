// Calls from inside the process into what the gateway serves: answered as those by gRPC, without a connection.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/status.h"
#include "gateway/direct_call.h"
#include "gateway/direct_events.h"

namespace mindserve::gateway {

class DirectDoor;

// Thread-safe. May outlive its gateway: calls end UNAVAILABLE then. When it is destroyed its calls are cancelled.
class DirectCalls {
 public:
  // `doors` of all I/O threads; clients have theirs by turns.
  static Result<std::unique_ptr<DirectCalls>> Create(std::vector<std::shared_ptr<DirectDoor>> doors);
  ~DirectCalls();
  DirectCalls(const DirectCalls&) = delete;

  // Readable while Take gives anything.
  int fd() const { return events_->fd(); }

  // Begins a call; returns its number, which is not used again. Whatever is wrong with it is told by its end.
  uint64_t Start(DirectRequest request);
  // What has happened since: of each call in order, at most once kInitial, any number of kMessage, once kEnd. After it
  // was looked at it has to be given back.
  void Take(std::vector<DirectEvent>* events) { events_->Take(events); }
  void GiveBack(std::vector<DirectEvent> events);
  // So many messages of the call that were taken have gone further: see DirectEvents. No-op for a call whose end was
  // taken, as is Cancel.
  void Consumed(uint64_t call, size_t count) { events_->Consumed(call, count); }
  // The call is given up, and ends so; messages that may not yet be taken are dropped.
  void Cancel(uint64_t call, Status status = {Code::kCancelled, "the call was given up"});

 private:
  DirectCalls(std::vector<std::shared_ptr<DirectDoor>> doors, std::shared_ptr<DirectEvents> events)
      : doors_(std::move(doors)), events_(std::move(events)) {}
  void EndCalls(DirectEvents::GivenUp given_up, const Status& status);

  const std::vector<std::shared_ptr<DirectDoor>> doors_;  // shared as they say themselves
  const std::shared_ptr<DirectEvents> events_;            // the same
};

}  // namespace mindserve::gateway
