// Opening the library, and loading models.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "base/log.h"
#include "device/ort_test_support.h"

namespace mindserve::device {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// A directory that goes with the test.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = (fs::temp_directory_path() / "mindserve.XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TemporaryDirectory() {
    std::error_code error;
    fs::remove_all(path_, error);
  }
  std::string Write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path_ / name, std::ios::binary) << bytes;
    return (path_ / name).string();
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(OpenOnnxRuntime, WhatIsNotTheLibraryIsRefused) {
  const TemporaryDirectory directory;
  for (const std::string& path : {std::string(), std::string("libc.so.6"), directory.path().string() + "/none.so",
                                  directory.path().string(), directory.Write("text.so", "not ELF")}) {
    const auto engine = OpenOnnxRuntime(path);
    ASSERT_FALSE(engine.ok()) << path;
    EXPECT_EQ(engine.status().code(), Code::kFailedPrecondition);
    EXPECT_THAT(engine.status().message(), StartsWith("ONNX Runtime can't be loaded from '" + path + "': "));
  }
}

class OnnxRuntimeLoadTest : public OnnxRuntimeTest {
 protected:
  Status LoadError(const std::string& path, const DeviceConfig& config = {}) {
    auto model = engine_->Load(path, config);
    EXPECT_FALSE(model.ok());
    return model.ok() ? Status() : model.status();
  }
};

TEST_F(OnnxRuntimeLoadTest, TellsItsVersionAndDevices) {
  EXPECT_THAT(engine_->Version(), StartsWith("1."));
  EXPECT_THAT(engine_->DeviceTypes(), Contains(DeviceType::kCpu));
  EXPECT_EQ(engine_->DeviceTypes().back(), DeviceType::kCpu);
}

TEST_F(OnnxRuntimeLoadTest, SwitchesTelemetryOff) {
  EXPECT_STREQ(std::getenv("ORT_DISABLE_TELEMETRY"), "1");
}

TEST_F(OnnxRuntimeLoadTest, TellsInputsAndOutputs) {
  const auto model = Load("add");
  ASSERT_EQ(model->inputs().size(), 2);
  EXPECT_EQ(model->inputs()[0].name, "x1");
  EXPECT_EQ(model->inputs()[1].name, "x2");
  EXPECT_EQ(model->inputs()[0].dtype, DType::kFloat32);
  EXPECT_EQ(model->inputs()[0].shape, Shape({-1, 2, 2}));
  EXPECT_TRUE(model->inputs()[0].ranked);
  ASSERT_EQ(model->outputs().size(), 1);
  EXPECT_EQ(model->outputs()[0].name, "y");
  EXPECT_EQ(Load("add_batch4")->inputs()[0].shape, Shape({4, 2, 2}));
  EXPECT_EQ(Load("dynamic_inner")->inputs()[0].shape, Shape({-1, -1, 2}));
  EXPECT_EQ(Load("deep")->inputs()[0].shape, Shape({-1, 1, 1, 1, 1, 1, 1, 1, 1, 3}));
  EXPECT_EQ(Load("strings")->inputs()[0].dtype, DType::kString);
  EXPECT_TRUE(Load("no_inputs")->inputs().empty());
}

TEST_F(OnnxRuntimeLoadTest, AnUnknownRankIsNoScalar) {
  EXPECT_FALSE(Load("unranked")->inputs()[0].ranked);
  EXPECT_FALSE(Load("unranked")->outputs()[0].ranked);
  EXPECT_EQ(Load("scalar")->inputs()[0].shape, Shape{});
}

TEST_F(OnnxRuntimeLoadTest, TellsEveryType) {
  const auto model = Load("types");
  std::vector<DType> dtypes;
  for (const TensorSpec& spec : model->inputs()) dtypes.push_back(spec.dtype);
  EXPECT_THAT(dtypes, ElementsAre(DType::kBool, DType::kInt8, DType::kUint8, DType::kInt16, DType::kUint16,
                                  DType::kInt32, DType::kUint32, DType::kInt64, DType::kUint64, DType::kFloat16,
                                  DType::kFloat32, DType::kFloat64));
}

TEST_F(OnnxRuntimeLoadTest, ErrorsSayTheFileAndTheReason) {
  const TemporaryDirectory directory;
  const std::string missing = directory.path() / "missing.onnx";
  EXPECT_EQ(LoadError(missing),
            Status(Code::kNotFound, "Load model failed, file: " + missing + ", device CPU: there is no such file"));
  EXPECT_EQ(LoadError(directory.path()),
            Status(Code::kInvalidArgument,
                   "Load model failed, file: " + directory.path().string() + ", device CPU: it is not a file"));
  const std::string empty = directory.Write("empty.onnx", "");
  EXPECT_EQ(LoadError(empty).message(), "Load model failed, file: " + empty + ", device CPU: the file is empty");

  const std::string noise = directory.Write("noise.onnx", "this is not a model");
  EXPECT_EQ(LoadError(noise).code(), Code::kInvalidArgument);
  EXPECT_THAT(LoadError(noise).message(), AllOf(HasSubstr(noise), HasSubstr("rotobuf")));

  const std::string whole = ReadAll(mindserve::testing::ModelFile("matmul"));
  const std::string cut = directory.Write("cut.onnx", whole.substr(0, whole.size() / 2));
  EXPECT_THAT(LoadError(cut).message(), HasSubstr(cut));

  const std::string later = mindserve::testing::ModelFile("later_opset");
  EXPECT_THAT(LoadError(later).message(), AllOf(HasSubstr(later), HasSubstr("4000")));
}

TEST_F(OnnxRuntimeLoadTest, WhatMindServeDoesNotCarryIsRefusedByName) {
  const Status input = LoadError(mindserve::testing::ModelFile("bfloat16_input"));
  EXPECT_EQ(input.code(), Code::kUnimplemented);
  EXPECT_THAT(input.message(), HasSubstr("input 'x' has the element type bfloat16"));
  EXPECT_THAT(LoadError(mindserve::testing::ModelFile("bfloat16_output")).message(),
              HasSubstr("output 'y' has the element type bfloat16"));
  EXPECT_THAT(LoadError(mindserve::testing::ModelFile("sequence_output")).message(),
              HasSubstr("output 'y' is a sequence, only tensors"));
}

TEST_F(OnnxRuntimeLoadTest, LoadsBytesThatMayGo) {
  std::unique_ptr<Model> model;
  {
    const std::string bytes = ReadAll(mindserve::testing::ModelFile("matmul"));
    auto loaded = engine_->LoadBytes(std::as_bytes(std::span(bytes)), {});
    ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
    model = *std::move(loaded);
  }
  const auto outputs = model->Run({{Floats({1, 256}, std::vector<float>(256, 2))}});
  ASSERT_TRUE(outputs.ok());
  EXPECT_EQ(ValuesOf<float>((*outputs)[0]), std::vector<float>(256, 2));

  EXPECT_THAT(engine_->LoadBytes({}, {}).status().message(), HasSubstr("the model is empty"));
  const std::string noise = "this is not a model";
  EXPECT_THAT(engine_->LoadBytes(std::as_bytes(std::span(noise)), {}).status().message(),
              StartsWith("Load model failed, 19 bytes, device CPU: "));
}

TEST_F(OnnxRuntimeLoadTest, ADeviceThatIsNotThereNamesThePackage) {
  const std::string path = mindserve::testing::ModelFile("add");
  const struct {
    DeviceType type;
    const char* text;
    const char* package;
  } cases[] = {{DeviceType::kGpu, "device GPU 99", "pip install onnxruntime-gpu[cuda,cudnn]"},
               {DeviceType::kAscend, "device Ascend 99", "pip install onnxruntime-cann"}};
  for (const auto& [type, text, package] : cases) {
    const Status status = LoadError(path, {.type = type, .device_id = 99});
    EXPECT_EQ(status.code(), Code::kFailedPrecondition);
    EXPECT_THAT(status.message(), AllOf(HasSubstr(path), HasSubstr(text), HasSubstr(package)));
  }
  EXPECT_EQ(LoadError(path, {.type = DeviceType::kGpu, .device_id = -1}).code(), Code::kInvalidArgument);
}

TEST_F(OnnxRuntimeLoadTest, RefusesWrongOptions) {
  const std::string path = mindserve::testing::ModelFile("add");
  EXPECT_THAT(LoadError(path, {.provider_options = {{"speed", "high"}}}).message(), HasSubstr("'speed'"));
  EXPECT_THAT(LoadError(path, {.intra_op_threads = -1}).message(), HasSubstr("negative"));
  EXPECT_THAT(LoadError(path, {.affinity = {-3}}).message(), HasSubstr("core -3"));
}

TEST_F(OnnxRuntimeLoadTest, TakesThreadsAffinityAndOptimization) {
  const int core = sched_getcpu();
  const DeviceConfig configs[] = {
      {.intra_op_threads = 2, .inter_op_threads = 2, .parallel = true},
      {.intra_op_threads = 3, .affinity = {core}},
      {.affinity = {core, core}},
      {.optimization = GraphOptimization::kOff},
      {.optimization = GraphOptimization::kBasic},
      {.optimization = GraphOptimization::kExtended},
  };
  const Tensor input = Floats({2, 256}, std::vector<float>(512, 3));
  for (const DeviceConfig& config : configs) {
    const auto outputs = Load("matmul", config)->Run({{input}});
    ASSERT_TRUE(outputs.ok()) << outputs.status().ToString();
    EXPECT_EQ(ValuesOf<float>((*outputs)[0]), ValuesOf<float>(input));
  }
}

TEST_F(OnnxRuntimeLoadTest, HalfPrecisionThatIsNotThereIsAWarning) {
  std::vector<std::string> warnings;
  SetLogSink([&](LogLevel level, std::string_view line) {
    if (level == LogLevel::kWarning) warnings.emplace_back(line);
  });
  const auto model = Load("matmul", {.fp16 = true});
  SetLogSink({});
  EXPECT_THAT(warnings, ElementsAre(StartsWith("precision_mode fp16: on CPU ONNX Runtime computes in the types")));
}

TEST_F(OnnxRuntimeLoadTest, LoadsFromSeveralThreadsAtOnce) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      const auto outputs = Load("add")->Run({{Floats({1, 2, 2}, {1, 2, 3, 4}), Floats({1, 2, 2}, {1, 1, 1, 1})}});
      EXPECT_THAT(ValuesOf<float>((*outputs)[0]), ElementsAre(2, 3, 4, 5));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(OnnxRuntimeLoadTest, ASecondEngineOfTheSameLibraryWorks) {
  auto second = OpenOnnxRuntime(mindserve::testing::OnnxRuntimeLibrary());
  ASSERT_TRUE(second.ok());
  engine_.reset();
  auto model = (*second)->Load(mindserve::testing::ModelFile("no_inputs"), {});
  ASSERT_TRUE(model.ok());
  EXPECT_THAT(ValuesOf<float>((*(*model)->Run({}))[0]), ElementsAre(1, 2, 3));
}

}  // namespace
}  // namespace mindserve::device
