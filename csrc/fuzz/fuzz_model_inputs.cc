// Tensors of whatever type and shape they claim, on their way into real models: every instance gets one answer, and a
// model runs on nothing that it did not ask for.
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "device/onnxruntime.h"
#include "fuzz/input.h"
#include "pipeline/engine.h"
#include "testing/onnx.h"
#include "wire/predict.h"

namespace mindserve::fuzz {
namespace {

struct Counter final : pipeline::ResultSink {
  void InstanceDone(uint32_t index, Status status, std::span<Tensor> outputs) override {
    FUZZ_REQUIRE(index < answers.size() && ++answers[index] == 1);
    if (!status.ok()) {
      FUZZ_REQUIRE(!status.message().empty() && status.code() != Code::kOk);
      return;
    }
    for (const Tensor& output : outputs) FUZZ_REQUIRE(output && output.shape().Elements().has_value());
  }
  std::vector<int> answers;
};

// Models of every kind of shape: fixed, with a batch's dimension of any or a fixed size or none, with other dynamic
// dimensions, scalar, of no known rank, of text.
struct Setup {
  struct Choice {
    const char* model;
    std::vector<std::string> inputs;
    size_t outputs;
    bool with_batch_dim = true;
    std::vector<size_t> without_batch_dim_inputs = {};
  };
  static constexpr size_t kModels = 8;

  Setup() {
    const std::string library = testing::OnnxRuntimeLibrary();
    FUZZ_REQUIRE(!library.empty());
    engine = *device::OpenOnnxRuntime(library);
    pipeline = std::make_unique<pipeline::Engine>(time, [] {});
    const Choice choices[kModels] = {{"add", {"x1", "x2"}, 1},
                                     {"add_batch4", {"x1", "x2"}, 1},
                                     {"add_no_batch", {"x1", "x2"}, 1, false},
                                     {"add_weights", {"x1", "x2"}, 1, true, {1}},
                                     {"dynamic_inner", {"x1"}, 1},
                                     {"scalar", {"x1"}, 1, false},
                                     {"unranked", {"x1"}, 1},
                                     {"strings", {"x1"}, 1}};
    for (const Choice& choice : choices) {
      auto model = engine->Load(testing::ModelFile(choice.model), {.intra_op_threads = 1});
      FUZZ_REQUIRE(model.ok());
      const auto added =
          pipeline->AddModel(*std::move(model), {.name = choice.model,
                                                 .with_batch_dim = choice.with_batch_dim,
                                                 .without_batch_dim_inputs = choice.without_batch_dim_inputs});
      FUZZ_REQUIRE(added.ok());
      pipeline::MethodSpec method{
          .name = choice.model, .inputs = choice.inputs, .outputs = {}, .stages = {}, .results = {}};
      pipeline::StageSpec stage{.kind = pipeline::StageSpec::Kind::kModel, .target = *added, .inputs = {}};
      for (size_t i = 0; i < choice.inputs.size(); ++i) {
        stage.inputs.push_back({pipeline::ValueRef::kMethodInput, static_cast<int>(i)});
      }
      method.stages = {stage};
      method.outputs = {"y"};
      method.results = {{0, 0}};
      FUZZ_REQUIRE(pipeline->AddMethod(std::move(method)).ok());
    }
  }

  SystemTime time;
  std::unique_ptr<device::Engine> engine;
  std::unique_ptr<pipeline::Engine> pipeline;
};

void Run(Input input) {
  static Setup& setup = *new Setup;  // the process ends with it: its threads would outlive what they use
  const int method = input.Byte() % Setup::kModels;
  const std::string_view request = input.Rest();
  wire::InstanceReader reader(AsBytes(request), setup.pipeline->method(method).inputs, nullptr);
  std::vector<std::vector<Tensor>> instances;
  constexpr size_t kMostInstances = 40;
  while (instances.size() < kMostInstances && reader.Next()) {
    std::vector<Tensor> slots;
    if (reader.Read(&slots).ok()) instances.push_back(std::move(slots));
  }
  Counter counter;
  counter.answers.resize(instances.size());
  const auto context = std::make_shared<pipeline::RequestContext>();
  context->sink = &counter;
  const TimePoint now = setup.time.Now();
  for (size_t i = 0; i < instances.size(); ++i) {
    setup.pipeline->Submit(method, context, static_cast<uint32_t>(i), instances[i], now);
  }
  while (setup.pipeline->in_flight() > 0) setup.pipeline->Poll();
  for (const int answers : counter.answers) FUZZ_REQUIRE(answers == 1);
}

}  // namespace
}  // namespace mindserve::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  mindserve::fuzz::Run({data, size});
  return 0;
}
