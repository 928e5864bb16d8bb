// Mirrored traffic: copies of calls, for who is to be tried with them. Nobody waits for their answers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "base/request_key.h"
#include "gateway/admission.h"
#include "gateway/call.h"
#include "gateway/call_stats.h"
#include "gateway/request.h"
#include "gateway/router.h"
#include "gateway/thread_context.h"
#include "gateway/traffic.h"
#include "gateway/worker_calls.h"

namespace mindserve::gateway {

class MirroredCall;

// The copies of an I/O thread. They share the bytes of the calls that they are copies of, are bounded by themselves,
// and are given up for whatever reason there may be: to the call nothing comes of them. Not copied are calls by this
// server's own workers, which might be such copies' own.
class Mirrors {
 public:
  // All outlive it. `admission` counts the copies of all threads, and the bytes that they keep.
  Mirrors(ThreadContext& context, Admission& admission, Router& router, Traffic& traffic, WorkerCalls& calls);
  ~Mirrors();

  // The call, which goes to `variation` with `request`, may go to the mirrors of its split too. After it was sent.
  // `payload`: its instances, of Predict; nothing: a unary call of a user's service. `key`: the copies have the call's.
  void Offer(const Variation& variation, std::string_view method, const Call& call,
             const std::shared_ptr<Request>& request, const std::optional<WorkerCalls::Payload>& payload,
             const RequestKey& key);

 private:
  friend class MirroredCall;
  void Send(Mirror& mirror, std::string_view method, const Call& call, const std::shared_ptr<Request>& request,
            const std::optional<WorkerCalls::Payload>& payload, const RequestKey& key);

  ThreadContext& context_;
  Admission& admission_;
  Router& router_;
  Traffic& traffic_;
  WorkerCalls& calls_;
  std::list<std::unique_ptr<MirroredCall>> under_way_;
  std::vector<Router::Target> targets_;  // reused from call to call
};

}  // namespace mindserve::gateway
