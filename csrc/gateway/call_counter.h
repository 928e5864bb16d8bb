// What one call adds to the counts, whatever it came by.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/clock.h"
#include "base/status.h"
#include "gateway/call_stats.h"

namespace mindserve::gateway {

// Belongs to the call. Its counts live until it has ended.
class CallCounter {
 public:
  // A call begins, which is not counted as anything.
  void Begin(TimePoint now) {
    As(nullptr);
    begun_ = now;
    bytes_in_ = bytes_out_ = 0;
  }
  // From now on it is counted as one of these. Null: not at all.
  void As(MethodCounts* counts) {
    if (counts_ != nullptr) --counts_->under_way;
    counts_ = counts;
    if (counts_ != nullptr) ++counts_->under_way;
  }
  void AddIn(size_t bytes) { bytes_in_ += bytes; }
  void AddOut(size_t bytes) { bytes_out_ += bytes; }
  // It has ended; what is added later counts no more.
  void End(CallStats& stats, Code code, TimePoint now) {
    MethodCounts* counts = counts_;
    if (counts == nullptr) return;
    As(nullptr);
    ++counts->ended[static_cast<size_t>(code)];
    if (code == Code::kOk) stats.replies.Add();
    counts->bytes_in += bytes_in_;
    counts->bytes_out += bytes_out_;
    counts->latency_ns.AddTime(now - begun_);
  }

 private:
  MethodCounts* counts_ = nullptr;  // null: not to be counted, or counted already
  TimePoint begun_;
  uint64_t bytes_in_ = 0;
  uint64_t bytes_out_ = 0;
};

}  // namespace mindserve::gateway
