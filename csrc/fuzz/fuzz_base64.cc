// Both forms of base64: that of JSON bodies, and that of "-bin" metadata.
#include <string>

#include "fuzz/input.h"
#include "gateway/grpc_text.h"
#include "wire/base64.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace mindserve;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::string before = "what was there";
  std::string bytes = before;
  const bool padded = wire::DecodeBase64(text, &bytes);
  FUZZ_REQUIRE(bytes.starts_with(before) && (padded || bytes == before));
  const auto metadata = gateway::Base64Decode(text);
  if (padded) {
    // Bits that are left over are of no interest in JSON, as with Python's decoder; metadata of such is refused.
    const std::string_view decoded = std::string_view(bytes).substr(before.size());
    std::string again;
    wire::EncodeBase64(decoded, &again);
    FUZZ_REQUIRE(again.size() == size && metadata.has_value() == (again == text));
    if (metadata) FUZZ_REQUIRE(*metadata == decoded);
  }
  if (metadata) FUZZ_REQUIRE(metadata->size() <= size * 3 / 4);

  // And there and back.
  std::string encoded;
  wire::EncodeBase64(text, &encoded);
  std::string decoded;
  FUZZ_REQUIRE(wire::DecodeBase64(encoded, &decoded) && decoded == text);
  FUZZ_REQUIRE(gateway::Base64Decode(gateway::Base64Encode(text)) == text);
  return 0;
}
