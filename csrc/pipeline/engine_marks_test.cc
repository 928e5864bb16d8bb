// What stages note of the requests that they execute, while they do.
#include "pipeline/engine.h"
#include "pipeline/pipeline_fixture.h"

namespace mindserve::pipeline {
namespace {

using Tags = std::vector<ExecutionTag>;

class EngineMarksTest : public EngineFixture {
 protected:
  void TearDown() override { engine_.reset(); }  // which counts in `stats_` to its end

  // Stages count in `stats_` from here on.
  void Count() {
    std::vector<StageStats*> entries;
    for (size_t i = 0; i < engine_->stages().size(); ++i) entries.push_back(stats_.emplace_back(new StageStats).get());
    engine_->CountIn(entries);
  }
  Tags Executing(size_t stage) const { return stats_.at(stage)->execution.Read().value(); }
  bool Runs(size_t stage) const { return stats_.at(stage)->execution.since_ns() != 0; }

  std::vector<std::unique_ptr<StageStats>> stats_;
};

void Mark(Request& request, ExecutionTag tag, std::atomic<uint32_t>* begun = nullptr) {
  request.context->mark = {.tag = tag, .begun = begun};
}

TEST_F(EngineMarksTest, AModelNotesWhatItRunsWhileItRuns) {
  Tags while_running;
  auto model = AddModelOf({-1, 2}, [&] {
    if (!stats_.empty()) while_running = Executing(0);
  });
  const int method = AddModelMethod(AddShort(model));
  Count();
  Request a(1);
  Request b(2);
  Mark(a, 7);
  Mark(b, 9);
  Submit(method, a, 0, {Pair(1, 2), Pair(3, 4)});
  Submit(method, b, 0, {Pair(1, 2), Pair(3, 4)});
  Settle();
  EXPECT_EQ(while_running, (Tags{7, 9}));
  EXPECT_EQ(Executing(0), Tags{});
  EXPECT_FALSE(Runs(0));
}

TEST_F(EngineMarksTest, EachCallOfAFunctionBeginsAnew) {
  const int function = engine_->AddFunction({.name = "s.f"});
  const int method = AddMethod({FunctionStageSpec(function, {Input(0)})}, {Output(0)}, 1);
  Count();
  Request request;
  Submit(method, request, 0, {Pair(1, 2)});
  Settle();
  const auto batch = engine_->NextBatch(function);
  const int64_t taken = stats_[0]->execution.since_ns();
  time_.Advance(std::chrono::seconds(1));
  batch->BeginCall();
  EXPECT_EQ(stats_[0]->execution.since_ns() - taken, 1'000'000'000);
}

TEST_F(EngineMarksTest, ABatchIsRepeatableIfAllItsMethodsAre) {
  const int function = engine_->AddFunction({.name = "s.f"});
  const int repeatable = AddMethod({FunctionStageSpec(function, {Input(0)})}, {Output(0)}, 1);
  MethodSpec spec = engine_->method(repeatable);
  spec.idempotent = false;
  const int once = engine_->AddMethod(spec).value();
  Request request;
  Submit(repeatable, request, 0, {Pair(1, 2)});
  Settle();
  EXPECT_TRUE(engine_->NextBatch(function)->repeatable());
  Submit(repeatable, request, 1, {Pair(1, 2)});
  Submit(once, request, 2, {Pair(1, 2)});
  Settle();
  EXPECT_FALSE(engine_->NextBatch(function)->repeatable());
}

TEST_F(EngineMarksTest, AFunctionNotesWhatItHasUntilItIsComplete) {
  const int function = engine_->AddFunction({.name = "s.f", .max_batch_size = 1});
  const int method = AddMethod({FunctionStageSpec(function, {Input(0)})}, {Output(0)}, 1);
  Count();
  std::atomic<uint32_t> begun_a{0};
  std::atomic<uint32_t> begun_b{0};
  Request a;
  Request b;
  Mark(a, 7, &begun_a);
  Mark(b, 9, &begun_b);
  Submit(method, a, 0, {Pair(1, 2)});
  Submit(method, b, 0, {Pair(1, 2)});
  Settle();
  EXPECT_EQ(Executing(0), Tags{});
  EXPECT_EQ(begun_a, 0u);
  auto batch = engine_->NextBatch(function);
  EXPECT_EQ(Executing(0), Tags{7});
  EXPECT_TRUE(Runs(0));
  EXPECT_EQ(begun_a, ExecutionMark::Value(7));
  EXPECT_EQ(begun_b, 0u);  // it waits
  std::vector<FunctionResult> results;
  results.emplace_back(Tensors{Pair(1, 2)});
  engine_->Complete(std::move(batch), std::move(results));
  EXPECT_EQ(Executing(0), Tags{});
  EXPECT_FALSE(Runs(0));
  EXPECT_EQ(begun_a, ExecutionMark::Value(7));  // stays: it must not be executed a second time
}

TEST_F(EngineMarksTest, ABatchThatIsDroppedIsOver) {
  const int function = engine_->AddFunction({.name = "s.f"});
  const int method = AddMethod({FunctionStageSpec(function, {Input(0)})}, {Output(0)}, 1);
  Count();
  Request request;
  Mark(request, 7);
  Submit(method, request, 0, {Pair(1, 2)});
  Settle();
  engine_->NextBatch(function).reset();
  EXPECT_EQ(Executing(0), Tags{});
  EXPECT_FALSE(Runs(0));
}

std::shared_ptr<const RequestOrigin> CalledBy(Tags callers) {
  return std::make_shared<const RequestOrigin>(RequestOrigin{.callers = std::move(callers)});
}

TEST_F(EngineMarksTest, WhatAFunctionWaitsForDoesNotWaitForTheFunction) {
  const int function = engine_->AddFunction({.name = "s.f"});
  const int other = engine_->AddFunction({.name = "s.other"});
  const int method = AddMethod({FunctionStageSpec(function, {Input(0)})}, {Output(0)}, 1);
  const int later = AddMethod(
      {FunctionStageSpec(other, {Input(0)}), FunctionStageSpec(function, {Output(0)}, 1, "Later")}, {Output(1)}, 1);
  Count();
  Request outer;
  Mark(outer, 7);
  Submit(method, outer, 0, {Pair(1, 2)});
  Settle();
  auto batch = engine_->NextBatch(function);

  Request inner;
  inner.context->origin = CalledBy({9, 7});
  Submit(method, inner, 0, {Pair(1, 2)});
  Submit(later, inner, 1, {Pair(1, 2)});
  Settle();
  EXPECT_EQ(inner.status(0).code(), Code::kFailedPrecondition);
  EXPECT_THAT(inner.status(0).message(), testing::HasSubstr("function 's.f' waits for this call"));
  RunFunction(other, [](std::span<const Tensor> inputs) { return Tensors{inputs[0]}; });
  Settle();
  EXPECT_THAT(inner.status(1).message(), testing::HasSubstr("Later: function 's.f' waits for this call"));

  // Others wait as ever, and so does what is called once the caller is done.
  Request stranger;
  stranger.context->origin = CalledBy({8});
  Submit(method, stranger, 0, {Pair(1, 2)});
  Settle();
  EXPECT_TRUE(stranger.answers.empty());
  engine_->Complete(std::move(batch), {Tensors{Pair(0, 0)}});
  Submit(method, inner, 2, {Pair(1, 2)});
  Settle();
  EXPECT_FALSE(inner.answers.contains(2));
}

TEST_F(EngineMarksTest, ATakerSeesWhoseItsInstancesAreToTheEnd) {
  const int function = engine_->AddFunction({.name = "s.f", .max_batch_size = 2});
  const int method = AddMethod({FunctionStageSpec(function, {Input(0)})}, {Output(0)}, 1);
  Request one;
  Request two;
  Submit(method, one, 0, {Pair(1, 2)});
  Submit(method, two, 0, {Pair(1, 2)});
  Settle();
  const auto batch = engine_->NextBatch(function);
  ASSERT_EQ(batch->size(), 2u);
  EXPECT_FALSE(batch->request(0)->cancelled);
  engine_->Cancel(*one.context);
  Settle();
  EXPECT_EQ(one.status(0).code(), Code::kCancelled);
  EXPECT_EQ(batch->request(0), one.context) << "though it is answered";
  EXPECT_TRUE(batch->request(0)->cancelled);
  EXPECT_EQ(batch->request(1), two.context);
}

TEST_F(EngineMarksTest, ABatchThatOutlivesTheEngineTouchesNoStatistics) {
  const int function = engine_->AddFunction({.name = "s.f"});
  const int method = AddMethod({FunctionStageSpec(function, {Input(0)})}, {Output(0)}, 1);
  Count();
  Request request;
  Submit(method, request, 0, {Pair(1, 2)});
  Settle();
  auto batch = engine_->NextBatch(function);
  engine_.reset();
  const std::unique_ptr<StageStats> gone = std::move(stats_[0]);
  EXPECT_TRUE(gone->execution.since_ns() != 0);
  batch.reset();
  EXPECT_TRUE(gone->execution.since_ns() != 0);
}

}  // namespace
}  // namespace mindserve::pipeline
