// What goes wrong with one instance, one batch, or all.
#include "pipeline/engine.h"
#include "pipeline/pipeline_fixture.h"

namespace mindserve::pipeline {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;

class EngineFailureTest : public EngineFixture {
 protected:
  // A function `function_` and a method of one stage of it.
  int AddFunctionMethod(int outputs = 1, std::string tag = "", std::vector<ValueRef> results = {Output(0)}) {
    function_ = engine_->AddFunction({.name = "s.f"});
    return AddMethod({FunctionStageSpec(function_, {Input(0)}, outputs, std::move(tag))}, std::move(results), 1);
  }
  int function_ = -1;
};

TEST_F(EngineFailureTest, AnInstanceFailsAlone) {
  const int method = AddModelMethod(AddShort(AddModelOf({-1, 2})));
  Request request;
  Submit(method, request, 0, {Pair(1, 2), Pair(3, 4)});
  Submit(method, request, 1, {Floats({3}, {1, 2, 3}), Pair(3, 4)});
  Submit(method, request, 2, {Pair(5, 6), Pair(3, 4)});
  Settle();
  EXPECT_THAT(request.values(0), ElementsAre(4, 6));
  EXPECT_EQ(request.status(1),
            Status(Code::kInvalidArgument, "Given model input 0 size 12 not match the size 8 defined in model"));
  EXPECT_THAT(request.values(2), ElementsAre(8, 10));
}

TEST_F(EngineFailureTest, AFailedRunFailsOnlyWhoseFaultItIs) {
  auto model = std::make_shared<TestModel>(std::vector{FloatSpec("x", {-1, 2})}, std::vector{FloatSpec("y", {-1, 2})},
                                           [](std::span<const Tensor> inputs) -> Result<Tensors> {
                                             if (Values(inputs[0])[0] > 9) return Status(Code::kInternal, "too big");
                                             return Tensors{inputs[0]};
                                           });
  const int index = AddShort(model, {.max_batch_size = 2});
  const int method = AddMethod({ModelStageSpec(index, {Input(0)})}, {Output(0)}, 1);
  const int tagged = AddMethod({ModelStageSpec(index, {Input(0)}, 1, "Inference Failed")}, {Output(0)}, 1);
  Request request;
  Submit(tagged, request, 0, {Pair(10, 0)});
  Submit(method, request, 1, {Pair(1, 0)});
  Submit(method, request, 2, {Pair(2, 0)});
  Settle();
  EXPECT_EQ(request.status(0), Status(Code::kInternal, "Inference Failed: Run model 'net.onnx' failed: too big"));
  EXPECT_THAT(request.values(1), ElementsAre(1, 0));
  EXPECT_THAT(request.values(2), ElementsAre(2, 0));
}

TEST_F(EngineFailureTest, AnOutputWithoutTheBatchIsAnErrorThatSaysSo) {
  auto model =
      std::make_shared<TestModel>(std::vector{FloatSpec("x", {-1, -1})}, std::vector{FloatSpec("y", {})},
                                  [](std::span<const Tensor>) -> Result<Tensors> { return Tensors{Floats({}, {1})}; });
  const int method = AddMethod({ModelStageSpec(Add(model), {Input(0)})}, {Output(0)}, 1);
  Request request;
  Submit(method, request, 0, {Pair(10, 0)});
  PollUntil([&] { return !request.answers.empty(); });
  EXPECT_EQ(request.status(0),
            Status(Code::kInternal,
                   "Run model 'net.onnx' failed: output 0 has the shape (), in which the first dimension is "
                   "not the batch's size 1"));
}

TEST_F(EngineFailureTest, AFunctionsInstancesFailAlone) {
  const int method = AddFunctionMethod(1, "Preprocess Failed");
  Request request;
  for (uint32_t i = 0; i < 3; ++i) Submit(method, request, i, {Pair(static_cast<float>(i), 0)});
  Settle();
  RunFunction(function_, [](std::span<const Tensor> inputs) -> FunctionResult {
    if (Values(inputs[0])[0] == 1) return Status(Code::kInvalidArgument, "no ones");
    return Tensors{inputs[0]};
  });
  Settle();
  EXPECT_TRUE(request.status(0).ok());
  EXPECT_EQ(request.status(1), Status(Code::kInvalidArgument, "Preprocess Failed: no ones"));
  EXPECT_TRUE(request.status(2).ok());
}

TEST_F(EngineFailureTest, TooFewResultsAreAnErrorForTheRest) {
  const int method = AddFunctionMethod();
  Request request;
  for (uint32_t i = 0; i < 3; ++i) Submit(method, request, i, {Pair(1, 2)});
  Settle();
  auto batch = engine_->NextBatch(function_);
  std::vector<FunctionResult> results;
  results.emplace_back(Tensors{Pair(1, 2)});
  engine_->Complete(std::move(batch), std::move(results));
  Settle();
  EXPECT_TRUE(request.status(0).ok());
  const Status missing(Code::kInternal, "function 's.f' gave 1 results for 3 instances");
  EXPECT_EQ(request.status(1), missing);
  EXPECT_EQ(request.status(2), missing);
}

TEST_F(EngineFailureTest, TooFewOutputsAreAnError) {
  const int method = AddFunctionMethod(2, "Postprocess Failed", {Output(0, 1)});
  Request request;
  Submit(method, request, 0, {Pair(1, 2)});
  Settle();
  RunFunction(function_, [](std::span<const Tensor> inputs) -> FunctionResult { return Tensors{inputs[0]}; });
  Settle();
  EXPECT_EQ(request.status(0),
            Status(Code::kInternal, "Postprocess Failed: function 's.f' gave 1 outputs, expected 2"));
}

TEST_F(EngineFailureTest, ABatchThatIsDroppedFails) {
  const int method = AddFunctionMethod();
  Request request;
  Submit(method, request, 0, {Pair(1, 2)});
  Settle();
  engine_->NextBatch(function_).reset();
  Settle();
  EXPECT_EQ(request.status(0), Status(Code::kInternal, "function 's.f' ended without giving results"));
}

TEST_F(EngineFailureTest, CompletingNothingDoesNothing) {
  engine_->Complete(nullptr, {});
}

TEST_F(EngineFailureTest, WrongCountsAndMethodsAreAnswered) {
  const int method = AddMethod({}, {Input(0)}, 1);
  Request request;
  Submit(method, request, 0, {});
  Submit(17, request, 1, {});
  Submit(-1, request, 2, {});
  EXPECT_TRUE(request.answers.empty());
  Settle();
  EXPECT_EQ(request.status(0), Status(Code::kInvalidArgument, "method 'predict' takes 1 inputs, given 0"));
  EXPECT_EQ(request.status(1), Status(Code::kInternal, "there is no method number 17"));
  EXPECT_EQ(request.status(2).code(), Code::kInternal);
}

TEST_F(EngineFailureTest, TheExpiredAreNotRun) {
  auto model = AddModelOf({-1, 2});
  const int method = AddModelMethod(AddShort(model));
  Request late(1, time_.Now() + 1ms);
  Request patient(2);
  Submit(method, late, 0, {Pair(1, 2), Pair(3, 4)});
  Submit(method, patient, 0, {Pair(1, 2), Pair(3, 4)});
  time_.Advance(1ms);
  Settle();
  EXPECT_EQ(late.status(0), Status(Code::kDeadlineExceeded, "the deadline passed before model 'net.onnx' could run"));
  EXPECT_TRUE(patient.status(0).ok());
  EXPECT_THAT(model->rows(), ElementsAre(1, 1));
}

TEST_F(EngineFailureTest, TheExpiredAreAnsweredThoughNobodyTakesThem) {
  const int method = AddFunctionMethod();
  Request request(1, time_.Now() + 50ms);
  Submit(method, request, 0, {Pair(1, 2)});
  EXPECT_EQ(Settle(), time_.Now() + 50ms);
  time_.Advance(50ms);
  EXPECT_EQ(Settle(), kNever);
  EXPECT_EQ(request.status(0), Status(Code::kDeadlineExceeded, "the deadline passed before function 's.f' could run"));
}

TEST_F(EngineFailureTest, TheExpiredThatAFunctionThreadFindsAreAnswered) {
  const int method = AddFunctionMethod();
  Request late(1, time_.Now() + 1ms);
  Request patient(2);
  Submit(method, late, 0, {Pair(1, 2)});
  Submit(method, patient, 0, {Pair(1, 2)});
  time_.Advance(1ms);
  auto batch = engine_->NextBatch(function_);
  EXPECT_EQ(batch->size(), 1u);
  EXPECT_EQ(wakes(), 1u);
  Settle();
  EXPECT_EQ(late.status(0).code(), Code::kDeadlineExceeded);
}

TEST_F(EngineFailureTest, WhatIsQueuedCanBeCancelled) {
  const int method = AddFunctionMethod();
  Request request;
  Request other;
  for (uint32_t i = 0; i < 3; ++i) Submit(method, request, i, {Pair(1, 2)});
  Submit(method, other, 0, {Pair(1, 2)});
  engine_->Cancel(*request.context);
  EXPECT_TRUE(request.context->cancelled);
  EXPECT_TRUE(request.answers.empty());
  Settle();
  EXPECT_EQ(request.answers.size(), 3u);
  for (uint32_t i = 0; i < 3; ++i) EXPECT_EQ(request.status(i).code(), Code::kCancelled);
  EXPECT_EQ(engine_->in_flight(), 1u);
  EXPECT_EQ(engine_->NextBatch(function_)->size(), 1u);
  engine_->Cancel(*request.context);
  Settle();
}

TEST_F(EngineFailureTest, WhatRunsCanBeCancelled) {
  const int method = AddFunctionMethod();
  Request request;
  Submit(method, request, 0, {Pair(1, 2)});
  Settle();
  auto batch = engine_->NextBatch(function_);
  engine_->Cancel(*request.context);
  Settle();
  EXPECT_EQ(request.status(0).code(), Code::kCancelled);
  EXPECT_EQ(engine_->in_flight(), 0u);
  EXPECT_THAT(Values(batch->inputs(0)[0]), ElementsAre(1, 2));
  std::vector<FunctionResult> results;
  results.emplace_back(Tensors{Pair(1, 2)});
  engine_->Complete(std::move(batch), std::move(results));
  Settle();
  EXPECT_EQ(request.answers.size(), 1u);
}

TEST_F(EngineFailureTest, WhatComesBackBetweenCancelAndPollIsCancelled) {
  const int method = AddFunctionMethod();
  Request request;
  Submit(method, request, 0, {Pair(1, 2)});
  Settle();
  auto batch = engine_->NextBatch(function_);
  engine_->Cancel(*request.context);
  engine_->Complete(std::move(batch), {});
  Settle();
  EXPECT_EQ(request.status(0).code(), Code::kCancelled);
}

TEST_F(EngineFailureTest, WhatIsSubmittedAfterCancelIsCancelled) {
  const int method = AddFunctionMethod();
  Request request;
  engine_->Cancel(*request.context);
  Submit(method, request, 0, {Pair(1, 2)});
  Settle();
  EXPECT_EQ(request.status(0).code(), Code::kCancelled);
}

TEST_F(EngineFailureTest, StopFailsWhatIsQueuedAndWhatRuns) {
  const int function_method = AddFunctionMethod();
  const int model_method = AddModelMethod(AddShort(AddModelOf({-1, 2}), {.max_queue_delay = 1h}));
  Request request;
  Submit(function_method, request, 0, {Pair(1, 2)});
  Settle();
  auto batch = engine_->NextBatch(function_);
  Submit(function_method, request, 1, {Pair(1, 2)});
  Submit(model_method, request, 2, {Pair(1, 2), Pair(3, 4)});
  Settle();
  EXPECT_EQ(engine_->in_flight(), 3u);

  engine_->Stop();
  EXPECT_EQ(wakes(), 1u);
  EXPECT_EQ(engine_->NextBatch(function_), nullptr);
  EXPECT_EQ(Settle(), kNever);
  for (uint32_t i = 0; i < 3; ++i) EXPECT_EQ(request.status(i).code(), Code::kUnavailable);
  EXPECT_EQ(engine_->in_flight(), 0u);

  Submit(function_method, request, 3, {Pair(1, 2)});
  Settle();
  EXPECT_EQ(request.status(3).code(), Code::kUnavailable);
  batch.reset();
  Settle();
  engine_->Stop();
}

TEST_F(EngineFailureTest, WhatIsAddedAfterStopIsStopped) {
  engine_->Stop();
  const int method = AddFunctionMethod();
  EXPECT_EQ(engine_->NextBatch(function_), nullptr);
  const int model_method = AddModelMethod(Add(AddModelOf({-1, 2})));
  Request request;
  Submit(method, request, 0, {Pair(1, 2)});
  Submit(model_method, request, 1, {Pair(1, 2), Pair(3, 4)});
  Settle();
  EXPECT_EQ(request.answers.size(), 2u);
}

TEST_F(EngineFailureTest, TheEngineAnswersBeforeItGoes) {
  const int method = AddFunctionMethod();
  Request request;
  for (uint32_t i = 0; i < 5; ++i) Submit(method, request, i, {Pair(1, 2)});
  engine_.reset();
  EXPECT_EQ(request.answers.size(), 5u);
  for (const auto& [index, answer] : request.answers) EXPECT_EQ(answer.status.code(), Code::kUnavailable);
}

TEST_F(EngineFailureTest, ABatchMayOutliveTheEngine) {
  const int method = AddFunctionMethod();
  Request request;
  Submit(method, request, 0, {Pair(1, 2)});
  Settle();
  auto batch = engine_->NextBatch(function_);
  engine_.reset();
  EXPECT_EQ(request.status(0).code(), Code::kUnavailable);
  EXPECT_EQ(batch->size(), 1u);
  EXPECT_THAT(Values(batch->inputs(0)[0]), ElementsAre(1, 2));
  batch.reset();
}

TEST_F(EngineFailureTest, ThereAreNoBatchesOfFunctionsThatAreNot) {
  EXPECT_EQ(engine_->NextBatch(0), nullptr);
  EXPECT_EQ(engine_->NextBatch(-1), nullptr);
}

}  // namespace
}  // namespace mindserve::pipeline
