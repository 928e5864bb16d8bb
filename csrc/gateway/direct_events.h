// What calls from inside the process are told, on its way from the I/O threads to whoever made them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "base/unique_fd.h"
#include "gateway/call.h"

namespace mindserve::gateway {

class DirectCall;

struct DirectEvent {
  enum class Kind : uint8_t { kInitial, kMessage, kEnd };
  uint64_t call = 0;
  Kind kind = Kind::kEnd;
  size_t thread = 0;       // the I/O thread that what is lent goes back to
  Metadata metadata = {};  // initial or trailing
  Reply message = {};
  Status status = {};  // of an end
};

// Shared by a DirectCalls and those of its calls that go on. Thread-safe; never waits for who takes.
class DirectEvents {
 public:
  // Of one call no more messages are taken than these before Consumed, one at least; the others are held as they were
  // lent, which holds back who sends them.
  static constexpr size_t kMostMessages = 16;
  static constexpr size_t kMostBytes = size_t{1} << 20;

  static Result<std::shared_ptr<DirectEvents>> Create();

  int fd() const { return event_.get(); }
  uint64_t NextNumber();
  // Calls are told of only between this and their end.
  void Add(uint64_t call, const std::shared_ptr<DirectCall>& direct, size_t thread);

  // On the I/O thread of the call, to which alone lent parts may be given back; or an end, on any.
  void Put(DirectEvent event);

  // Everything that may be taken. Lent parts go back by way of their thread.
  void Take(std::vector<DirectEvent>* events);
  void Consumed(uint64_t call, size_t count);

  // A call that is given up, or several.
  struct GivenUp {
    std::vector<std::pair<size_t, std::shared_ptr<DirectCall>>> going_on;  // with their threads
    std::vector<DirectEvent> dropped;
  };
  // The call will end with `status`, if its end has not been put where it may be taken.
  GivenUp GiveUp(uint64_t call, Status status);
  // All calls, and nobody takes any more.
  GivenUp Close();

 private:
  struct Open {
    std::weak_ptr<DirectCall> call;  // empty once it has ended
    size_t thread = 0;
    std::deque<size_t> given;  // sizes of messages that may be taken, or were, and are not consumed
    size_t given_bytes = 0;
    std::deque<DirectEvent> held;  // messages, and then maybe the end
    Status given_up;               // not OK: it is, and ends so
    bool HasRoom() const { return given.empty() || (given.size() < kMostMessages && given_bytes < kMostBytes); }
  };
  explicit DirectEvents(UniqueFd event) : event_(std::move(event)) {}
  void Ready(DirectEvent event);

  const UniqueFd event_;  // an eventfd
  std::mutex mutex_;      // guards what follows
  uint64_t next_ = 1;
  std::unordered_map<uint64_t, Open> open_;  // calls whose end is not in ready_
  std::vector<DirectEvent> ready_;
};

}  // namespace mindserve::gateway
