// What gateway and worker tell each other about a call: a head one way, an end and metadata the other.
#include "fuzz/input.h"
#include "wire/call_head.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace mindserve;
  const auto bytes = std::as_bytes(std::span(data, size));

  uint32_t depth = 0;
  const Status checked = wire::CheckCallHead(bytes, &depth);
  const auto head = wire::ReadCallHead(bytes);
  FUZZ_REQUIRE(checked.ok() == head.ok());
  if (head.ok()) {
    FUZZ_REQUIRE(depth == std::min(head->depth, wire::kMostDepth));
    const std::string written = wire::WriteCallHead(*head);
    const auto again = wire::ReadCallHead(fuzz::AsBytes(written));
    FUZZ_REQUIRE(again.ok());
    FUZZ_REQUIRE(again->request_id == head->request_id && again->model_id == head->model_id &&
                 again->peer == head->peer && again->metadata == head->metadata && again->auth == head->auth &&
                 again->depth == head->depth && again->callers == head->callers && again->plain == head->plain);
  }
  if (const auto end = wire::ReadCallEnd(bytes); end.ok()) {
    const std::string written = wire::WriteCallEnd(*end);
    const auto again = wire::ReadCallEnd(fuzz::AsBytes(written));
    FUZZ_REQUIRE(again.ok() && again->details == end->details && again->trailing == end->trailing);
  }
  if (const auto metadata = wire::ReadMetadata(bytes); metadata.ok()) {
    const std::string written = wire::WriteMetadata(*metadata);
    const auto again = wire::ReadMetadata(fuzz::AsBytes(written));
    FUZZ_REQUIRE(again.ok() && *again == *metadata);
  }
  return 0;
}
