#include "pipeline/model_stage.h"

#include <stdexcept>

#include "pipeline/pipeline_fixture.h"

namespace mindserve::pipeline {
namespace {

using batching::BatchLayout;
using batching::Item;
using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::shared_ptr<TestModel> ModelOf(std::vector<Shape> inputs) {
  std::vector<device::TensorSpec> specs;
  for (size_t i = 0; i < inputs.size(); ++i) specs.push_back(FloatSpec("x" + std::to_string(i + 1), inputs[i]));
  return std::make_shared<TestModel>(specs, std::vector{FloatSpec("y", {-1})},
                                     [](std::span<const Tensor>) -> Result<Tensors> { return Tensors{}; });
}

ModelOptions Named(ModelOptions options = {}) {
  options.name = "net.onnx";
  return options;
}

Result<BatchLayout> LayoutOf(std::vector<Shape> inputs, ModelOptions options = {}) {
  return FindLayout(*ModelOf(std::move(inputs)), Named(std::move(options)));
}

TEST(FindLayoutTest, ADynamicFirstDimensionIsTheBatchs) {
  auto layout = LayoutOf({{-1, 2}, {-1}});
  ASSERT_TRUE(layout.ok());
  EXPECT_TRUE(layout->batched);
  EXPECT_EQ(layout->fixed_rows, 0u);
}

TEST(FindLayoutTest, AFixedFirstDimensionIsTheBatchsSize) {
  auto layout = LayoutOf({{4, 2}, {4}});
  ASSERT_TRUE(layout.ok());
  EXPECT_EQ(layout->fixed_rows, 4u);
}

TEST(FindLayoutTest, WithoutABatchDimensionShapesAreFree) {
  auto layout = LayoutOf({{4, 2}, {}, {-1}}, {.with_batch_dim = false});
  ASSERT_TRUE(layout.ok());
  EXPECT_FALSE(layout->batched);
}

TEST(FindLayoutTest, InputsWithoutABatchDimensionNeedNotAgree) {
  auto layout = LayoutOf({{-1, 2}, {3}, {}}, {.without_batch_dim_inputs = {1, 2}});
  ASSERT_TRUE(layout.ok());
  EXPECT_THAT(layout->whole_inputs, ElementsAre(false, true, true));
}

TEST(FindLayoutTest, AnUnknownRankIsTakenAsDynamic) {
  device::TensorSpec spec = FloatSpec("x", {});
  spec.ranked = false;
  const TestModel model({spec}, {}, nullptr);
  auto layout = FindLayout(model, Named());
  ASSERT_TRUE(layout.ok()) << layout.status().ToString();
  EXPECT_EQ(layout->fixed_rows, 0u);
}

TEST(FindLayoutTest, InputsMustAgree) {
  EXPECT_EQ(LayoutOf({{4, 2}, {2, 2}}).status().message(),
            "the inputs of model 'net.onnx' don't agree on a batch size: the first dimension of input 0 'x1' is of 4, "
            "that of input 1 'x2' is of 2; name inputs that have no batch dimension in without_batch_dim_inputs");
  EXPECT_THAT(LayoutOf({{-1, 2}, {2, 2}}).status().message(),
              HasSubstr("input 0 'x1' is of any size, that of input 1 'x2' is of 2"));
}

TEST(FindLayoutTest, AScalarHasNoBatchDimension) {
  const Status status = LayoutOf({{-1}, {}}).status();
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("model 'net.onnx' input 1 'x2' has the shape ()"));
}

TEST(FindLayoutTest, SomeInputMustHaveABatchDimension) {
  EXPECT_THAT(LayoutOf({{2}}, {.without_batch_dim_inputs = {0}}).status().message(), HasSubstr("with_batch_dim=False"));
  EXPECT_THAT(LayoutOf({}).status().message(), HasSubstr("with_batch_dim=False"));
}

TEST(FindLayoutTest, ABatchOfNoRowsIsNone) {
  EXPECT_THAT(LayoutOf({{0, 2}}).status().message(), HasSubstr("fixed to no rows"));
}

TEST(FindLayoutTest, InputsThatAreNamedMustBeThere) {
  EXPECT_EQ(LayoutOf({{-1}}, {.without_batch_dim_inputs = {1}}).status().message(),
            "without_batch_dim_inputs of model 'net.onnx' names input 1, but the model has 1, counted from 0");
}

class ModelStageTest : public ::testing::Test {
 protected:
  std::unique_ptr<ModelStage> Create(std::shared_ptr<device::Model> model, ModelOptions options = {}) {
    auto stage = ModelStage::Create(std::move(model), Named(std::move(options)), time_, mailbox_);
    EXPECT_TRUE(stage.ok()) << stage.status().ToString();
    return *std::move(stage);
  }

  FakeTime time_;
  Mailbox mailbox_{nullptr};
};

TEST_F(ModelStageTest, NoModelIsAnError) {
  EXPECT_EQ(ModelStage::Create(nullptr, Named(), time_, mailbox_).status().code(), Code::kInvalidArgument);
}

TEST_F(ModelStageTest, TheQueueHasTheModelsBatchSize) {
  EXPECT_EQ(Create(AddModelOf({-1, 2}), {.max_batch_size = 5})->queue().options().max_batch_size, 5u);
  EXPECT_EQ(Create(AddModelOf({-1, 2}), {.max_batch_size = 0})->queue().options().max_batch_size, 1u);
  EXPECT_EQ(Create(AddModelOf({3, 2}), {.max_batch_size = 5})->queue().options().max_batch_size, 3u);
  EXPECT_EQ(Create(AddModelOf({3, 2}), {.with_batch_dim = false})->queue().options().max_batch_size, 1u);
}

TEST_F(ModelStageTest, OnlyModelsThatMayGetUnequalInstancesCompareThem) {
  EXPECT_FALSE(Create(AddModelOf({-1, 2}))->queue().options().key.has_value());
  EXPECT_FALSE(Create(AddModelOf({-1, -1}), {.with_batch_dim = false})->queue().options().key.has_value());
  EXPECT_TRUE(Create(AddModelOf({-1, -1}))->queue().options().key.has_value());
  EXPECT_TRUE(Create(AddModelOf({-1, 2}), {.without_batch_dim_inputs = {1}})->queue().options().key.has_value());
}

TEST_F(ModelStageTest, InstancesOfAStaticModelGetItsShape) {
  const auto stage = Create(AddModelOf({-1, 2}));
  Tensors inputs = {Floats({1, 2}, {1, 2}), Pair(3, 4)};
  ASSERT_TRUE(stage->Admit(inputs).ok());
  EXPECT_EQ(inputs[0].shape(), (Shape{2}));
  EXPECT_THAT(Values(inputs[0]), ElementsAre(1, 2));
}

TEST_F(ModelStageTest, InstancesThatDoNotFitAreRefused) {
  const auto stage = Create(AddModelOf({-1, 2}));
  Tensors inputs = {Pair(1, 2), Floats({3}, {1, 2, 3})};
  EXPECT_EQ(stage->Admit(inputs),
            Status(Code::kInvalidArgument, "Given model input 1 size 12 not match the size 8 defined in model"));
  const auto dynamic = Create(AddModelOf({-1, -1, 2}));
  inputs = {Floats({3, 2}, std::vector<float>(6)), Floats({2}, {1, 2})};
  EXPECT_EQ(
      dynamic->Admit(inputs),
      Status(Code::kInvalidArgument, "Given model input 1 shape (2,) not match the shape (-1, 2) defined in model"));
}

TEST_F(ModelStageTest, WarmUpRunsOnZeros) {
  auto model = std::make_shared<TestModel>(std::vector{FloatSpec("x", {3, 2}), FloatSpec("table", {2})},
                                           std::vector{FloatSpec("y", {3, 2})},
                                           [](std::span<const Tensor> inputs) -> Result<Tensors> {
                                             EXPECT_EQ(inputs[0].shape(), (Shape{3, 2}));
                                             EXPECT_EQ(inputs[1].shape(), (Shape{2}));
                                             EXPECT_THAT(Values(inputs[0]), ::testing::Each(0));
                                             return Tensors{inputs[0]};
                                           });
  const auto stage = Create(model, {.without_batch_dim_inputs = {1}});
  EXPECT_FALSE(stage->RunsWithin(kLongRun));
  EXPECT_TRUE(stage->WarmUp().ok());
  EXPECT_TRUE(stage->RunsWithin(kLongRun));
  EXPECT_EQ(model->rows().size(), 1u);
}

TEST_F(ModelStageTest, WarmUpRunsOnEmptyTexts) {
  device::TensorSpec text = FloatSpec("text", {-1, 2});
  text.dtype = DType::kString;
  auto model = std::make_shared<TestModel>(std::vector{text}, std::vector{text},
                                           [](std::span<const Tensor> inputs) -> Result<Tensors> {
                                             EXPECT_THAT(inputs[0].elements(), ElementsAre("", ""));
                                             return Tensors{inputs[0]};
                                           });
  EXPECT_TRUE(Create(model)->WarmUp().ok());
}

TEST_F(ModelStageTest, ALongFirstRunSaysLittle) {
  int runs = 0;
  auto model = AddModelOf({-1, 2}, [&] { time_.Advance(++runs == 1 ? 20ms : 10us); });
  const auto stage = Create(model);
  ASSERT_TRUE(stage->WarmUp().ok());
  EXPECT_EQ(runs, 2);
  EXPECT_TRUE(stage->RunsWithin(10us));
}

TEST_F(ModelStageTest, AVeryLongFirstRunIsNotRepeated) {
  int runs = 0;
  auto model = AddModelOf({-1, 2}, [&] {
    ++runs;
    time_.Advance(10s);
  });
  const auto stage = Create(model);
  ASSERT_TRUE(stage->WarmUp().ok());
  EXPECT_EQ(runs, 1);
  EXPECT_FALSE(stage->RunsWithin(kLongRun));
}

TEST_F(ModelStageTest, WarmUpNeedsKnownShapes) {
  const Status status = Create(AddModelOf({-1, -1, 2}))->WarmUp();
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  EXPECT_EQ(status.message(),
            "model 'net.onnx' input 0 'x1' has dynamic dimensions besides the batch: (-1, 2) for an instance");
}

std::shared_ptr<TestModel> FailingModel(Status status) {
  return std::make_shared<TestModel>(std::vector{FloatSpec("x", {-1})}, std::vector{FloatSpec("y", {-1})},
                                     [status](std::span<const Tensor>) -> Result<Tensors> { return status; });
}

TEST_F(ModelStageTest, OtherDataMayMendAFailedRunOnZeros) {
  for (const Code code : {Code::kInternal, Code::kInvalidArgument}) {
    const auto stage = Create(FailingModel({code, "division by zero"}));
    EXPECT_EQ(stage->WarmUp(), Status(Code::kFailedPrecondition, "its first run on zeros failed: division by zero"));
    EXPECT_FALSE(stage->RunsWithin(1h)) << "a failed run says nothing about others";
  }
}

TEST_F(ModelStageTest, NoDataMendsWhatLacks) {
  for (const Code code : {Code::kResourceExhausted, Code::kUnimplemented}) {
    EXPECT_EQ(Create(FailingModel({code, "no such thing"}))->WarmUp(),
              Status(code, "its first run on zeros failed: no such thing"));
  }
  EXPECT_EQ(Create(FailingModel({Code::kFailedPrecondition, "the device is gone"}))->WarmUp().code(), Code::kInternal);
}

TEST_F(ModelStageTest, NoDataMendsWrongOutputs) {
  auto without_batch =
      std::make_shared<TestModel>(std::vector{FloatSpec("x", {-1})}, std::vector{FloatSpec("y", {})},
                                  [](std::span<const Tensor>) -> Result<Tensors> { return Tensors{Floats({}, {1})}; });
  const Status status = Create(without_batch)->WarmUp();
  EXPECT_EQ(status.code(), Code::kInternal);
  EXPECT_THAT(status.message(), HasSubstr("output 0 has the shape ()"));
}

TEST_F(ModelStageTest, OutputsWithoutTheBatchMayComeOfShapesThatInstancesChose) {
  const auto code = [&](std::initializer_list<int64_t> input, std::initializer_list<int64_t> output) {
    const auto stage = Create(std::make_shared<TestModel>(
        std::vector{FloatSpec("x", input)}, std::vector{FloatSpec("y", output)},
        [](std::span<const Tensor>) -> Result<Tensors> { return Tensors{Floats({}, {1})}; }));
    Item item;
    item.tensors = {Floats({1}, {1})};
    Item* const items[] = {&item};
    std::vector<Status> failures;
    return stage->RunBatch(items, &failures).code();
  };
  EXPECT_EQ(code({-1, -1}, {-1}), Code::kInvalidArgument);
  EXPECT_EQ(code({-1, 1}, {-1}), Code::kInternal);
  EXPECT_EQ(code({-1, -1}, {}), Code::kInternal);
}

TEST_F(ModelStageTest, ModelsMayThrow) {
  auto model = std::make_shared<TestModel>(
      std::vector{FloatSpec("x", {-1})}, std::vector{FloatSpec("y", {-1})},
      [](std::span<const Tensor>) -> Result<Tensors> { throw std::runtime_error("bad day"); });
  const auto stage = Create(model);
  Item item;
  item.tensors = {Floats({}, {1})};
  Item* const items[] = {&item};
  std::vector<Status> failures;
  EXPECT_EQ(stage->RunBatch(items, &failures), Status(Code::kInternal, "Run model 'net.onnx' failed: bad day"));
  EXPECT_EQ(stage->WarmUp(), Status(Code::kFailedPrecondition, "its first run on zeros failed: bad day"));
}

// x + x, but a batch that holds a number below zero fails.
std::shared_ptr<TestModel> Squeamish(Code code = Code::kInternal) {
  return std::make_shared<TestModel>(std::vector{FloatSpec("x", {-1, 1})}, std::vector{FloatSpec("y", {-1, 1})},
                                     [code](std::span<const Tensor> inputs) -> Result<Tensors> {
                                       for (float value : Values(inputs[0])) {
                                         if (value < 0) return Status(code, "below zero: " + std::to_string(value));
                                       }
                                       const Tensor twice[] = {inputs[0], inputs[0]};
                                       return Tensors{Sum(twice)};
                                     });
}

struct Rows {
  explicit Rows(const std::vector<float>& values) : items(values.size()) {
    for (size_t i = 0; i < values.size(); ++i) {
      items[i].tensors = {Floats({1}, {values[i]})};
      pointers.push_back(&items[i]);
    }
  }
  float result(size_t i) const { return Values(items[i].tensors.at(0)).at(0); }
  std::vector<Item> items;
  std::vector<Item*> pointers;
};

TEST_F(ModelStageTest, ABatchThatFailsIsSplitUntilItIsKnownWhoseFaultItIs) {
  const auto model = Squeamish();
  const auto stage = Create(model);
  Rows rows({1, 2, 3, 4, 5, -6, 7, 8});
  std::vector<Status> failures;
  EXPECT_TRUE(stage->RunBatch(rows.pointers, &failures).ok());
  ASSERT_EQ(failures.size(), 8u);
  for (size_t i = 0; i < 8; ++i) {
    if (i == 5) continue;
    EXPECT_TRUE(failures[i].ok()) << failures[i].ToString();
    EXPECT_EQ(rows.result(i), 2 * (static_cast<float>(i) + 1));
  }
  EXPECT_EQ(failures[5], Status(Code::kInternal, "Run model 'net.onnx' failed: below zero: -6.000000"));
  EXPECT_THAT(model->rows(), ElementsAre(8, 4, 4, 2, 1, 1, 2));
  EXPECT_EQ(stage->stats().run_ns.Read().count, 7u);
  EXPECT_EQ(stage->stats().batch_sizes.Read().sum, 8u);
}

TEST_F(ModelStageTest, SplittingIsBounded) {
  const auto model = Squeamish();
  const auto stage = Create(model);
  Rows rows({-1, -2, -3, -4, -5});
  std::vector<Status> failures;
  EXPECT_TRUE(stage->RunBatch(rows.pointers, &failures).ok());
  for (const Status& failure : failures) EXPECT_EQ(failure.code(), Code::kInternal);
  EXPECT_EQ(model->rows().size(), 9u);
}

TEST_F(ModelStageTest, ADeviceThatFailsIsNoInstancesFault) {
  const auto model = Squeamish(Code::kFailedPrecondition);
  const auto stage = Create(model);
  Rows rows({1, -2, 3});
  std::vector<Status> failures;
  EXPECT_EQ(stage->RunBatch(rows.pointers, &failures).code(), Code::kFailedPrecondition);
  EXPECT_THAT(model->rows(), ElementsAre(3));
}

TEST_F(ModelStageTest, OutputsAreCounted) {
  auto model = ModelOf({{-1}});
  EXPECT_EQ(Create(model)->WarmUp(),
            Status(Code::kInternal, "its first run on zeros failed: it gave 0 outputs, expected 1"));
}

TEST_F(ModelStageTest, TheAverageRisesFastAndFallsSlowly) {
  Duration takes = 100us;
  const auto stage = Create(AddModelOf({-1, 2}, [&] { time_.Advance(takes); }));
  ASSERT_TRUE(stage->WarmUp().ok());
  const auto run = [&] {
    Item item;
    item.tensors = {Pair(1, 2), Pair(3, 4)};
    Item* const items[] = {&item};
    std::vector<Status> failures;
    EXPECT_TRUE(stage->RunBatch(items, &failures).ok());
    EXPECT_THAT(Values(item.tensors.at(0)), ElementsAre(4, 6));
  };
  takes = 1ms;
  run();
  EXPECT_FALSE(stage->RunsWithin(500us));
  EXPECT_TRUE(stage->RunsWithin(600us));
  takes = 0us;
  run();
  EXPECT_FALSE(stage->RunsWithin(500us));
  for (int i = 0; i < 50; ++i) run();
  EXPECT_TRUE(stage->RunsWithin(50us));
}

}  // namespace
}  // namespace mindserve::pipeline
