// gRPC's framing: messages with a prefix of five bytes, plain or compressed, in whatever pieces they come.
#include <memory>
#include <optional>
#include <string>

#include "fuzz/input.h"
#include "gateway/message_reader.h"
#include "link/lane.h"
#include "wire/predict.h"

namespace mindserve::fuzz {
namespace {

constexpr size_t kMostBytes = 256 * 1024;  // of a message

struct Memory {
  std::unique_ptr<link::GatewayPort> port = *link::GatewayPort::Create(16 << 20);
  gateway::Admission admission;
  gateway::RequestMemory requests{port->arena(), admission};
};

void Run(Input input) {
  static Memory memory;
  memory.admission.SetMaxBytes(2 << 20);
  gateway::PartialBytes partial;
  const auto encoding = static_cast<gateway::Encoding>(input.Byte() % 4);
  const size_t piece = 1 + input.Byte();
  {
    gateway::MessageReader reader(memory.requests, partial, kMostBytes, encoding, wire::FirstLargeData);
    bool failed = false;
    while (!input.empty() && !failed) {
      auto data = input.Bytes(piece);
      while (!data.empty() && !failed) {
        std::optional<gateway::Message> message;
        const size_t before = data.size();
        if (reader.Feed(&data, &message)) {
          FUZZ_REQUIRE(message && message->bytes().size() <= kMostBytes && data.size() < before);
        } else {
          failed = !reader.error().status.ok();
          FUZZ_REQUIRE(!message && (failed || data.empty()));
        }
        // What is held is bounded, whatever was claimed: by a message as it came, and as it is.
        FUZZ_REQUIRE(memory.admission.bytes() <= 3 * kMostBytes);
      }
    }
  }
  FUZZ_REQUIRE(memory.admission.bytes() == 0 && memory.port->arena().slabs() == 0 && partial.gathered == 0);
}

}  // namespace
}  // namespace mindserve::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  mindserve::fuzz::Run({data, size});
  return 0;
}
