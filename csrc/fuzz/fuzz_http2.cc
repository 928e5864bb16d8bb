// Bytes of whatever kind on a client's connection.
#include "fuzz/gateway_harness.h"

namespace mindserve::fuzz {

static void Run(Input input) {
  static const auto harness = NewHarnessWithGoodWorker();
  const uint8_t how = input.Byte();
  const size_t piece = size_t{1} << (how >> 4);
  harness->Connect(/*internal=*/(how & 2) != 0);
  if ((how & 1) != 0) {
    // What every client begins with: the preface, and SETTINGS without any.
    harness->pipe().to_gateway = std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") + std::string("\0\0\0\4\0\0\0\0\0", 9);
  }
  // A client that takes nothing, or little.
  if ((how & 4) != 0) harness->pipe().room = 100;
  while (!input.empty() && harness->connected()) {
    harness->pipe().to_gateway.append(input.Text(piece));
    while (harness->connected() && harness->Round()) {
      // What is written is bounded by what was asked for; nobody reads it.
      harness->pipe().to_client.clear();
    }
  }
  if (harness->connected()) harness->HangUp();
}

}  // namespace mindserve::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  mindserve::fuzz::Run({data, size});
  return 0;
}
