// What a session looks at besides its requests: deadlines that can't be kept, stages that hang.
#include <algorithm>

#include "link/handshake.h"
#include "worker/session.h"

namespace mindserve::worker {
namespace {

std::string Milliseconds(Duration time) {
  return std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(time).count()) + " ms";
}

}  // namespace

bool Runtime::Session::RefuseLate(size_t lane, const link::GatewayFrame& frame) {
  if (frame.deadline_ns == INT64_MAX || (frame.flags & link::kAlone) != 0) return false;
  const auto estimate = engine_.EstimateWait(frame.method, frame.client, frame.instances);
  const Duration left = TimePoint(Duration(frame.deadline_ns)) - now_;
  if (!estimate.longest || estimate.wait <= left) return false;
  engine_.CountRefused(*estimate.longest, frame.instances);
  const Status status(Code::kDeadlineExceeded, "refused by refuse_late: the deadline comes in " + Milliseconds(left) +
                                                   ", but the answer would take about " + Milliseconds(estimate.wait) +
                                                   ", most of it for " + engine_.NameOf(*estimate.longest));
  link_->SendEnd(lane, frame.call, status, link::kReleased);
  return true;
}

// Reports stages that have gone beyond their timeouts. When the next may have.
TimePoint Runtime::Session::FindHung() {
  TimePoint next = kNever;
  for (Watched& watched : runtime_.watched_) {
    if (watched.hangs) continue;
    const int64_t since = runtime_.stats_->stage(watched.number).execution.since_ns();
    if (since == 0) {
      // What waits may be taken at any moment, of which nobody tells this thread.
      if (engine_.in_flight() > 0) next = std::min(next, now_ + watched.stage.timeout);
      continue;
    }
    const TimePoint end = TimePoint(Duration(since)) + watched.stage.timeout;
    if (end > now_) {
      next = std::min(next, end);
      continue;
    }
    watched.hangs = true;
    runtime_.stats_->SayHung(watched.number);
    if (runtime_.options_.on_hung) runtime_.options_.on_hung({watched.number, Describe(watched)});
  }
  return next;
}

std::string Runtime::Session::Describe(const Watched& watched) const {
  constexpr size_t kNamed = 8;
  const auto& [kind, name, timeout] = watched.stage;
  std::string text = kind == pipeline::StageSpec::Kind::kModel ? "model '" : "function '";
  text += name + "' has run for longer than its timeout of " + Milliseconds(timeout) + "; it executes ";
  const auto executing = runtime_.stats_->stage(watched.number).execution.Read();
  if (!executing) return text + "more requests than can be named";
  for (size_t i = 0; i < executing->size() && i < kNamed; ++i) {
    const size_t lane = link::LaneOf((*executing)[i]);
    const uint64_t call = link::CallOf((*executing)[i]);
    text += i == 0 ? "" : ", ";
    text += "call " + std::to_string(call) + " of I/O thread " + std::to_string(lane);
    const auto& calls = calls_.at(lane);
    const auto found = calls.find(call);
    if (found == calls.end()) continue;
    text += " (method '" + found->second->method.name + "', connection " +
            std::to_string(found->second->context->client) + ")";
  }
  if (executing->size() > kNamed) text += ", and " + std::to_string(executing->size() - kNamed) + " more";
  return text;
}

}  // namespace mindserve::worker
