// grpc.reflection.v1 and v1alpha: what is served, and its .proto files, for clients that have none.
#pragma once

#include <cstddef>
#include <memory>

#include "gateway/call.h"
#include "gateway/served.h"

namespace mindserve::gateway {

inline constexpr const char* kReflectionV1Path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
inline constexpr const char* kReflectionV1AlphaPath = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

// Of one stream, what may wait to be sent before another question is refused: a client that asks on and on without
// reading what it is told.
inline constexpr size_t kMostUnsentAnswers = 1'000;
inline constexpr size_t kMostUnsentAnswerBytes = size_t{16} << 20;

class ReflectionService final : public Service {
 public:
  // `served` is the thread's, and may come to be another; set before the first call.
  ReflectionService(MethodCounts& counts, const std::shared_ptr<const Served>& served)
      : Service(counts), served_(served) {}
  bool client_streaming() const override { return true; }
  std::unique_ptr<CallHandler> Start(Call& call) override;

 private:
  const std::shared_ptr<const Served>& served_;
};

}  // namespace mindserve::gateway
