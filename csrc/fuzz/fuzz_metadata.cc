// The header fields of a call, what of them a worker is told, and what handlers send back.
#include <string>

#include "fuzz/input.h"
#include "gateway/grpc_text.h"
#include "gateway/request_head.h"
#include "wire/call_head.h"

namespace mindserve::fuzz {

static void Run(Input input) {
  constexpr size_t kMostBytes = 4096;
  static gateway::RequestHead head;  // reused, as by the gateway's streams
  head.Clear();
  while (!input.empty()) {
    const std::string_view name = input.ShortText();
    const std::string_view value = input.LongText();
    head.Add(name, value, kMostBytes);
  }
  (void)head.http_error();
  (void)head.encoding();
  (void)head.accepts_gzip();
  if (head.timeout()) FUZZ_REQUIRE(head.timeout()->count() >= 0);
  // A malformed value is repeated in the text, one field's at most.
  FUZZ_REQUIRE(head.status().message().size() <= kMostBytes + 256);
  const std::string text(head.Value("k"));
  size_t held = 0;
  wire::CallHead told;
  for (const auto& [key, value] : head.metadata()) {
    FUZZ_REQUIRE(gateway::IsMetadataKey(key));
    held += key.size() + value.size();
    told.metadata.emplace_back(key, value);
  }
  FUZZ_REQUIRE(held <= kMostBytes);
  // The worker reads what the gateway writes; what is no UTF-8 where that has to be is refused by both.
  told.request_id = "id";
  const std::string written = wire::WriteCallHead(told);
  uint32_t depth = 0;
  const Status checked = wire::CheckCallHead(AsBytes(written), &depth);
  const auto read = wire::ReadCallHead(AsBytes(written));
  FUZZ_REQUIRE(checked.ok() == read.ok());
  if (read.ok()) FUZZ_REQUIRE(read->metadata == told.metadata && read->request_id == "id");
  head.Drop("k");
  FUZZ_REQUIRE(head.Value("k").empty());

  const std::string encoded = gateway::PercentEncode(text, 64);
  FUZZ_REQUIRE(encoded.size() <= 64 && gateway::IsMetadataText(encoded));
}

}  // namespace mindserve::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  mindserve::fuzz::Run({data, size});
  return 0;
}
