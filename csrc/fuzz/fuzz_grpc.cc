// Calls of every service over good HTTP/2: what a client can say in them, in whatever order.
#include "fuzz/grpc_client.h"

namespace mindserve::fuzz {
namespace {

enum Op : uint8_t {
  kStart,
  kStartRaw,
  kMessage,
  kPiece,
  kHalfClose,
  kReset,
  kWindow,
  kTime,
  kRoom,
  kPing,
  kServing,
  kDrain,
  kOps,
};

GrpcClient::Fields TakeFields(Input& input) {
  static const GrpcClient::Fields kKnown = {{"grpc-timeout", "1S"},        {"grpc-encoding", "gzip"},
                                            {"grpc-encoding", "deflate"},  {"grpc-accept-encoding", "gzip"},
                                            {"application", "s"},          {"request_id", "r"},
                                            {"multiplexed_model_id", "m"}, {"k-bin", "AAEC"}};
  const uint8_t which = input.Byte();
  GrpcClient::Fields fields;
  for (size_t i = 0; i < kKnown.size(); ++i) {
    if ((which >> i & 1) != 0) fields.push_back(kKnown[i]);
  }
  for (size_t more = input.Byte() % 4; more > 0; --more) {
    const std::string name(input.ShortText());
    fields.emplace_back(name, input.LongText());
  }
  return fields;
}

void Step(GatewayHarness& harness, GrpcClient& client, Input& input) {
  const auto op = static_cast<Op>(input.Byte() % kOps);
  if (op == kStart) {
    const uint8_t path = input.Byte();
    const bool ends = (path & 0x80) != 0;
    client.Start(kPaths[(path & 0x7f) % kPaths.size()], TakeFields(input), ends);
    return;
  }
  if (op == kStartRaw) {
    GrpcClient::Fields fields = {{":method", std::string(input.ShortText())},
                                 {":path", std::string(input.ShortText())}};
    const auto more = TakeFields(input);
    fields.insert(fields.end(), more.begin(), more.end());
    client.StartRaw(fields, (input.Byte() & 1) != 0);
    return;
  }
  const uint8_t which = input.Byte();
  const int32_t stream = client.stream(which & 0x3f);
  const bool ends = (which & 0x40) != 0;
  const bool compressed = (which & 0x80) != 0;
  switch (op) {
    case kTime:
      harness.Advance(std::chrono::milliseconds(input.Take<uint16_t>()));
      break;
    case kRoom:
      harness.pipe().room = input.Take<uint16_t>();
      break;
    case kPing:
      client.Ping();
      break;
    case kServing:
      harness.health().SetServing(which != 0);
      break;
    case kDrain:
      harness.connection()->Drain();
      break;
    default:
      if (stream == 0) return;
  }
  switch (op) {
    case kMessage:
      client.Send(stream, Framed(input.LongText(), compressed), ends);
      break;
    case kPiece:
      client.Send(stream, input.LongText(), ends);
      break;
    case kHalfClose:
      client.Send(stream, "", true);
      break;
    case kReset:
      client.Reset(stream);
      break;
    case kWindow:
      client.GiveWindow(stream, input.Take<uint16_t>());
      break;
    default:
      break;
  }
}

void Run(Input input) {
  static const auto harness = NewHarnessWithGoodWorker();
  const uint8_t how = input.Byte();
  static constexpr uint32_t kWindows[] = {0, 1, 100, 65'535};
  const bool internal = (how & 1) != 0;
  const bool stepwise = (how & 2) != 0;
  {
    GrpcClient client(*harness, internal, kWindows[how >> 2 & 3]);
    constexpr size_t kMostCalls = 64;
    while (!input.empty() && harness->connected() && client.calls() < kMostCalls) {
      Step(*harness, client, input);
      if (stepwise) client.Run();
    }
    client.Run();
  }
  harness->health().SetServing(true);
}

}  // namespace
}  // namespace mindserve::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  mindserve::fuzz::Run({data, size});
  return 0;
}
