// grpc.reflection.v1 and v1alpha: what is served, and its .proto files, for clients that have none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>

#include "gateway/call.h"
#include "gateway/request_memory.h"
#include "gateway/served.h"

namespace mindserve::gateway {

inline constexpr const char* kReflectionV1Path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
inline constexpr const char* kReflectionV1AlphaPath = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

// What may wait to be sent before another question is refused, of a client that asks on and on without reading what it
// is told: answers of one stream, and bytes of a connection, over all of its streams. The bytes of all connections
// count against max_enqueued_bytes.
inline constexpr size_t kMostUnsentAnswers = 1'000;
inline constexpr size_t kMostUnsentAnswerBytes = size_t{16} << 20;

class ReflectionService final : public Service {
 public:
  // `served` is the thread's, and may come to be another; set before the first call.
  ReflectionService(MethodCounts& counts, const std::shared_ptr<const Served>& served, RequestMemory& memory)
      : Service(counts), served_(served), memory_(memory) {}
  bool client_streaming() const override { return true; }
  bool answers_are_enqueued() const override { return true; }
  size_t most_message_bytes() const override { return kMostNameBytes; }
  std::unique_ptr<CallHandler> Start(Call& call) override;

 private:
  // By connection: bytes of answers that wait. Each entry is there as long as somebody has its bytes.
  using UnsentBytes = std::unordered_map<uint64_t, std::weak_ptr<size_t>>;

  std::shared_ptr<size_t> UnsentOf(uint64_t client);

  const std::shared_ptr<const Served>& served_;
  RequestMemory& memory_;
  const std::shared_ptr<UnsentBytes> unsent_ = std::make_shared<UnsentBytes>();  // answers may outlive this
};

}  // namespace mindserve::gateway
