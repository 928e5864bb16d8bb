// What the connections of one I/O thread use together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/log.h"
#include "gateway/call_stats.h"
#include "gateway/child_calls.h"
#include "gateway/http2_session.h"
#include "gateway/limits.h"
#include "gateway/request_id.h"
#include "gateway/request_memory.h"
#include "gateway/service_table.h"
#include "gateway/timer_heap.h"
#include "net/event_loop.h"

namespace mindserve::gateway {

class GrpcStream;
class Http2Connection;
class TokenCache;

// A line at most so often, so that nobody can fill the log. Belongs to one thread.
class LimitedLog {
 public:
  void Warn(TimePoint now, std::string_view line) {
    if (now - since_ >= std::chrono::seconds(1)) {
      if (dropped_ > 0) Log(LogLevel::kWarning, std::to_string(dropped_) + " more warnings like it were left out");
      since_ = now;
      lines_ = dropped_ = 0;
    }
    constexpr int kLinesPerSecond = 10;
    if (lines_ == kLinesPerSecond) {
      ++dropped_;
      return;
    }
    ++lines_;
    Log(LogLevel::kWarning, line);
  }

 private:
  TimePoint since_;
  int lines_ = 0;
  int dropped_ = 0;
};

struct ThreadContext {
  ThreadContext(size_t its_number, net::EventLoop& its_loop, RequestMemory& its_memory, ChildCalls& all_children);
  ~ThreadContext();

  // The service of a path; null: none.
  Service* FindService(std::string_view path) {
    // What is called is mostly what was called before: to compare costs a tenth of looking it up.
    if (last_served == nullptr || last_served->first != path) {
      const auto found = services.find(path);
      if (found == services.end()) return nullptr;
      last_served = &*found;
    }
    return last_served->second.get();
  }

  const size_t number;  // among the gateway's I/O threads
  net::EventLoop& loop;
  RequestMemory& memory;
  ChildCalls& children;  // of all threads
  Limits limits;
  std::shared_ptr<const Http2Settings> http2;  // shared by the thread and the connections made while it was in force
  ServiceTable services;
  const ServiceTable::value_type* last_served = nullptr;  // of them; forgotten before any of them goes
  TokenCache* tokens = nullptr;                           // the thread's; null: nobody is asked who they are
  TimerHeap timers;
  CallStats stats;
  MethodCounts& unserved = stats.Of({});  // calls of what no service is there for
  LimitedLog log;
  RequestKeys keys;
  TimePoint now;                                        // when this round began
  TimePoint answers_lacked = TimePoint::min();          // a worker had no memory for answers to this thread's clients
  uint64_t next_client = (uint64_t{number} << 48) + 1;  // unlike any other thread's

  std::vector<std::byte> read_buffer = std::vector<std::byte>(256 * 1024);
  std::vector<Http2Connection*> dirty;  // have something to write, or are to be closed, at the end of the round
  std::vector<std::unique_ptr<GrpcStream>> spare_streams;
};

}  // namespace mindserve::gateway
