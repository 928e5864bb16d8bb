// Calls from inside the process.
#include <poll.h>

#include "pipeline/engine.h"
#include "pipeline/local_call.h"
#include "pipeline/local_calls.h"
#include "pipeline/pipeline_fixture.h"

namespace mindserve::pipeline {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class EngineLocalTest : public EngineFixture {
 protected:
  void SetUp() override {
    EngineFixture::SetUp();
    model_ = AddModelOf({-1, 2});
    number_ = AddShort(model_);
    by_model_ = AddModelMethod(number_);
    warm_ = model_->rows().size();
    function_ = engine_->AddFunction({.name = "s.f"});
    by_function_ = AddMethod({FunctionStageSpec(function_, {Input(0)})}, {Output(0)}, 1);
    local_ = AddLocal(number_);
  }

  // A method that only local calls are made of: one model stage on two inputs.
  int AddLocal(int model) {
    MethodSpec spec;
    spec.name = "local";
    spec.inputs = {"0", "1"};
    spec.outputs = {"0"};
    spec.stages = {ModelStageSpec(model, {Input(0), Input(1)})};
    spec.results = {Output(0)};
    return engine_->AddLocalMethod(std::move(spec)).value();
  }

  static std::vector<Tensor> Inputs(size_t instances) {
    std::vector<Tensor> inputs;
    for (size_t i = 0; i < instances; ++i) {
      inputs.push_back(Pair(static_cast<float>(i), 1));
      inputs.push_back(Pair(10, 2));
    }
    return inputs;
  }
  std::shared_ptr<LocalCall> Make(size_t instances = 1, LocalCaller caller = {},
                                  std::shared_ptr<DoneCalls> done = nullptr) const {
    return std::make_shared<LocalCall>(
        LocalCall::Terms{.method = local_, .instances = instances, .caller = caller, .done = std::move(done)},
        Inputs(instances));
  }
  std::shared_ptr<LocalCall> Start(size_t instances = 1, LocalCaller caller = {}) {
    auto call = Make(instances, caller);
    EXPECT_EQ(engine_->Start(call), Status::Ok());
    return call;
  }
  static bool IsDone(LocalCall& call) { return call.WaitFor(0s); }

  void ToModel(Request& request, uint32_t index = 0) { Submit(by_model_, request, index, {Pair(1, 2), Pair(3, 4)}); }
  void ToFunction(Request& request, uint32_t index = 0) { Submit(by_function_, request, index, {Pair(1, 2)}); }
  void Take() { batch_ = engine_->NextBatch(function_); }
  void Complete() {
    std::vector<FunctionResult> results;
    for (size_t i = 0; i < batch_->size(); ++i) results.emplace_back(Tensors{Pair(0, 0)});
    engine_->Complete(std::move(batch_), std::move(results));
    Settle();
  }
  // Sizes of the model's runs for requests and calls.
  std::vector<int64_t> Runs() const {
    std::vector<int64_t> rows = model_->rows();
    rows.erase(rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(warm_));
    return rows;
  }

  static inline const LocalCaller kStage{.in_stage = true};

  std::shared_ptr<TestModel> model_;
  size_t warm_ = 0;
  int number_ = 0;
  int by_model_ = 0;
  int function_ = 0;
  int by_function_ = 0;
  int local_ = 0;
  std::unique_ptr<FunctionBatch> batch_;
};

TEST_F(EngineLocalTest, ACallGivesTheOutputsOfEachInstance) {
  Settle();
  auto call = Start(3);
  EXPECT_FALSE(IsDone(*call));
  Settle();
  ASSERT_TRUE(IsDone(*call));
  EXPECT_EQ(call->status(), Status::Ok());
  for (size_t i = 0; i < 3; ++i) {
    ASSERT_EQ(call->outputs(i).size(), 1u);
    EXPECT_THAT(Values(call->outputs(i)[0]), ElementsAre(10 + static_cast<float>(i), 3));
  }
  EXPECT_EQ(engine_->in_flight(), 0u);
}

TEST_F(EngineLocalTest, CallsOfManyThreadsShareBatchesWithRequests) {
  Settle();
  Request request;
  ToModel(request);
  std::vector<std::shared_ptr<LocalCall>> calls(5);
  std::vector<std::thread> threads;
  for (auto& call : calls) threads.emplace_back([&] { call = Start(2); });
  for (std::thread& thread : threads) thread.join();
  Settle();
  EXPECT_THAT(Runs(), ElementsAre(11));
  EXPECT_THAT(request.values(0), ElementsAre(4, 6));
  for (const auto& call : calls) EXPECT_THAT(Values(call->outputs(1)[0]), ElementsAre(11, 3));
}

TEST_F(EngineLocalTest, ThreadsWaitForTheirCalls) {
  Settle();
  std::atomic<int> right{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) {
        auto call = Start();
        call->Wait();
        if (call->status().ok() && Values(call->outputs(0)[0]) == std::vector<float>{10, 3}) ++right;
      }
      const std::lock_guard lock(mutex_);
      ++wakes_;
      woken_.notify_all();
    });
  }
  PollUntil([&] { return right == 400; });
  for (std::thread& thread : threads) thread.join();
}

TEST_F(EngineLocalTest, ItsMethodsAreNotThoseOfTheLink) {
  EXPECT_EQ(engine_->methods(), 2u);
  EXPECT_EQ(engine_->AddMethod(engine_->method(by_model_)).status().code(), Code::kFailedPrecondition);
  EXPECT_TRUE(engine_->AddLocalMethod(engine_->method(by_model_)).ok());
  EXPECT_EQ(engine_->methods(), 2u);
}

TEST_F(EngineLocalTest, TheFirstInstanceThatFailsIsTheCallsError) {
  Settle();
  std::vector<Tensor> inputs = Inputs(4);
  inputs[5] = Floats({3}, {1, 2, 3});
  inputs[2] = Floats({1}, {1});
  auto call = std::make_shared<LocalCall>(LocalCall::Terms{.method = local_, .instances = 4}, std::move(inputs));
  EXPECT_EQ(engine_->Start(call), Status::Ok());
  Settle();
  ASSERT_TRUE(IsDone(*call));
  EXPECT_EQ(call->failed(), 1u);
  EXPECT_EQ(call->status(),
            Status(Code::kInvalidArgument, "Given model input 0 size 4 not match the size 8 defined in model"));
}

TEST_F(EngineLocalTest, ALargeCallIsSubmittedInSteps) {
  Settle();
  auto large = Start(3 * kSubmitInstances);
  auto small = Start();
  engine_->Poll();
  EXPECT_FALSE(IsDone(*large));
  engine_->Poll();
  EXPECT_TRUE(IsDone(*small));
  EXPECT_FALSE(IsDone(*large));
  Settle();
  ASSERT_TRUE(IsDone(*large));
  EXPECT_THAT(Values(large->outputs(3 * kSubmitInstances - 1)[0]),
              ElementsAre(10 + static_cast<float>(3 * kSubmitInstances - 1), 3));
}

TEST_F(EngineLocalTest, WhatIsTooLateIsNotRun) {
  Settle();
  auto call = Start(2, {.deadline = time_.Now() + 1ms});
  time_.Advance(1ms);
  Settle();
  ASSERT_TRUE(IsDone(*call));
  EXPECT_EQ(call->status().code(), Code::kDeadlineExceeded);
  EXPECT_THAT(Runs(), IsEmpty());
}

TEST_F(EngineLocalTest, ACancelledCallIsNotRun) {
  Settle();
  auto cancelled = Start(2);
  auto other = Start();
  engine_->CancelCall(cancelled);
  Settle();
  ASSERT_TRUE(IsDone(*cancelled));
  EXPECT_EQ(cancelled->status().code(), Code::kCancelled);
  EXPECT_EQ(other->status(), Status::Ok());
  EXPECT_THAT(Runs(), ElementsAre(1));
  engine_->CancelCall(cancelled);  // it is done
  engine_->CancelCall(Make());     // it never began
  Settle();
  EXPECT_EQ(engine_->in_flight(), 0u);
}

TEST_F(EngineLocalTest, ACallOfWhichAPartIsSubmittedCanBeCancelled) {
  Settle();
  auto call = Start(2 * kSubmitInstances);
  engine_->Poll();
  engine_->CancelCall(call);
  const size_t runs = Runs().size();
  Settle();
  ASSERT_TRUE(IsDone(*call));
  EXPECT_EQ(call->status().code(), Code::kCancelled);
  EXPECT_EQ(Runs().size(), runs);
}

TEST_F(EngineLocalTest, ClientsOfCallsTakeTurns) {
  std::vector<float> order;
  auto model = std::make_shared<TestModel>(std::vector{FloatSpec("x1", {1, 2}), FloatSpec("x2", {1, 2})},
                                           std::vector{FloatSpec("y", {1, 2})},
                                           [&](std::span<const Tensor> inputs) -> Result<Tensors> {
                                             order.push_back(Values(inputs[0])[0]);
                                             return Tensors{Sum(inputs)};
                                           });
  local_ = AddLocal(AddShort(model));
  order.clear();
  Settle();
  const auto start = [&](uint64_t client, float value) {
    auto call = std::make_shared<LocalCall>(LocalCall::Terms{.method = local_, .caller = {.client = client}},
                                            std::vector{Pair(value, 0), Pair(0, 0)});
    EXPECT_EQ(engine_->Start(call), Status::Ok());
  };
  for (const float value : {1, 2, 3}) start(7, value);
  start(8, 4);
  Settle();
  EXPECT_THAT(order, ElementsAre(1, 4, 2, 3));
}

TEST_F(EngineLocalTest, BeforeTheFirstPollAndAfterTheEndThereAreNone) {
  EXPECT_EQ(engine_->Start(Make()), Status(Code::kFailedPrecondition, "the worker does not serve yet"));
  Settle();
  auto call = Start();
  engine_->Stop();
  EXPECT_EQ(engine_->Start(Make()), Status(Code::kUnavailable, "worker stopping"));
  EXPECT_FALSE(IsDone(*call));
  Settle();
  ASSERT_TRUE(IsDone(*call));
  EXPECT_EQ(call->status().code(), Code::kUnavailable);
  EXPECT_THAT(Runs(), IsEmpty());
}

TEST_F(EngineLocalTest, TheEndFailsWhatIsQueuedAndWhatIsNotSubmitted) {
  Settle();
  Request suspect;
  suspect.context->alone = true;
  ToFunction(suspect);
  Settle();
  Take();
  auto queued = Start(2);
  auto large = Start(3 * kSubmitInstances);
  engine_->Poll();
  auto waiting = Start();
  batch_.reset();
  engine_.reset();
  for (const auto& call : {queued, large, waiting}) {
    ASSERT_TRUE(IsDone(*call));
    EXPECT_EQ(call->status().code(), Code::kUnavailable);
  }
}

TEST_F(EngineLocalTest, ADescriptorTellsOfWhatIsDone) {
  Settle();
  auto done = DoneCalls::Create().value();
  const auto readable = [&] {
    pollfd polled{.fd = done->fd(), .events = POLLIN, .revents = 0};
    return ::poll(&polled, 1, 0) == 1;
  };
  std::vector<std::shared_ptr<LocalCall>> taken;
  auto first = Make(1, {}, done);
  auto second = Make(2, {}, done);
  EXPECT_EQ(engine_->Start(first), Status::Ok());
  EXPECT_EQ(engine_->Start(second), Status::Ok());
  EXPECT_FALSE(readable());
  Settle();
  EXPECT_TRUE(readable());
  done->Take(&taken);
  EXPECT_THAT(taken, ElementsAre(first, second));
  EXPECT_FALSE(readable());
  done->Take(&taken);
  EXPECT_THAT(taken, IsEmpty());
  engine_->Stop();
  EXPECT_EQ(engine_->Start(Make(1, {}, done)).code(), Code::kUnavailable);
  EXPECT_FALSE(readable());
}

TEST_F(EngineLocalTest, ScopesSayForWhomAThreadCalls) {
  EXPECT_EQ(CallerScope::current().client, 0u);
  {
    const CallerScope outer({.client = 3, .in_stage = true});
    EXPECT_EQ(CallerScope::current().client, 3u);
    {
      const CallerScope inner({.client = 4});
      EXPECT_EQ(CallerScope::current().client, 4u);
      EXPECT_FALSE(CallerScope::current().in_stage);
    }
    EXPECT_TRUE(CallerScope::current().in_stage);
    std::thread([] { EXPECT_EQ(CallerScope::current().client, 0u); }).join();
  }
  EXPECT_EQ(CallerScope::current().client, 0u);
}

// --- While a request is executed alone ---

TEST_F(EngineLocalTest, WhatAFunctionCallsForARequestThatIsExecutedAloneIsPartOfIt) {
  Settle();
  Request suspect;
  Request other;
  suspect.context->alone = true;
  ToFunction(suspect);
  Settle();
  Take();
  ToModel(other);
  auto others = Start();
  auto inner = Start(2, kStage);
  Settle();
  ASSERT_TRUE(IsDone(*inner));
  EXPECT_EQ(inner->status(), Status::Ok());
  EXPECT_THAT(Runs(), ElementsAre(1, 1));
  EXPECT_FALSE(IsDone(*others));
  EXPECT_THAT(other.answers, IsEmpty());
  Complete();
  EXPECT_THAT(Runs(), ElementsAre(1, 1, 2));
  EXPECT_TRUE(IsDone(*others));
  EXPECT_EQ(other.answers.size(), 1u);
}

TEST_F(EngineLocalTest, WhatAFunctionCallsWhileQueuesArePausedForItIsNotHeldUp) {
  Settle();
  Request other;
  Request suspect;
  suspect.context->alone = true;
  ToFunction(other);
  Settle();
  Take();
  ToFunction(suspect);
  Settle();
  auto inner = Start(2, kStage);
  Settle();
  EXPECT_TRUE(IsDone(*inner));
  EXPECT_THAT(suspect.answers, IsEmpty());
  Complete();
  Take();
  Complete();
  EXPECT_EQ(suspect.answers.size(), 1u);
}

TEST_F(EngineLocalTest, WhatAFunctionHasCalledBeforeQueuesArePausedIsNotHeldUp) {
  Gate gate;
  auto model = AddModelOf({-1, 2}, [&] { gate.Pass(); });
  local_ = AddLocal(Add(model, {.max_batch_size = 2}));
  Settle();
  Request other;
  Request suspect;
  suspect.context->alone = true;
  ToFunction(other);
  Settle();
  Take();
  auto inner = Start(4, kStage);
  Settle();
  gate.AwaitSomebody();
  ToFunction(suspect);
  Settle();
  gate.Open();
  PollUntil([&] { return IsDone(*inner); });
  EXPECT_THAT(model->rows(), ElementsAre(2, 1, 1));
  EXPECT_THAT(suspect.answers, IsEmpty());
  Complete();
  Take();
  Complete();
  EXPECT_EQ(suspect.answers.size(), 1u);
}

TEST_F(EngineLocalTest, ACallOfAnotherThreadPassesAfterAWhileSinceTheOneAloneMayWaitForIt) {
  Settle();
  Request suspect;
  suspect.context->alone = true;
  ToFunction(suspect);
  Settle();
  Take();
  auto helper = Start();
  const TimePoint again = Settle();
  EXPECT_FALSE(IsDone(*helper));
  ASSERT_LT(again, time_.Now() + 10s);
  time_.Advance(again - time_.Now());
  EXPECT_EQ(Settle(), kNever);
  EXPECT_TRUE(IsDone(*helper));
  EXPECT_THAT(suspect.answers, IsEmpty());
  Complete();
  EXPECT_EQ(suspect.answers.size(), 1u);
}

TEST_F(EngineLocalTest, AFunctionWhoseRequestIsGivenUpMayStillCall) {
  Settle();
  Request suspect;
  Request other;
  suspect.context->alone = true;
  ToFunction(suspect);
  Settle();
  Take();
  engine_->Cancel(*suspect.context);
  auto inner = Start(1, kStage);
  Settle();
  EXPECT_TRUE(IsDone(*inner));
  ToModel(other);
  time_.Advance(10s);
  Settle();
  EXPECT_EQ(other.answers.size(), 1u);
  auto later = Start(1, kStage);
  Settle();
  EXPECT_TRUE(IsDone(*later));
  Complete();
  EXPECT_EQ(engine_->in_flight(), 0u);
}

}  // namespace
}  // namespace mindserve::pipeline
