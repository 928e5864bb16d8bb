// Lines for the log. Native code has no log file of its own: the embedding program gives a sink (the bindings hand
// lines to Python's logging); until then lines go to stderr.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace mindserve {

// The numbers are GLOG_v's (0 debug ... 3 error).
enum class LogLevel : int { kDebug = 0, kInfo = 1, kWarning = 2, kError = 3 };

// May be called from any thread, also at once; must not block for long and must not log.
using LogSink = std::function<void(LogLevel level, std::string_view message)>;

// Replaces the sink; an empty one means stderr. Thread-safe.
void SetLogSink(LogSink sink);

// Lines below `level` are dropped before they cost. Thread-safe. Default kInfo.
void SetLogLevel(LogLevel level);
bool LogEnabled(LogLevel level);

// Writes one line: "[WARNING] message". Never on a request's normal path. Thread-safe.
void Log(LogLevel level, std::string_view message);

}  // namespace mindserve
