#include "base/log.h"

#include <array>
#include <atomic>
#include <cstdio>
#include <memory>
#include <mutex>

namespace mindserve {
namespace {

// The only process-wide state of the native code: where its log lines go. It lives for ever, since threads may still
// log while the process ends.
struct LogState {
  std::atomic<int> level{static_cast<int>(LogLevel::kInfo)};
  std::mutex mutex;
  std::shared_ptr<const LogSink> sink;  // guarded by mutex; shared with the callers that are inside it right now
};

LogState& State() {
  static LogState* state = new LogState;
  return *state;
}

}  // namespace

void SetLogSink(LogSink sink) {
  auto shared = sink ? std::make_shared<const LogSink>(std::move(sink)) : nullptr;
  std::lock_guard lock(State().mutex);
  State().sink.swap(shared);
}

void SetLogLevel(LogLevel level) {
  State().level = static_cast<int>(level);
}

bool LogEnabled(LogLevel level) {
  return static_cast<int>(level) >= State().level.load(std::memory_order_relaxed);
}

void Log(LogLevel level, std::string_view message) {
  if (!LogEnabled(level)) return;
  std::shared_ptr<const LogSink> sink;
  {
    std::lock_guard lock(State().mutex);
    sink = State().sink;
  }
  if (sink) {
    (*sink)(level, message);
    return;
  }
  static constexpr std::array<const char*, 4> kNames = {"DEBUG", "INFO", "WARNING", "ERROR"};
  std::fprintf(stderr, "[%s] %.*s\n", kNames[static_cast<size_t>(level)], static_cast<int>(message.size()),
               message.data());
}

}  // namespace mindserve
