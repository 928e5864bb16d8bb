// What a worker answers, which runs users' code: counted by the gateway, turned into JSON by the REST server.
#include <array>

#include "fuzz/input.h"
#include "wire/json_reply.h"
#include "wire/predict.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace mindserve;
  const auto reply = std::as_bytes(std::span(data, size));
  std::array<uint64_t, wire::kErrorCodes> counts{};
  wire::CountErrorCodes(reply, counts);
  uint64_t errors = 0;
  for (const uint64_t count : counts) errors += count;
  FUZZ_REQUIRE(errors <= size);
  const auto json = wire::PredictReplyToJson(reply);
  if (json.ok()) {
    FUZZ_REQUIRE(json->starts_with('{') && json->ends_with('}'));
  } else {
    FUZZ_REQUIRE(json.status().code() == Code::kInternal && !json.status().message().empty());
  }
  return 0;
}
