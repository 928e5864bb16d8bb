// A worker that breaks the link's rules, or keeps to them in a strange order, while clients' calls are on it: the
// gateway goes on, and every call ends.
#include <utility>

#include "fuzz/grpc_client.h"
#include "fuzz/raw_link.h"
#include "gateway/classifier_service.h"
#include "wire/test_messages.h"

namespace mindserve::fuzz {
namespace {

class RogueWorker final : public HarnessWorker {
 public:
  explicit RogueWorker(std::unique_ptr<RawWorker> raw) : raw_(std::move(raw)) {}
  void Step() override { raw_->TakeCalls(&calls_); }
  bool good() const override { return false; }
  RawSide& side() { return raw_->side(); }
  const std::vector<uint64_t>& calls() const { return calls_; }

 private:
  const std::unique_ptr<RawWorker> raw_;
  std::vector<uint64_t> calls_;
};

std::string Predict() {
  using namespace wire::test;
  const std::string instance = Instance(Item("x1", NumericTensor({1}, 11, std::string(4, '\0'))));
  return Field(1, Spec("s", "add", 0)) + instance + instance;
}

std::string Tell() {
  using namespace wire::test;
  return Field(1, Spec("s", "tell", 0)) + Instance(Item("x1", NumericTensor({1}, 11, std::string(4, '\0'))));
}

std::string Classify() {
  using wire::test::Field;
  return Field(1, Field(1, "p1")) + Field(2, Field(1, "x/t.Type") + Field(2, "abc"));
}

void Run(Input input) {
  static GatewayHarness harness;
  std::unique_ptr<link::Lane> lane;
  auto raw = RawWorker::Connect(harness.port(), &lane);
  auto owned = std::make_unique<RogueWorker>(std::move(raw));
  RogueWorker& worker = *owned;
  harness.Attach(std::move(lane), std::move(owned));
  {
    GrpcClient client(harness, /*internal=*/false, 65'535);
    // A call of each kind.
    const GrpcClient::Fields gzip = {{"grpc-accept-encoding", "gzip"}};
    client.Send(client.Start(kPaths[0], {}, false), Framed(Predict()), true);
    client.Send(client.Start(kPaths[1], {}, false), Framed(Tell()), true);
    client.Send(client.Start(kUnary, {}, false), Framed("one"), true);
    client.Send(client.Start(kDown, gzip, false), Framed("two"), true);
    client.Send(client.Start(kUp, {}, false), Framed("three"), false);
    client.Send(client.Start(kBoth, gzip, false), Framed("four"), false);
    client.Send(client.Start(gateway::kClassifierPath, {{"application", "s"}}, false), Framed(Classify()), true);
    client.Run();
    FUZZ_REQUIRE(worker.calls().size() >= client.calls());  // with the mirror's
    while (!input.empty() && harness.has_worker()) {
      const uint8_t op = input.Byte();
      switch (op & 7) {
        case 0:
          if (op == 0xf8) {
            worker.side().Claim(input.Take<uint32_t>(), input.Take<uint32_t>());
            break;
          }
          client.Reset(client.stream(op >> 3));
          break;
        case 1:
          client.Send(client.stream(op >> 3), Framed("more"), (op & 0x80) != 0);
          break;
        case 2:
          harness.Advance(std::chrono::milliseconds(op));
          break;
        default:
          worker.side().Put(worker.side().TakeFrame(input, worker.calls()));
          if ((op & 0x80) != 0) continue;
      }
      client.Run();
    }
    if (harness.has_worker()) harness.RemoveWorker();
    client.Run();
    for (size_t i = 0; harness.connected() && i < client.calls(); ++i) FUZZ_REQUIRE(client.over(client.stream(i)));
  }
}

}  // namespace
}  // namespace mindserve::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  mindserve::fuzz::Run({data, size});
  return 0;
}
