// Running models.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>
#include <thread>

#include "base/log.h"
#include "device/ort_test_support.h"

namespace mindserve::device {
namespace {

using namespace std::literals;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class OnnxRuntimeRunTest : public OnnxRuntimeTest {
 protected:
  // Loads and runs the model, and expects that it works.
  std::vector<Tensor> Run(const std::string& name, const std::vector<Tensor>& inputs) {
    auto outputs = Load(name)->Run(inputs);
    EXPECT_TRUE(outputs.ok()) << outputs.status().ToString();
    return outputs.ok() ? *std::move(outputs) : std::vector<Tensor>();
  }

  // Runs it, and expects that it fails.
  Status RunError(const std::string& name, const std::vector<Tensor>& inputs) {
    const auto outputs = Load(name)->Run(inputs);
    EXPECT_FALSE(outputs.ok());
    return outputs.status();
  }
};

TEST_F(OnnxRuntimeRunTest, AddsBatchesOfAnySize) {
  const auto model = Load("add");
  for (int64_t n : {1, 3, 32, 1, 0}) {
    const std::vector<float> values(static_cast<size_t>(n) * 4, 1.5F);
    const auto outputs = model->Run({{Floats({n, 2, 2}, values), Floats({n, 2, 2}, values)}});
    ASSERT_TRUE(outputs.ok()) << outputs.status().ToString();
    ASSERT_EQ(outputs->size(), 1);
    EXPECT_EQ((*outputs)[0].shape(), Shape({n, 2, 2}));
    EXPECT_EQ((*outputs)[0].dtype(), DType::kFloat32);
    EXPECT_TRUE((*outputs)[0].aligned());
    EXPECT_EQ(ValuesOf<float>((*outputs)[0]), std::vector<float>(static_cast<size_t>(n) * 4, 3));
  }
}

TEST_F(OnnxRuntimeRunTest, RunsOtherSignatures) {
  EXPECT_THAT(ValuesOf<float>(Run("add_no_batch", {Floats({2, 2}, {1, 2, 3, 4}), Floats({2, 2}, {10, 20, 30, 40})})[0]),
              ElementsAre(11, 22, 33, 44));
  EXPECT_THAT(ValuesOf<float>(Run("no_inputs", {})[0]), ElementsAre(1, 2, 3));
  EXPECT_THAT(ValuesOf<float>(Run("scalar", {Floats({}, {4})})[0]), ElementsAre(-4));
  EXPECT_EQ(Run("dynamic_inner", {Floats({1, 3, 2}, {1, 2, 3, 4, 5, 6})})[0].shape(), Shape({1, 3, 2}));
  EXPECT_EQ(Run("unranked", {Floats({3, 1}, {1, 2, 3})})[0].shape(), Shape({3, 1}));
  const Shape deep = {2, 1, 1, 1, 1, 1, 1, 1, 1, 3};
  EXPECT_EQ(Run("deep", {Floats(deep, {1, 2, 3, 4, 5, 6})})[0].shape(), deep);
}

TEST_F(OnnxRuntimeRunTest, OfAStaticShapeOnlyTheSizeCounts) {
  const auto outputs = Run("add_no_batch", {Floats({4}, {1, 2, 3, 4}), Floats({1, 2, 2}, {1, 1, 1, 1})});
  EXPECT_EQ(outputs[0].shape(), Shape({2, 2}));
  EXPECT_THAT(ValuesOf<float>(outputs[0]), ElementsAre(2, 3, 4, 5));
}

TEST_F(OnnxRuntimeRunTest, GivesSeveralOutputsInTheirOrder) {
  const auto outputs = Run("two_outputs", {Floats({2, 2}, {1, 5, 3, 0}), Floats({2, 2}, {2, 2, 2, 2})});
  ASSERT_EQ(outputs.size(), 2);
  EXPECT_THAT(ValuesOf<float>(outputs[0]), ElementsAre(3, 7, 5, 2));
  EXPECT_EQ(outputs[1].dtype(), DType::kBool);
  EXPECT_THAT(ValuesOf<uint8_t>(outputs[1]), ElementsAre(0, 1, 1, 0));
}

TEST_F(OnnxRuntimeRunTest, CarriesEveryType) {
  const auto model = Load("types");
  std::vector<Tensor> inputs;
  for (const TensorSpec& spec : model->inputs()) {
    std::vector<uint8_t> bytes(3 * Info(spec.dtype).size);
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = spec.dtype == DType::kBool ? i % 2 : static_cast<uint8_t>(i);
    inputs.push_back(Make(spec.dtype, {1, 3}, bytes));
  }
  const auto outputs = model->Run(inputs);
  ASSERT_TRUE(outputs.ok()) << outputs.status().ToString();
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_EQ((*outputs)[i].dtype(), inputs[i].dtype());
    EXPECT_EQ(ValuesOf<uint8_t>((*outputs)[i]), ValuesOf<uint8_t>(inputs[i])) << Info(inputs[i].dtype()).name;
  }
}

// The types mean the same on both sides: 1 and 100 are what the engine makes of them in each.
TEST_F(OnnxRuntimeRunTest, TypesMeanTheSame) {
  const auto outputs = Run("casts", {Floats({2}, {1, 100})});
  ASSERT_EQ(outputs.size(), 12);
  EXPECT_THAT(ValuesOf<uint8_t>(outputs[0]), ElementsAre(1, 1));
  EXPECT_THAT(ValuesOf<int8_t>(outputs[1]), ElementsAre(1, 100));
  EXPECT_THAT(ValuesOf<uint8_t>(outputs[2]), ElementsAre(1, 100));
  EXPECT_THAT(ValuesOf<int16_t>(outputs[3]), ElementsAre(1, 100));
  EXPECT_THAT(ValuesOf<uint16_t>(outputs[4]), ElementsAre(1, 100));
  EXPECT_THAT(ValuesOf<int32_t>(outputs[5]), ElementsAre(1, 100));
  EXPECT_THAT(ValuesOf<uint32_t>(outputs[6]), ElementsAre(1, 100));
  EXPECT_THAT(ValuesOf<int64_t>(outputs[7]), ElementsAre(1, 100));
  EXPECT_THAT(ValuesOf<uint64_t>(outputs[8]), ElementsAre(1, 100));
  EXPECT_THAT(ValuesOf<uint16_t>(outputs[9]), ElementsAre(0x3c00, 0x5640));
  EXPECT_THAT(ValuesOf<float>(outputs[10]), ElementsAre(1, 100));
  EXPECT_THAT(ValuesOf<double>(outputs[11]), ElementsAre(1, 100));
}

TEST_F(OnnxRuntimeRunTest, CarriesStringsOfAnyBytes) {
  const std::string longer(100'000, 'q');
  const std::vector<std::string_view> elements = {"", "a\0b\0"sv, "\xff\xfe", longer};
  const auto outputs = Run("strings", {*Tensor::TextView(DType::kString, {2, 2}, elements, nullptr)});
  EXPECT_EQ(outputs[0].shape(), Shape({2, 2}));
  EXPECT_EQ(outputs[0].dtype(), DType::kString);
  EXPECT_EQ(std::vector(outputs[0].elements().begin(), outputs[0].elements().end()), elements);

  const auto repeated = Run("repeat_strings", {*Tensor::TextView(DType::kString, {2, 1}, {"a", "bc"}, nullptr)});
  EXPECT_THAT(repeated[0].elements(), ElementsAre("a", "a", "a", "bc", "bc", "bc"));
}

TEST_F(OnnxRuntimeRunTest, StringsMayBeNone) {
  const auto outputs = Run("strings", {*Tensor::TextView(DType::kString, {0, 2}, {}, nullptr)});
  EXPECT_EQ(outputs[0].shape(), Shape({0, 2}));
  EXPECT_THAT(outputs[0].elements(), IsEmpty());
}

TEST_F(OnnxRuntimeRunTest, AnEmptyTensorMayHaveNoAddress) {
  const Tensor none = *Tensor::View(DType::kFloat32, {0, 2, 2}, {}, nullptr);
  ASSERT_EQ(none.data().data(), nullptr);
  EXPECT_EQ(Run("add", {none, none})[0].shape(), Shape({0, 2, 2}));
}

TEST_F(OnnxRuntimeRunTest, OutputsOutliveTheModelAndTheEngine) {
  std::vector<Tensor> outputs = Run("add", {Floats({1, 2, 2}, {1, 2, 3, 4}), Floats({1, 2, 2}, {1, 1, 1, 1})});
  engine_.reset();
  const Tensor row = outputs[0].Rows(0, 1);
  outputs.clear();
  std::thread([&row] { EXPECT_THAT(ValuesOf<float>(row), ElementsAre(2, 3, 4, 5)); }).join();
}

TEST_F(OnnxRuntimeRunTest, ALaterRunLeavesEarlierOutputsAlone) {
  const auto model = Load("add");
  const Tensor zero = Floats({1, 2, 2}, {0, 0, 0, 0});
  const auto first = model->Run({{Floats({1, 2, 2}, {1, 2, 3, 4}), zero}});
  const auto second = model->Run({{Floats({1, 2, 2}, {5, 6, 7, 8}), zero}});
  EXPECT_THAT(ValuesOf<float>((*first)[0]), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(ValuesOf<float>((*second)[0]), ElementsAre(5, 6, 7, 8));
}

TEST_F(OnnxRuntimeRunTest, AnOutputThatIsAnInputIsACopy) {
  for (const char* name : {"pass_through", "reshape"}) {
    const auto model = Load(name);
    std::vector<float> bytes = {1, 2, 3, 4};
    const Shape shape = name == "reshape"s ? Shape{1, 2, 2} : Shape{2, 2};
    const Tensor input = *Tensor::View(DType::kFloat32, shape, std::as_bytes(std::span(bytes)), nullptr);
    const auto outputs = model->Run({{input}});
    ASSERT_TRUE(outputs.ok()) << outputs.status().ToString();
    bytes.assign(4, 0);
    EXPECT_THAT(ValuesOf<float>((*outputs)[0]), ElementsAre(1, 2, 3, 4)) << name;
  }
}

TEST_F(OnnxRuntimeRunTest, WhatTheCallerGaveWrongIsItsError) {
  const Tensor good = Floats({1, 2, 2}, {1, 2, 3, 4});
  const Status missing = RunError("add", {good});
  EXPECT_EQ(missing.code(), Code::kInvalidArgument);
  EXPECT_THAT(missing.message(), HasSubstr("given 1 inputs, expected 2"));

  const Status type = RunError("add", {good, Make<int32_t>(DType::kInt32, {1, 2, 2}, {1, 2, 3, 4})});
  EXPECT_EQ(type.code(), Code::kInvalidArgument);
  EXPECT_THAT(type.message(), HasSubstr("input 'x2': given "));

  const Status shape = RunError("add", {good, Floats({1, 4}, {1, 2, 3, 4})});
  EXPECT_EQ(shape.code(), Code::kInvalidArgument);
  EXPECT_THAT(shape.message(), HasSubstr("x2"));

  std::vector<std::byte> bytes(32);
  const Tensor odd = *Tensor::View(DType::kFloat32, {1, 2, 2}, std::span(bytes).subspan(1, 16), nullptr);
  EXPECT_THAT(RunError("add", {good, odd}).message(), HasSubstr("input 'x2': the bytes are not aligned"));
  EXPECT_EQ(RunError("add", {good, Tensor()}).code(), Code::kInvalidArgument);
}

TEST_F(OnnxRuntimeRunTest, AFailedRunSaysWhyAndTheModelGoesOn) {
  const auto model = Load("failing");
  const auto failed = model->Run({{Make<int64_t>(DType::kInt64, {2}, {1, 7})}});
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.status().code(), Code::kInvalidArgument);
  EXPECT_THAT(failed.status().message(), AllOf(HasSubstr("Gather"), HasSubstr("out of")));
  EXPECT_THAT(failed.status().message(), Not(HasSubstr("failing.onnx")));  // whoever runs it knows its name
  const auto good = model->Run({{Make<int64_t>(DType::kInt64, {2}, {2, 0})}});
  ASSERT_TRUE(good.ok());
  EXPECT_THAT(ValuesOf<float>((*good)[0]), ElementsAre(30, 10));
}

TEST_F(OnnxRuntimeRunTest, ShapesThatAnOperatorRefusesAreTheCallersError) {
  // The engine has the code of any failure for it.
  const Status status = RunError("add_dynamic", {Floats({1, 2}, {1, 2}), Floats({1, 3}, {1, 2, 3})});
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("running Add node"));
}

// gcc has names for it, clang a question.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;
#elif defined(__has_feature)
constexpr bool kSanitized = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
constexpr bool kSanitized = false;
#endif

TEST_F(OnnxRuntimeRunTest, LackOfMemoryIsToldApart) {
  if (kSanitized) GTEST_SKIP() << "the sanitizer's allocator ends the process instead of refusing";
  const auto model = Load("expand");
  const auto failed = model->Run({{Make<int64_t>(DType::kInt64, {1}, {int64_t{1} << 50})}});
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.status().code(), Code::kResourceExhausted) << failed.status().message();
  const auto good = model->Run({{Make<int64_t>(DType::kInt64, {1}, {2})}});
  ASSERT_TRUE(good.ok());
  EXPECT_THAT(ValuesOf<float>((*good)[0]), ElementsAre(1, 1));
}

// Collects what is logged while it lives.
class LogLines {
 public:
  LogLines() {
    SetLogSink([this](LogLevel, std::string_view line) {
      const std::lock_guard lock(mutex_);
      lines_.emplace_back(line);
    });
  }
  ~LogLines() { SetLogSink({}); }
  std::vector<std::string> lines() {
    const std::lock_guard lock(mutex_);
    return lines_;
  }

 private:
  std::mutex mutex_;
  std::vector<std::string> lines_;
};

TEST_F(OnnxRuntimeRunTest, AFailedRunIsNotLoggedBesides) {
  const auto model = Load("failing");
  LogLines log;
  EXPECT_FALSE(model->Run({{Make<int64_t>(DType::kInt64, {1}, {7})}}).ok());
  EXPECT_THAT(log.lines(), IsEmpty());
}

TEST_F(OnnxRuntimeRunTest, OneModelManyRuns) {
  const auto model = Load("add");
  const Tensor ones = Floats({1, 2, 2}, {1, 1, 1, 1});
  Tensor sum = Floats({1, 2, 2}, {0, 0, 0, 0});
  for (int i = 0; i < 1000; ++i) {
    auto outputs = model->Run({{sum, ones}});
    ASSERT_TRUE(outputs.ok());
    sum = (*outputs)[0];
  }
  EXPECT_THAT(ValuesOf<float>(sum), ElementsAre(1000, 1000, 1000, 1000));
}

}  // namespace
}  // namespace mindserve::device
