#include "pipeline/engine.h"

#include "pipeline/pipeline_fixture.h"

namespace mindserve::pipeline {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;

class EngineTest : public EngineFixture {};

TEST_F(EngineTest, AModelStageRuns) {
  const int method = AddModelMethod(AddShort(AddModelOf({-1, 2})));
  Request request;
  Submit(method, request, 0, {Pair(1, 2), Pair(3, 4)});
  EXPECT_EQ(engine_->in_flight(), 1u);
  EXPECT_TRUE(request.answers.empty());
  EXPECT_EQ(Settle(), kNever);
  ASSERT_TRUE(request.status(0).ok());
  EXPECT_THAT(request.values(0), ElementsAre(4, 6));
  EXPECT_EQ(request.answers.at(0).outputs[0].shape(), (Shape{2}));
  EXPECT_EQ(engine_->in_flight(), 0u);
}

TEST_F(EngineTest, InstancesShareABatch) {
  auto model = AddModelOf({-1, 2});
  const int method = AddModelMethod(AddShort(model, {.max_batch_size = 4}));
  Request one(1);
  Request two(2);
  for (uint32_t i = 0; i < 3; ++i) Submit(method, one, i, {Pair(static_cast<float>(i), 0), Pair(1, 1)});
  for (uint32_t i = 0; i < 3; ++i) Submit(method, two, i, {Pair(static_cast<float>(i), 0), Pair(2, 2)});
  Settle();
  EXPECT_THAT(model->rows(), ElementsAre(1, 4, 2));
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_THAT(one.values(i), ElementsAre(static_cast<float>(i) + 1, 1));
    EXPECT_THAT(two.values(i), ElementsAre(static_cast<float>(i) + 2, 2));
  }
}

TEST_F(EngineTest, MethodsShareAModelsBatches) {
  auto model = AddModelOf({-1, 2});
  const int index = AddShort(model);
  const int first = AddModelMethod(index);
  const int second = AddMethod({ModelStageSpec(index, {Input(0), Input(0)})}, {Output(0)}, 1);
  Request request;
  Submit(first, request, 0, {Pair(1, 2), Pair(3, 4)});
  Submit(second, request, 1, {Pair(5, 6)});
  Settle();
  EXPECT_THAT(model->rows(), ElementsAre(1, 2));
  EXPECT_THAT(request.values(0), ElementsAre(4, 6));
  EXPECT_THAT(request.values(1), ElementsAre(10, 12));
}

TEST_F(EngineTest, AFixedBatchIsPadded) {
  auto model = AddModelOf({4, 2});
  const int method = AddModelMethod(AddShort(model));
  Request request;
  for (uint32_t i = 0; i < 5; ++i) Submit(method, request, i, {Pair(1, static_cast<float>(i)), Pair(1, 1)});
  Settle();
  EXPECT_THAT(model->rows(), ElementsAre(4, 4, 4));
  for (uint32_t i = 0; i < 5; ++i) EXPECT_THAT(request.values(i), ElementsAre(2, static_cast<float>(i) + 1));
}

TEST_F(EngineTest, WithoutABatchDimensionInstancesRunOneByOne) {
  auto model = AddModelOf({2, 2});
  const int method = AddModelMethod(AddShort(model, {.with_batch_dim = false}));
  Request request;
  for (uint32_t i = 0; i < 2; ++i) {
    Submit(method, request, i, {Floats({2, 2}, {1, 2, 3, 4}), Floats({4}, {10, 20, 30, static_cast<float>(i)})});
  }
  Settle();
  EXPECT_EQ(model->rows().size(), 3u);
  EXPECT_THAT(request.values(1), ElementsAre(11, 22, 33, 5));
  EXPECT_EQ(request.answers.at(1).outputs[0].shape(), (Shape{2, 2}));
}

TEST_F(EngineTest, InputsWithoutABatchDimensionKeepOthersApart) {
  auto model = std::make_shared<TestModel>(std::vector{FloatSpec("x", {-1, 2}), FloatSpec("scale", {1})},
                                           std::vector{FloatSpec("y", {-1, 2})},
                                           [](std::span<const Tensor> inputs) -> Result<Tensors> {
                                             const float scale = Values(inputs[1])[0];
                                             std::vector<float> values = Values(inputs[0]);
                                             for (float& value : values) value *= scale;
                                             return Tensors{Floats(inputs[0].shape(), values)};
                                           });
  const int method = AddModelMethod(AddShort(model, {.without_batch_dim_inputs = {1}}));
  Request request;
  for (uint32_t i = 0; i < 4; ++i) Submit(method, request, i, {Pair(1, 2), Floats({1}, {i % 2 == 0 ? 10.f : 100.f})});
  Settle();
  EXPECT_THAT(model->rows(), ElementsAre(1, 2, 2));
  EXPECT_THAT(request.values(2), ElementsAre(10, 20));
  EXPECT_THAT(request.values(3), ElementsAre(100, 200));
}

TEST_F(EngineTest, ShapesDoNotMix) {
  auto model = AddModelOf({-1, -1});
  const int index = Add(model);
  EXPECT_EQ(engine_->WarmUp(index).code(), Code::kFailedPrecondition);
  const int method = AddModelMethod(index);
  Request request;
  for (uint32_t i = 0; i < 6; ++i) {
    const Tensor row = Floats({1 + static_cast<int64_t>(i % 2)}, std::vector<float>(1 + i % 2, 1));
    Submit(method, request, i, {row, row});
  }
  PollUntil([&] { return request.answers.size() == 6; });
  for (uint32_t i = 0; i < 6; ++i) EXPECT_EQ(request.values(i), std::vector<float>(1 + i % 2, 2));
}

TEST_F(EngineTest, AMethodMayReturnItsInputs) {
  const int method = AddMethod({}, {Input(1), Input(0), Input(1)}, 2);
  Request request;
  Submit(method, request, 7, {Pair(1, 2), Pair(3, 4)});
  EXPECT_TRUE(request.answers.empty());
  Settle();
  EXPECT_THAT(request.values(7, 0), ElementsAre(3, 4));
  EXPECT_THAT(request.values(7, 1), ElementsAre(1, 2));
  EXPECT_THAT(request.values(7, 2), ElementsAre(3, 4));
}

TEST_F(EngineTest, AMethodMayGiveNothing) {
  const int method = AddMethod({}, {}, 1);
  Request request;
  Submit(method, request, 0, {Pair(1, 2)});
  Settle();
  EXPECT_TRUE(request.status(0).ok());
  EXPECT_TRUE(request.answers.at(0).outputs.empty());
}

TEST_F(EngineTest, StagesUseEarlierOutputsAndInputsManyTimes) {
  const int model = AddShort(AddModelOf({-1, 2}));
  const int function = engine_->AddFunction({.name = "s.swap"});
  const int method = AddMethod({ModelStageSpec(model, {Input(0), Input(0)}),            // 2a
                                FunctionStageSpec(function, {Output(0), Input(1)}, 2),  // b, 2a
                                ModelStageSpec(model, {Output(1, 0), Output(0)}),       // b + 2a
                                ModelStageSpec(model, {Output(2), Input(0)})},          // b + 3a
                               {Output(3), Output(1, 1), Input(0), Output(0)}, 2);
  Request request;
  for (uint32_t i = 0; i < 2; ++i) Submit(method, request, i, {Pair(static_cast<float>(i + 1), 0), Pair(10, 20)});
  Settle();
  RunFunction(function, [](std::span<const Tensor> inputs) -> FunctionResult { return Tensors{inputs[1], inputs[0]}; });
  Settle();
  for (uint32_t i = 0; i < 2; ++i) {
    const float a = static_cast<float>(i + 1);
    EXPECT_THAT(request.values(i, 0), ElementsAre(10 + 3 * a, 20));
    EXPECT_THAT(request.values(i, 1), ElementsAre(2 * a, 0));
    EXPECT_THAT(request.values(i, 2), ElementsAre(a, 0));
    EXPECT_THAT(request.values(i, 3), ElementsAre(2 * a, 0));
  }
}

TEST_F(EngineTest, AModelsFurtherOutputsMayBeLeftOut) {
  auto model = std::make_shared<TestModel>(
      std::vector{FloatSpec("x", {-1, 2})}, std::vector{FloatSpec("y", {-1, 2}), FloatSpec("z", {-1, 2})},
      [](std::span<const Tensor> inputs) -> Result<Tensors> { return Tensors{inputs[0], inputs[0]}; });
  const int method = AddMethod({ModelStageSpec(AddShort(model), {Input(0)})}, {Output(0)}, 1);
  Request request;
  Submit(method, request, 0, {Pair(1, 2)});
  Settle();
  EXPECT_THAT(request.values(0), ElementsAre(1, 2));
}

TEST_F(EngineTest, AFunctionGetsBatches) {
  const int function = engine_->AddFunction({.name = "s.f", .max_batch_size = 2});
  const int method = AddMethod({FunctionStageSpec(function, {Input(0)}, 3)}, {Output(0, 2)}, 1);
  Request request;
  for (uint32_t i = 0; i < 3; ++i) Submit(method, request, i, {Pair(static_cast<float>(i), 0)});
  Settle();
  std::unique_ptr<FunctionBatch> batch = engine_->NextBatch(function);
  ASSERT_EQ(batch->size(), 2u);
  EXPECT_EQ(batch->outputs_count(0), 3u);
  EXPECT_THAT(Values(batch->inputs(1)[0]), ElementsAre(1, 0));
  std::vector<FunctionResult> results;
  for (size_t i = 0; i < 3; ++i) results.emplace_back(Tensors{Pair(0, 0), Pair(0, 0), Pair(static_cast<float>(i), 9)});
  engine_->Complete(std::move(batch), std::move(results));  // one more than there are instances: ignored
  EXPECT_EQ(wakes(), 1u);
  Settle();
  EXPECT_THAT(request.values(1), ElementsAre(1, 9));
  EXPECT_EQ(request.answers.size(), 2u);
  EXPECT_EQ(engine_->NextBatch(function)->size(), 1u);
}

TEST_F(EngineTest, AFunctionMayAskForEqualShapes) {
  const int function = engine_->AddFunction({.name = "s.f", .same_shapes = true});
  const int method = AddMethod({FunctionStageSpec(function, {Input(0)})}, {Output(0)}, 1);
  Request request;
  Submit(method, request, 0, {Pair(1, 2)});
  Submit(method, request, 1, {Floats({1}, {3})});
  Submit(method, request, 2, {Pair(4, 5)});
  Settle();
  const auto batch = engine_->NextBatch(function);
  ASSERT_EQ(batch->size(), 2u);
  EXPECT_THAT(Values(batch->inputs(1)[0]), ElementsAre(4, 5));
  EXPECT_EQ(engine_->NextBatch(function)->size(), 1u);
}

TEST_F(EngineTest, AFunctionWaitsForItsWindow) {
  const int function = engine_->AddFunction({.name = "s.f", .max_batch_size = 2, .max_queue_delay = 1h});
  const int method = AddMethod({FunctionStageSpec(function, {Input(0)})}, {Output(0)}, 1);
  Request request;
  Submit(method, request, 0, {Pair(1, 2)});
  Settle();
  Submit(method, request, 1, {Pair(3, 4)});
  Settle();
  EXPECT_EQ(engine_->NextBatch(function)->size(), 2u);
  Settle();
}

TEST_F(EngineTest, PollSaysWhenAModelsWindowIsOver) {
  auto model = AddModelOf({-1, 2});
  const int method = AddModelMethod(AddShort(model, {.max_batch_size = 3, .max_queue_delay = 5ms}));
  Request request;
  Submit(method, request, 0, {Pair(1, 2), Pair(3, 4)});
  EXPECT_EQ(Settle(), time_.Now() + 5ms);
  time_.Advance(2ms);
  Submit(method, request, 1, {Pair(1, 2), Pair(3, 4)});
  EXPECT_EQ(Settle(), time_.Now() + 3ms);
  time_.Advance(3ms);
  EXPECT_EQ(Settle(), kNever);
  EXPECT_THAT(model->rows(), ElementsAre(1, 2));

  for (uint32_t i = 2; i < 5; ++i) Submit(method, request, i, {Pair(1, 2), Pair(3, 4)});
  EXPECT_EQ(Settle(), kNever);
  EXPECT_THAT(model->rows(), ElementsAre(1, 2, 3));
}

TEST_F(EngineTest, PollGivesItsCallerATurn) {
  // Each run takes as long as a run may that is still done on this thread; there is work for many.
  const int method =
      AddModelMethod(AddShort(AddModelOf({-1, 2}, [&] { time_.Advance(190us); }), {.max_batch_size = 1}));
  Request request;
  for (uint32_t i = 0; i < 10; ++i) Submit(method, request, i, {Pair(1, 2), Pair(3, 4)});
  const TimePoint next = engine_->Poll();
  EXPECT_LE(next, time_.Now());
  EXPECT_EQ(request.answers.size(), 3u);
  Settle();
  EXPECT_EQ(request.answers.size(), 10u);
}

TEST_F(EngineTest, SinksMaySubmitAndCancel) {
  const int method = AddModelMethod(AddShort(AddModelOf({-1, 2})));
  const int echo = AddMethod({}, {Input(0)}, 1);
  Request first;
  Request second;
  Request third;
  first.on_done = [&](uint32_t) {
    Submit(method, second, 0, {Pair(1, 2), Pair(3, 4)});
    Submit(echo, second, 1, {Pair(1, 2)});
    Submit(method, third, 0, {Pair(1, 2), Pair(3, 4)});
    engine_->Cancel(*third.context);
  };
  Submit(echo, first, 0, {Pair(1, 2)});
  Settle();
  EXPECT_TRUE(second.status(0).ok());
  EXPECT_TRUE(second.status(1).ok());
  EXPECT_EQ(third.status(0).code(), Code::kCancelled);
}

TEST_F(EngineTest, ASinkMayGoWithItsLastInstance) {
  const int method = AddModelMethod(AddShort(AddModelOf({-1, 2})));
  auto request = std::make_unique<Request>();
  size_t left = 3;
  request->on_done = [&](uint32_t) {
    // Not from inside of itself: what is called must not go while it runs.
    --left;
  };
  for (uint32_t i = 0; i < 3; ++i) Submit(method, *request, i, {Pair(1, 2), Pair(3, 4)});
  Settle();
  EXPECT_EQ(left, 0u);
  request.reset();
  Settle();
}

TEST_F(EngineTest, NobodyHoldsTheInputsWhenTheAnswerComes) {
  const int function = engine_->AddFunction({.name = "s.f"});
  const int model = AddShort(AddModelOf({-1, 2}));
  const int method = AddMethod({FunctionStageSpec(function, {Input(0)}), ModelStageSpec(model, {Output(0), Input(1)})},
                               {Output(1)}, 3);
  auto bytes = std::make_shared<std::vector<float>>(2, 1.f);
  const auto view = [&] {
    return Tensor::View(DType::kFloat32, Shape{2}, std::as_bytes(std::span(*bytes)), bytes).value();
  };
  Request request;
  long holders = 0;
  request.on_done = [&](uint32_t) { holders = bytes.use_count(); };
  for (uint32_t i = 0; i < 2; ++i) Submit(method, request, i, {view(), view(), view()});
  Settle();
  RunFunction(function, [](std::span<const Tensor>) -> FunctionResult { return Tensors{Pair(1, 2)}; });
  Settle();
  EXPECT_EQ(request.answers.size(), 2u);
  EXPECT_EQ(holders, 1);
}

TEST_F(EngineTest, MethodsAreKnown) {
  const int method = AddMethod({}, {Input(0)}, 1);
  EXPECT_EQ(engine_->methods(), 1u);
  EXPECT_EQ(engine_->method(method).name, "predict");
}

TEST_F(EngineTest, WrongWiringIsRefused) {
  const int model = AddShort(AddModelOf({-1, 2}));
  MethodSpec spec;
  spec.name = "m";
  spec.inputs = {"x"};
  spec.stages = {ModelStageSpec(model, {Input(0)})};
  EXPECT_EQ(engine_->AddMethod(spec).status(),
            Status(Code::kInvalidArgument, "method 'm' stage 0 gives 1 input to a model that takes 2"));
  spec.stages = {FunctionStageSpec(0, {Input(0)})};
  EXPECT_EQ(engine_->AddMethod(spec).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(engine_->methods(), 0u);
}

TEST_F(EngineTest, WrongModelsAreRefused) {
  EXPECT_EQ(engine_->AddModel(AddModelOf({}), {.name = "net.onnx"}).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(engine_->AddModel(nullptr, {.name = "net.onnx"}).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(engine_->WarmUp(0).code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace mindserve::pipeline
