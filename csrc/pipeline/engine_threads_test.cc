// Models and functions on threads of their own.
#include <random>

#include "pipeline/engine.h"
#include "pipeline/pipeline_fixture.h"

namespace mindserve::pipeline {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;

class EngineThreadsTest : public EngineFixture {};

TEST_F(EngineThreadsTest, AnUnknownModelRunsOnItsOwnThreadFirst) {
  auto model = AddModelOf({-1, 2});
  const int method = AddModelMethod(Add(model));
  Request request;
  Submit(method, request, 0, {Pair(1, 2), Pair(3, 4)});
  PollUntil([&] { return request.answers.size() == 1; });
  EXPECT_NE(model->threads().at(0), std::this_thread::get_id());
  EXPECT_THAT(request.values(0), ElementsAre(4, 6));
  // It took no time: the next runs here.
  Submit(method, request, 1, {Pair(1, 2), Pair(3, 4)});
  Settle();
  EXPECT_EQ(model->threads().at(1), std::this_thread::get_id());
}

TEST_F(EngineThreadsTest, ASlowModelMovesToItsOwnThreadAndBack) {
  std::atomic<int64_t> takes_us{0};
  auto model = AddModelOf({-1, 2}, [&] { time_.Advance(std::chrono::microseconds(takes_us)); });
  const int method = AddModelMethod(AddShort(model));
  Request request;
  uint32_t sent = 0;
  const auto run = [&] {
    Submit(method, request, sent++, {Pair(1, 2), Pair(3, 4)});
    PollUntil([&] { return request.answers.size() == sent; });
    return model->threads().back() == std::this_thread::get_id();
  };
  EXPECT_TRUE(run());
  takes_us = 1000;
  EXPECT_TRUE(run());  // nobody could know
  EXPECT_FALSE(run());
  takes_us = 150;  // short enough to stay, not to come back
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(run());
  takes_us = 10;
  bool back = false;
  for (int i = 0; i < 100 && !back; ++i) back = run();
  EXPECT_TRUE(back);
  takes_us = 150;
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(run());
}

TEST_F(EngineThreadsTest, AModelWithATimeoutStaysOnItsOwnThread) {
  auto model = AddModelOf({-1, 2});
  const int method = AddModelMethod(AddShort(model, {.timeout = 1s}));
  Request request;
  for (uint32_t i = 0; i < 3; ++i) {
    Submit(method, request, i, {Pair(1, 2), Pair(3, 4)});
    PollUntil([&] { return request.answers.size() == i + 1; });
    EXPECT_NE(model->threads().back(), std::this_thread::get_id());
  }
}

TEST_F(EngineThreadsTest, WhileAModelRunsItsQueueFills) {
  Gate gate;
  auto model = AddModelOf({-1, 2}, [&] { gate.Pass(); });
  const int method = AddModelMethod(Add(model));
  Request request;
  Submit(method, request, 0, {Pair(1, 2), Pair(3, 4)});
  engine_->Poll();
  gate.AwaitSomebody();
  for (uint32_t i = 1; i < 11; ++i) Submit(method, request, i, {Pair(1, 2), Pair(3, 4)});
  EXPECT_EQ(Settle(), kNever);
  EXPECT_EQ(engine_->in_flight(), 11u);
  gate.Open();
  PollUntil([&] { return request.answers.size() == 11; });
  EXPECT_THAT(model->rows(), ElementsAre(1, 10));
}

TEST_F(EngineThreadsTest, AModelOnItsThreadWaitsForTheWindow) {
  auto model = AddModelOf({-1, 2});
  const int method = AddModelMethod(Add(model, {.max_batch_size = 2, .max_queue_delay = 1h}));
  Request request;
  Submit(method, request, 0, {Pair(1, 2), Pair(3, 4)});
  Settle();
  Submit(method, request, 1, {Pair(1, 2), Pair(3, 4)});
  PollUntil([&] { return request.answers.size() == 2; });
  EXPECT_THAT(model->rows(), ElementsAre(2));
}

TEST_F(EngineThreadsTest, OthersGoOnWhileAModelRuns) {
  Gate gate;
  const int slow = AddModelMethod(Add(AddModelOf({-1, 2}, [&] { gate.Pass(); })));
  const int fast = AddModelMethod(AddShort(AddModelOf({-1, 2})));
  Request request;
  Submit(slow, request, 0, {Pair(1, 2), Pair(3, 4)});
  engine_->Poll();
  gate.AwaitSomebody();
  Submit(fast, request, 1, {Pair(1, 2), Pair(3, 4)});
  Settle();
  EXPECT_TRUE(request.status(1).ok());
  EXPECT_EQ(request.answers.size(), 1u);
  gate.Open();
  PollUntil([&] { return request.answers.size() == 2; });
}

TEST_F(EngineThreadsTest, WhatAModelRunsAndWhatWaitsForItCanBeCancelled) {
  Gate gate;
  auto model = AddModelOf({-1, 2}, [&] { gate.Pass(); });
  const int method = AddModelMethod(Add(model));
  Request request;
  Request other;
  Submit(method, request, 0, {Pair(1, 2), Pair(3, 4)});
  engine_->Poll();
  gate.AwaitSomebody();
  Submit(method, request, 1, {Pair(1, 2), Pair(3, 4)});
  Submit(method, other, 0, {Pair(5, 6), Pair(3, 4)});
  engine_->Cancel(*request.context);
  Settle();
  EXPECT_EQ(request.status(0).code(), Code::kCancelled);
  EXPECT_EQ(request.status(1).code(), Code::kCancelled);
  EXPECT_EQ(engine_->in_flight(), 1u);
  gate.Open();
  PollUntil([&] { return !other.answers.empty(); });
  EXPECT_THAT(other.values(0), ElementsAre(8, 10));
  EXPECT_THAT(model->rows(), ElementsAre(1, 1));
  EXPECT_EQ(request.answers.size(), 2u);
}

TEST_F(EngineThreadsTest, TheExpiredAreAnsweredWhileTheModelRuns) {
  Gate gate;
  const int method = AddModelMethod(Add(AddModelOf({-1, 2}, [&] { gate.Pass(); })));
  Request running;
  Request late(2, time_.Now() + 20ms);
  Submit(method, running, 0, {Pair(1, 2), Pair(3, 4)});
  engine_->Poll();
  gate.AwaitSomebody();
  Submit(method, late, 0, {Pair(1, 2), Pair(3, 4)});
  EXPECT_EQ(Settle(), time_.Now() + 20ms);
  time_.Advance(20ms);
  Settle();
  EXPECT_EQ(late.status(0).code(), Code::kDeadlineExceeded);
  gate.Open();
  PollUntil([&] { return !running.answers.empty(); });
}

TEST_F(EngineThreadsTest, StopAnswersWhatAModelRuns) {
  Gate gate;
  const int method = AddModelMethod(Add(AddModelOf({-1, 2}, [&] { gate.Pass(); })));
  Request request;
  Submit(method, request, 0, {Pair(1, 2), Pair(3, 4)});
  engine_->Poll();
  gate.AwaitSomebody();
  Submit(method, request, 1, {Pair(1, 2), Pair(3, 4)});
  std::thread([&] { engine_->Stop(); }).join();
  Settle();
  EXPECT_EQ(request.status(0).code(), Code::kUnavailable);
  EXPECT_EQ(request.status(1).code(), Code::kUnavailable);
  gate.Open();
  engine_.reset();
  EXPECT_EQ(request.answers.size(), 2u);
}

TEST_F(EngineThreadsTest, StopEndsFunctionThreads) {
  const int function = engine_->AddFunction({.name = "s.f"});
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] { EXPECT_EQ(engine_->NextBatch(function), nullptr); });
  }
  engine_->Stop();
  for (std::thread& thread : threads) thread.join();
}

// Everything at once: functions on three threads, a model on its own thread, one on the runtime thread, cancellations,
// deadlines, failures; and an answer for each.
TEST(EngineStressTest, EveryInstanceIsAnsweredOnce) {
  SystemTime time;
  std::mutex mutex;
  std::condition_variable woken;
  bool wake = false;
  Engine engine(time, [&] {
    const std::lock_guard lock(mutex);
    wake = true;
    woken.notify_all();
  });
  const auto slow = AddModelOf({-1, 2}, [] { std::this_thread::yield(); });
  const auto fast = AddModelOf({4, 2});
  const int slow_model = engine.AddModel(slow, {.name = "slow", .max_batch_size = 8}).value();
  const int fast_model = engine.AddModel(fast, {.name = "fast"}).value();
  ASSERT_TRUE(engine.WarmUp(fast_model).ok());
  const int function = engine.AddFunction({.name = "s.f", .max_batch_size = 5});
  const int other = engine.AddFunction({.name = "s.g", .max_batch_size = 3, .max_queue_delay = 100us});
  MethodSpec spec;
  spec.name = "m";
  spec.inputs = {"a", "b"};
  spec.outputs = {"y", "z"};
  spec.stages = {FunctionStageSpec(function, {Input(0)}), ModelStageSpec(slow_model, {Output(0), Input(1)}),
                 FunctionStageSpec(other, {Output(1)}), ModelStageSpec(fast_model, {Output(2), Output(1)})};
  spec.results = {Output(3), Input(1)};
  const int method = engine.AddMethod(spec).value();

  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&engine, which = i < 2 ? function : other, i] {
      int batches = 0;
      while (auto batch = engine.NextBatch(which)) {
        std::vector<FunctionResult> results;
        for (size_t n = 0; n < batch->size(); ++n) {
          const Tensor& input = batch->inputs(n)[0];
          if (Values(input)[0] == 13) {
            results.emplace_back(Status(Code::kInvalidArgument, "unlucky"));
          } else {
            results.emplace_back(Tensors{input});
          }
        }
        if (++batches % 50 == 49 && i == 0) continue;  // the batch is dropped
        engine.Complete(std::move(batch), std::move(results));
      }
    });
  }

  constexpr size_t kRequests = 400;
  constexpr uint32_t kInstances = 10;
  std::mt19937 random(7);
  std::vector<std::unique_ptr<Request>> requests;
  size_t answered = 0;
  const auto poll = [&] {
    const TimePoint next = engine.Poll();
    answered = 0;
    for (const auto& request : requests) answered += request->answers.size();
    return next;
  };
  for (size_t r = 0; r < kRequests; ++r) {
    const TimePoint deadline = r % 7 == 0 ? time.Now() + std::chrono::microseconds(random() % 3000) : kNever;
    Request& request = *requests.emplace_back(std::make_unique<Request>(r % 5, deadline));
    for (uint32_t i = 0; i < kInstances; ++i) {
      Tensors inputs = {Pair(static_cast<float>(i + r % 4), 1), Pair(100, 200)};
      engine.Submit(method, request.context, i, inputs, time.Now());
    }
    if (r % 3 == 0) engine.Poll();
    if (r % 11 == 0) engine.Cancel(*requests[random() % requests.size()]->context);
  }
  while (poll(), answered < kRequests * kInstances) {
    if (engine.in_flight() == 0) break;
    std::unique_lock lock(mutex);
    woken.wait_for(lock, 1ms, [&] { return wake; });
    wake = false;
  }
  EXPECT_EQ(answered, kRequests * kInstances);
  size_t right = 0;
  for (size_t r = 0; r < kRequests; ++r) {
    for (const auto& [i, answer] : requests[r]->answers) {
      if (!answer.status.ok()) continue;
      ++right;
      const float a = static_cast<float>(i + r % 4);
      EXPECT_THAT(Values(answer.outputs[0]), ElementsAre(2 * (a + 100), 2 * 201));
      EXPECT_THAT(Values(answer.outputs[1]), ElementsAre(100, 200));
    }
  }
  EXPECT_GT(right, 0u);
  engine.Stop();
  for (std::thread& thread : threads) thread.join();
}

// Stop in the middle of it.
TEST(EngineStressTest, StopLosesNobody) {
  for (int round = 0; round < 10; ++round) {
    SystemTime time;
    auto engine = std::make_unique<Engine>(time, [] {});
    const int model = engine->AddModel(AddModelOf({-1, 2}), {.name = "m"}).value();
    const int function = engine->AddFunction({.name = "s.f", .max_batch_size = 3});
    MethodSpec spec;
    spec.name = "m";
    spec.inputs = {"a", "b"};
    spec.outputs = {"y"};
    spec.stages = {ModelStageSpec(model, {Input(0), Input(1)}), FunctionStageSpec(function, {Output(0)}),
                   ModelStageSpec(model, {Output(1), Input(1)})};
    spec.results = {Output(2)};
    const int method = engine->AddMethod(spec).value();
    std::thread worker([&] {
      while (auto batch = engine->NextBatch(function)) {
        std::vector<FunctionResult> results;
        for (size_t n = 0; n < batch->size(); ++n) results.emplace_back(Tensors{batch->inputs(n)[0]});
        engine->Complete(std::move(batch), std::move(results));
      }
    });
    Request request;
    std::thread stopper;
    for (uint32_t i = 0; i < 300; ++i) {
      if (i == 150) stopper = std::thread([&] { engine->Stop(); });
      Tensors inputs = {Pair(1, 2), Pair(3, 4)};
      engine->Submit(method, request.context, i, inputs, time.Now());
      if (i % 10 == 0) engine->Poll();
    }
    stopper.join();
    worker.join();
    engine.reset();
    EXPECT_EQ(request.answers.size(), 300u);
  }
}

}  // namespace
}  // namespace mindserve::pipeline
