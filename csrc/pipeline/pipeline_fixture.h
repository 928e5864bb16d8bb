// For tests of the pipeline: models that compute, functions that run when asked, requests that note their answers.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "device/device.h"
#include "pipeline/engine.h"

namespace mindserve::pipeline {

using Tensors = std::vector<Tensor>;

inline Tensor Floats(Shape shape, const std::vector<float>& values) {
  std::span<std::byte> bytes;
  Tensor tensor = Tensor::Allocate(DType::kFloat32, std::move(shape), &bytes).value();
  EXPECT_EQ(bytes.size(), values.size() * sizeof(float));
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return tensor;
}

inline Tensor Pair(float a, float b) {
  return Floats({2}, {a, b});
}

inline std::vector<float> Values(const Tensor& tensor) {
  std::vector<float> values(tensor.data().size() / sizeof(float));
  if (!values.empty()) std::memcpy(values.data(), tensor.data().data(), tensor.data().size());
  return values;
}

// The sum of tensors of one shape.
inline Tensor Sum(std::span<const Tensor> inputs) {
  std::vector<float> sum(inputs[0].data().size() / sizeof(float));
  for (const Tensor& input : inputs) {
    const std::vector<float> values = Values(input);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += values[i];
  }
  return Floats(inputs[0].shape(), sum);
}

// A model that runs a C++ function.
class TestModel : public device::Model {
 public:
  using Body = std::function<Result<Tensors>(std::span<const Tensor>)>;
  TestModel(std::vector<device::TensorSpec> inputs, std::vector<device::TensorSpec> outputs, Body body)
      : inputs_(std::move(inputs)), outputs_(std::move(outputs)), body_(std::move(body)) {}

  const std::vector<device::TensorSpec>& inputs() const override { return inputs_; }
  const std::vector<device::TensorSpec>& outputs() const override { return outputs_; }
  Result<Tensors> Run(std::span<const Tensor> inputs) override {
    EXPECT_FALSE(running_.exchange(true)) << "Run was called from two threads at a time";
    {
      const std::lock_guard lock(mutex_);
      rows_.push_back(inputs.empty() || inputs[0].shape().rank() == 0 ? 1 : inputs[0].shape()[0]);
      threads_.push_back(std::this_thread::get_id());
    }
    struct Reset {
      std::atomic<bool>& flag;
      ~Reset() { flag = false; }
    } reset{running_};
    return body_(inputs);
  }

  // The first dimension of the first input, run by run.
  std::vector<int64_t> rows() const {
    const std::lock_guard lock(mutex_);
    return rows_;
  }
  std::vector<std::thread::id> threads() const {
    const std::lock_guard lock(mutex_);
    return threads_;
  }

 private:
  const std::vector<device::TensorSpec> inputs_;
  const std::vector<device::TensorSpec> outputs_;
  const Body body_;
  std::atomic<bool> running_{false};
  mutable std::mutex mutex_;
  std::vector<int64_t> rows_;             // guarded by mutex_
  std::vector<std::thread::id> threads_;  // guarded by mutex_
};

inline device::TensorSpec FloatSpec(std::string name, Shape shape) {
  device::TensorSpec spec;
  spec.name = std::move(name);
  spec.dtype = DType::kFloat32;
  spec.shape = std::move(shape);
  return spec;
}

// x1 + x2 of the shape given, which includes the batch's dimension.
inline std::shared_ptr<TestModel> AddModelOf(Shape shape, std::function<void()> on_run = {}) {
  return std::make_shared<TestModel>(std::vector{FloatSpec("x1", shape), FloatSpec("x2", shape)},
                                     std::vector{FloatSpec("y", shape)},
                                     [on_run = std::move(on_run)](std::span<const Tensor> inputs) -> Result<Tensors> {
                                       if (on_run) on_run();
                                       return Tensors{Sum(inputs)};
                                     });
}

// A door that Run waits at until a test opens it.
class Gate {
 public:
  void Pass() {
    std::unique_lock lock(mutex_);
    ++waiting_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return open_; });
  }
  void Open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void AwaitSomebody() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return waiting_ > 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
  int waiting_ = 0;
};

// Notes what becomes of a request's instances; each must be done once.
class Request : public ResultSink {
 public:
  struct Answer {
    Status status;
    Tensors outputs;
  };

  explicit Request(uint64_t client = 1, TimePoint deadline = kNever) {
    context->client = client;
    context->deadline = deadline;
    context->sink = this;
  }
  // Tests may end while instances are on their way.
  ~Request() override { context->sink = nullptr; }
  void InstanceDone(uint32_t index, Status status, std::span<Tensor> outputs) override {
    order.push_back(index);
    const bool first =
        answers.emplace(index, Answer{std::move(status), Tensors(outputs.begin(), outputs.end())}).second;
    EXPECT_TRUE(first) << "instance " << index << " was answered twice";
    if (on_done) on_done(index);
  }
  const Status& status(uint32_t index) const { return answers.at(index).status; }
  std::vector<float> values(uint32_t index, size_t output = 0) const {
    return Values(answers.at(index).outputs.at(output));
  }

  std::shared_ptr<RequestContext> context = std::make_shared<RequestContext>();  // shared with the engine
  std::map<uint32_t, Answer> answers;
  std::vector<uint32_t> order;
  std::function<void(uint32_t)> on_done;
};

inline ValueRef Input(int index) {
  return {ValueRef::kMethodInput, index};
}
inline ValueRef Output(int stage, int index = 0) {
  return {stage, index};
}

inline StageSpec ModelStageSpec(int model, std::vector<ValueRef> inputs, int outputs = 1, std::string tag = "") {
  return {StageSpec::Kind::kModel, model, std::move(inputs), outputs, std::move(tag)};
}
inline StageSpec FunctionStageSpec(int function, std::vector<ValueRef> inputs, int outputs = 1, std::string tag = "") {
  return {StageSpec::Kind::kFunction, function, std::move(inputs), outputs, std::move(tag)};
}

class EngineFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    engine_ = std::make_unique<Engine>(time_, [this] {
      const std::lock_guard lock(mutex_);
      ++wakes_;
      woken_.notify_all();
    });
  }

  // A model that is known to run in no time, and so runs inside Poll.
  int AddShort(std::shared_ptr<device::Model> model, ModelOptions options = {}) {
    const int index = Add(std::move(model), std::move(options));
    EXPECT_EQ(engine_->WarmUp(index), Status::Ok());
    return index;
  }
  int Add(std::shared_ptr<device::Model> model, ModelOptions options = {}) {
    if (options.name.empty()) options.name = "net.onnx";
    auto index = engine_->AddModel(std::move(model), std::move(options));
    EXPECT_TRUE(index.ok()) << index.status().ToString();
    return index.value();
  }
  int AddMethod(std::vector<StageSpec> stages, std::vector<ValueRef> results, size_t inputs) {
    MethodSpec spec;
    spec.name = "predict";
    for (size_t i = 0; i < inputs; ++i) spec.inputs.push_back("x" + std::to_string(i + 1));
    for (size_t i = 0; i < results.size(); ++i) spec.outputs.push_back("y" + std::to_string(i + 1));
    spec.stages = std::move(stages);
    spec.results = std::move(results);
    auto index = engine_->AddMethod(std::move(spec));
    EXPECT_TRUE(index.ok()) << index.status().ToString();
    return index.value();
  }
  // A method of one model stage on two inputs.
  int AddModelMethod(int model, std::string tag = "") {
    return AddMethod({ModelStageSpec(model, {Input(0), Input(1)}, 1, std::move(tag))}, {Output(0)}, 2);
  }

  void Submit(int method, Request& request, uint32_t index, Tensors inputs) {
    engine_->Submit(method, request.context, index, inputs, time_.Now());
  }

  // Polls until nothing moves by itself. Returns when it would.
  TimePoint Settle() {
    for (;;) {
      const TimePoint next = engine_->Poll();
      if (next > time_.Now()) return next;
    }
  }

  // Polls, and sleeps until woken, until `done`.
  void PollUntil(const std::function<bool()>& done) {
    for (;;) {
      size_t seen = 0;
      {
        const std::lock_guard lock(mutex_);
        seen = wakes_;
      }
      const TimePoint next = engine_->Poll();
      if (done()) return;
      if (next <= time_.Now()) continue;
      std::unique_lock lock(mutex_);
      woken_.wait(lock, [&] { return wakes_ != seen; });
    }
  }

  // Takes the next batch of a function and answers each of its instances by `body`. Only when a batch is there.
  void RunFunction(int function, const std::function<FunctionResult(std::span<const Tensor>)>& body) {
    std::unique_ptr<FunctionBatch> batch = engine_->NextBatch(function);
    ASSERT_NE(batch, nullptr);
    std::vector<FunctionResult> results;
    for (size_t i = 0; i < batch->size(); ++i) results.push_back(body(batch->inputs(i)));
    engine_->Complete(std::move(batch), std::move(results));
  }

  size_t wakes() {
    const std::lock_guard lock(mutex_);
    return wakes_;
  }

  FakeTime time_;
  std::mutex mutex_;
  std::condition_variable woken_;
  size_t wakes_ = 0;  // guarded by mutex_
  std::unique_ptr<Engine> engine_;
};

}  // namespace mindserve::pipeline
