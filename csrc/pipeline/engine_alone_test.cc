// Requests that are executed while nothing else is.
#include "pipeline/engine.h"
#include "pipeline/pipeline_fixture.h"

namespace mindserve::pipeline {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class EngineAloneTest : public EngineFixture {
 protected:
  void SetUp() override {
    EngineFixture::SetUp();
    model_ = AddModelOf({-1, 2});
    by_model_ = AddModelMethod(AddShort(model_));
    warm_ = model_->rows().size();
    function_ = engine_->AddFunction({.name = "s.f"});
    by_function_ = AddMethod({FunctionStageSpec(function_, {Input(0)})}, {Output(0)}, 1);
  }

  void ToFunction(Request& request, uint32_t index, float value) {
    Submit(by_function_, request, index, {Pair(value, value)});
  }
  void ToModel(Request& request, uint32_t index = 0) { Submit(by_model_, request, index, {Pair(1, 2), Pair(3, 4)}); }

  // What the function is handed next, by the values that it was sent with.
  std::vector<float> Next() {
    batch_ = engine_->NextBatch(function_);
    std::vector<float> values;
    for (size_t i = 0; i < batch_->size(); ++i) values.push_back(Values(batch_->inputs(i)[0])[0]);
    return values;
  }
  void Complete() {
    std::vector<FunctionResult> results;
    for (size_t i = 0; i < batch_->size(); ++i) results.emplace_back(Tensors{Pair(0, 0)});
    engine_->Complete(std::move(batch_), std::move(results));
    Settle();
  }
  // Sizes of the model's runs for requests.
  std::vector<int64_t> Runs() const {
    std::vector<int64_t> rows = model_->rows();
    rows.erase(rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(warm_));
    return rows;
  }

  std::shared_ptr<TestModel> model_;
  size_t warm_ = 0;
  int by_model_ = 0;
  int function_ = 0;
  int by_function_ = 0;
  std::unique_ptr<FunctionBatch> batch_;
};

TEST_F(EngineAloneTest, NothingElseIsExecutedMeanwhile) {
  Request other;
  Request suspect;
  suspect.context->alone = true;
  ToFunction(other, 0, 1);
  Settle();
  EXPECT_THAT(Next(), ElementsAre(1));
  ToFunction(suspect, 0, 2);
  ToFunction(other, 1, 3);
  ToModel(other, 2);
  Settle();
  EXPECT_THAT(Runs(), IsEmpty());  // the suspect waits for what is executed, the others for the suspect
  Complete();
  EXPECT_THAT(Next(), ElementsAre(2));
  Settle();
  EXPECT_THAT(Runs(), IsEmpty());
  Complete();
  EXPECT_TRUE(suspect.status(0).ok());
  EXPECT_THAT(Runs(), ElementsAre(1));
  EXPECT_THAT(Next(), ElementsAre(3));
  Complete();
  EXPECT_EQ(other.answers.size(), 3u);
}

TEST_F(EngineAloneTest, WhatItHasCalledIsExecuted) {
  Request suspect;
  suspect.context->alone = true;
  suspect.context->mark.tag = 7;
  ToFunction(suspect, 0, 1);
  Settle();
  EXPECT_THAT(Next(), ElementsAre(1));
  Request other;
  ToModel(other);
  Request stranger;
  stranger.context->origin = std::make_shared<const RequestOrigin>(RequestOrigin{.callers = {8}});
  ToModel(stranger);
  Settle();
  EXPECT_THAT(Runs(), IsEmpty());
  Request called;
  called.context->origin = std::make_shared<const RequestOrigin>(RequestOrigin{.callers = {9, 7}});
  ToModel(called);
  Settle();
  EXPECT_TRUE(called.answers.contains(0));
  EXPECT_THAT(Runs(), ElementsAre(1));
  Complete();
  EXPECT_THAT(Runs(), ElementsAre(1, 2));
}

TEST_F(EngineAloneTest, ItsInstancesGoOneByOneThroughAllTheirStages) {
  const int both =
      AddMethod({FunctionStageSpec(function_, {Input(0)}), ModelStageSpec(0, {Output(0), Input(0)})}, {Output(1)}, 1);
  Request suspect;
  suspect.context->alone = true;
  for (uint32_t i = 0; i < 3; ++i) Submit(both, suspect, i, {Pair(static_cast<float>(i), 0)});
  Settle();
  for (float i = 0; i < 3; ++i) {
    EXPECT_THAT(Next(), ElementsAre(i));
    Complete();
  }
  EXPECT_THAT(Runs(), ElementsAre(1, 1, 1));
  EXPECT_THAT(suspect.order, ElementsAre(0, 1, 2));
}

TEST_F(EngineAloneTest, AfterOneTheOthersHaveATurn) {
  Request first;
  Request second;
  Request other;
  first.context->alone = second.context->alone = true;
  ToFunction(first, 0, 1);
  ToFunction(second, 0, 2);
  ToFunction(other, 0, 3);
  Settle();
  EXPECT_THAT(Next(), ElementsAre(1));
  ToModel(other, 1);
  Complete();
  EXPECT_THAT(Runs(), ElementsAre(1));
  EXPECT_THAT(Next(), ElementsAre(3));
  ToModel(other, 2);
  Settle();
  EXPECT_THAT(Runs(), ElementsAre(1));  // the second's turn: it waits for the function
  Complete();
  EXPECT_THAT(Next(), ElementsAre(2));
  Complete();
  EXPECT_THAT(Runs(), ElementsAre(1, 1));
  EXPECT_EQ(engine_->in_flight(), 0u);
}

TEST_F(EngineAloneTest, ACancelledOneLeavesTheLine) {
  Request other;
  Request suspect;
  suspect.context->alone = true;
  ToFunction(other, 0, 1);
  Settle();
  Next();
  ToFunction(suspect, 0, 2);
  ToFunction(suspect, 1, 2);
  ToModel(other, 1);
  Settle();
  EXPECT_THAT(Runs(), IsEmpty());
  engine_->Cancel(*suspect.context);
  Settle();
  EXPECT_EQ(suspect.status(0).code(), Code::kCancelled);
  EXPECT_EQ(suspect.status(1).code(), Code::kCancelled);
  EXPECT_THAT(Runs(), ElementsAre(1));
  Complete();
  EXPECT_EQ(engine_->in_flight(), 0u);
}

TEST_F(EngineAloneTest, OneThatIsCancelledWhileItRunsIsStillAlone) {
  Request other;
  Request suspect;
  suspect.context->alone = true;
  ToFunction(suspect, 0, 1);
  ToFunction(suspect, 1, 2);
  Settle();
  EXPECT_THAT(Next(), ElementsAre(1));
  ToModel(other, 0);
  engine_->Cancel(*suspect.context);
  Settle();
  EXPECT_EQ(suspect.answers.size(), 2u);
  EXPECT_THAT(Runs(), IsEmpty());
  Complete();
  EXPECT_THAT(Runs(), ElementsAre(1));
}

TEST_F(EngineAloneTest, OneThatNobodyWaitsForHoldsUpTheOthersOnlyForAWhile) {
  Request other;
  Request suspect;
  suspect.context->alone = true;
  ToFunction(suspect, 0, 1);
  Settle();
  EXPECT_THAT(Next(), ElementsAre(1));
  ToModel(other, 0);
  engine_->Cancel(*suspect.context);
  const TimePoint again = Settle();
  EXPECT_THAT(Runs(), IsEmpty());
  ASSERT_LT(again, time_.Now() + 10s);
  time_.Advance(again - time_.Now());
  Settle();
  EXPECT_THAT(Runs(), ElementsAre(1));
  Complete();
  EXPECT_EQ(engine_->in_flight(), 0u);
}

TEST_F(EngineAloneTest, OneInLineExpires) {
  Request other;
  Request suspect(1, time_.Now() + 1s);
  suspect.context->alone = true;
  ToFunction(other, 0, 1);
  Settle();
  Next();
  ToFunction(suspect, 0, 2);
  EXPECT_LE(Settle(), time_.Now() + 1s);
  time_.Advance(2s);
  Settle();
  EXPECT_EQ(suspect.status(0), Status(Code::kDeadlineExceeded, "the deadline passed before function 's.f' could run"));
  ToModel(other, 1);
  Settle();
  EXPECT_THAT(Runs(), ElementsAre(1));
  Complete();
}

TEST_F(EngineAloneTest, AStageThatHangsHoldsUpTheLineButNotTheOthers) {
  Request other;
  Request suspect;
  suspect.context->alone = true;
  ToFunction(other, 0, 1);
  ToFunction(other, 1, 2);
  Settle();
  EXPECT_THAT(Next(), ElementsAre(1, 2));
  ToFunction(suspect, 0, 3);
  ToModel(other, 2);
  ToFunction(other, 3, 4);
  const TimePoint again = Settle();
  EXPECT_THAT(Runs(), IsEmpty());
  ASSERT_LT(again, time_.Now() + 10s);
  time_.Advance(again - time_.Now());
  Settle();
  EXPECT_THAT(Runs(), ElementsAre(1));  // the others go on
  ToModel(other, 4);
  Settle();
  EXPECT_THAT(Runs(), ElementsAre(1, 1));
  Complete();
  EXPECT_THAT(Next(), ElementsAre(3));  // its turn comes before the stage's others
  ToModel(other, 5);
  Settle();
  EXPECT_THAT(Runs(), ElementsAre(1, 1));
  Complete();
  EXPECT_THAT(Runs(), ElementsAre(1, 1, 1));
  EXPECT_THAT(Next(), ElementsAre(4));
  Complete();
  EXPECT_EQ(engine_->in_flight(), 0u);
}

TEST_F(EngineAloneTest, StagesThatAreSlowByTurnsDoNotKeepItWaiting) {
  const int slow = engine_->AddFunction({.name = "s.g"});
  const int by_slow = AddMethod({FunctionStageSpec(slow, {Input(0)})}, {Output(0)}, 1);
  Request other;
  Request suspect;
  suspect.context->alone = true;
  const auto wait = [&] {
    const TimePoint again = Settle();
    ASSERT_LT(again, time_.Now() + 10s);
    time_.Advance(again - time_.Now());
    Settle();
  };
  ToFunction(other, 0, 1);
  Settle();
  EXPECT_THAT(Next(), ElementsAre(1));
  ToFunction(suspect, 0, 2);
  Submit(by_slow, other, 1, {Pair(3, 3)});
  wait();  // for the first, in vain: the second goes on
  auto batch = engine_->NextBatch(slow);
  Complete();
  ToFunction(other, 2, 4);
  ToModel(other, 3);
  Settle();
  time_.Advance(600ms);  // now for the second, for longer than before
  Settle();
  EXPECT_THAT(Runs(), IsEmpty());
  std::vector<FunctionResult> results;
  results.emplace_back(Tensors{Pair(0, 0)});
  engine_->Complete(std::move(batch), std::move(results));
  Settle();
  EXPECT_THAT(Next(), ElementsAre(2));
  EXPECT_THAT(Runs(), IsEmpty());
  Complete();
  EXPECT_THAT(Runs(), ElementsAre(1));
  EXPECT_THAT(Next(), ElementsAre(4));
  Complete();
  EXPECT_EQ(engine_->in_flight(), 0u);
}

TEST_F(EngineAloneTest, StoppingEndsThem) {
  Request other;
  Request running;
  Request waiting;
  running.context->alone = waiting.context->alone = true;
  ToFunction(running, 0, 1);
  ToFunction(waiting, 0, 2);
  ToFunction(other, 0, 3);
  Settle();
  Next();
  engine_->Stop();
  Settle();
  for (Request* request : {&running, &waiting, &other}) EXPECT_EQ(request->status(0).code(), Code::kUnavailable);
  batch_.reset();
  Settle();
}

}  // namespace
}  // namespace mindserve::pipeline
