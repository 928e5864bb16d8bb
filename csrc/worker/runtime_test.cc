// The worker runtime behind a real link: the test holds the gateway's end. Requests are written as protobuf by hand,
// since wire only reads them; answers are looked at as bytes made by wire's own writer.
#include "worker/runtime.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <future>
#include <map>
#include <thread>

#include "link/lane.h"
#include "wire/call_head.h"
#include "wire/predict.h"

namespace mindserve::worker {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kPatience{30'000};
constexpr size_t kArena = 4 << 20;

// x + x, on rows of any length of float32.
class Doubler final : public device::Model {
 public:
  const std::vector<device::TensorSpec>& inputs() const override { return inputs_; }
  const std::vector<device::TensorSpec>& outputs() const override { return outputs_; }
  Result<std::vector<Tensor>> Run(std::span<const Tensor> inputs) override {
    std::span<std::byte> bytes;
    auto out = Tensor::Allocate(DType::kFloat32, inputs[0].shape(), &bytes);
    if (!out.ok()) return out.status();
    const auto* from = reinterpret_cast<const float*>(inputs[0].data().data());
    auto* to = reinterpret_cast<float*>(bytes.data());
    for (size_t i = 0; i < bytes.size() / sizeof(float); ++i) to[i] = from[i] + from[i];
    std::vector<Tensor> outputs;
    outputs.push_back(*std::move(out));
    return outputs;
  }

 private:
  std::vector<device::TensorSpec> inputs_ = {{"x", DType::kFloat32, Shape{-1, 2}}};
  std::vector<device::TensorSpec> outputs_ = {{"y", DType::kFloat32, Shape{-1, 2}}};
};

std::string Field(int number, std::string_view content) {
  EXPECT_LT(content.size(), 128u);
  std::string field;
  field += static_cast<char>(number << 3 | 2);
  field += static_cast<char>(content.size());
  return field.append(content);
}

std::string Pair(float a, float b) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &a, 4);
  std::memcpy(bytes.data() + 4, &b, 4);
  return bytes;
}

// An Instance with one float32 tensor of shape (2,) named `name`.
std::string Instance(std::string_view name, float a, float b) {
  const std::string tensor = Field(1, "\x0a\x01\x02") + "\x10\x0b" + Field(3, Pair(a, b));
  return Field(2, Field(1, Field(1, name) + Field(2, tensor)));
}

Tensor Row(float a, float b) {
  std::span<std::byte> bytes;
  auto tensor = Tensor::Allocate(DType::kFloat32, Shape{2}, &bytes);
  std::memcpy(bytes.data(), Pair(a, b).data(), 8);
  return *std::move(tensor);
}

std::string Written(const std::vector<wire::InstanceReply>& replies) {
  const std::vector<std::string> names = {"y"};
  const wire::ReplyWriter writer(names, replies);
  std::string text(writer.size(), '\0');
  writer.WriteTo(std::as_writable_bytes(std::span(text)));
  return text;
}

struct Answer {
  link::WorkerFrame frame;
  std::string text;
};

class RuntimeTest : public testing::Test {
 protected:
  void Start(RuntimeOptions options = {.reply_arena_bytes = kArena}) {
    runtime_ = std::make_unique<Runtime>(time_, options);
    pipeline::Engine& engine = runtime_->engine();
    pipeline::ModelOptions options_of_model;
    options_of_model.name = "doubler";
    const auto model = engine.AddModel(std::make_shared<Doubler>(), options_of_model);
    ASSERT_TRUE(model.ok()) << model.status().ToString();
    pipeline::FunctionOptions options_of_function;
    options_of_function.name = "test.function";
    options_of_function.timeout = timeout_;
    const int function = engine.AddFunction(options_of_function);
    const auto method = [](const char* name, std::vector<pipeline::StageSpec> stages) {
      pipeline::MethodSpec spec;
      spec.name = name;
      spec.inputs = {"x"};
      spec.outputs = {"y"};
      spec.results = {stages.empty() ? pipeline::ValueRef{} : pipeline::ValueRef{0, 0}};
      spec.stages = std::move(stages);
      return spec;
    };
    const auto stage = [](pipeline::StageSpec::Kind kind, int target) {
      pipeline::StageSpec spec;
      spec.kind = kind;
      spec.target = target;
      spec.inputs = {pipeline::ValueRef{}};
      return spec;
    };
    const auto doubled = method("double", {stage(pipeline::StageSpec::Kind::kModel, *model)});
    const auto called = method("call", {stage(pipeline::StageSpec::Kind::kFunction, function)});
    const auto same = method("same", {});
    ASSERT_TRUE(engine.AddMethod(doubled).ok());
    ASSERT_TRUE(engine.AddMethod(called).ok());
    ASSERT_TRUE(engine.AddMethod(same).ok());
    if (before_serving_) before_serving_(engine);

    int fds[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    socket_.reset(fds[0]);
    served_ = std::async(std::launch::async, [this, fd = fds[1]] { return runtime_->Serve(UniqueFd(fd), kPatience); });
    auto port = link::GatewayPort::Create(kArena);
    ASSERT_TRUE(port.ok());
    port_ = *std::move(port);
    link::GatewayPort* ports[] = {port_.get()};
    auto shaken = link::GatewayHandshake::Run(socket_.get(), ports, kPatience);
    ASSERT_TRUE(shaken.ok()) << shaken.status().ToString();
    lane_ = std::move(shaken->lanes[0]);
    stats_ = std::move(shaken->stats);
  }

  void TearDown() override {
    if (runtime_) runtime_->Stop();
    if (served_.valid()) served_.wait();
  }

  // Without `flush` it goes with the next.
  void Send(uint64_t call, uint16_t method, uint32_t instances, const std::string& body, bool flush = true) {
    const auto slab = port_->arena().Allocate(body.size());
    ASSERT_TRUE(slab);
    std::memcpy(slab->bytes.data(), body.data(), body.size());
    link::Lane::Open open;
    open.call = call;
    open.method = method;
    open.instances = instances;
    open.client = 1;
    open.offset = slab->offset;
    open.length = body.size();
    open.alone = alone_;
    if (deadline_ != kNever) open.deadline_ns = deadline_.time_since_epoch().count();
    lane_->SendOpen(open);
    if (flush) lane_->Flush();
  }

  Answer Receive() {
    Answer answer;
    while (!lane_->Receive(&answer.frame)) {
      EXPECT_FALSE(lane_->broken()) << lane_->fault().ToString();
      port_->Asleep();
      if (!lane_->HasWork()) {
        pollfd bell{port_->bell_fd(), POLLIN, 0};
        if (::poll(&bell, 1, static_cast<int>(kPatience.count())) == 0) {
          ADD_FAILURE() << "the worker does not answer";
          return answer;
        }
      }
      port_->Awake();
      port_->EmptyBell();
    }
    answer.text.assign(reinterpret_cast<const char*>(answer.frame.payload.data()), answer.frame.payload.size());
    lane_->ReleaseReply(answer.frame.payload);
    lane_->Flush();
    return answer;
  }

  SystemTime time_;
  std::unique_ptr<Runtime> runtime_;
  UniqueFd socket_;
  std::future<Status> served_;
  std::unique_ptr<link::GatewayPort> port_;
  std::unique_ptr<link::Lane> lane_;
  std::optional<link::StatsReader> stats_;
  TimePoint deadline_ = kNever;  // of what is sent
  bool alone_ = false;           // what is sent
  Duration timeout_{0};          // of the function
  // Adds to what is served.
  std::function<void(pipeline::Engine&)> before_serving_;
};

constexpr uint16_t kDouble = 0;
constexpr uint16_t kCall = 1;
constexpr uint16_t kSame = 2;

TEST_F(RuntimeTest, AnswersWithTheModelsResultsAndLetsGoInTheSameFrame) {
  Start();
  Send(11, kDouble, 2, Instance("x", 1, 2) + Instance("x", 3, 4));
  const Answer answer = Receive();
  EXPECT_EQ(answer.frame.type, link::FrameType::kReply);
  EXPECT_EQ(answer.frame.call, 11u);
  EXPECT_EQ(answer.frame.flags, link::kEnds | link::kReleased);
  EXPECT_EQ(answer.text, Written({{{Row(2, 4)}, {}, {}}, {{Row(6, 8)}, {}, {}}}));
}

TEST_F(RuntimeTest, WhatStagesDoIsReadFromOutside) {
  Start();
  Send(1, kDouble, 3, Instance("x", 1, 2) + Instance("x", 3, 4) + Instance("x", 5, 6));
  Receive();
  const std::vector<link::StageSnapshot> stages = stats_->Read();
  ASSERT_FALSE(stages.empty());
  const link::StageSnapshot& model = stages.front();
  EXPECT_EQ(model.stage.kind, link::StageKind::kModel);
  EXPECT_EQ(model.batch_sizes.sum, 3u);
  EXPECT_EQ(model.queue_ns.count, 3u);
  EXPECT_EQ(model.run_ns.count, model.batch_sizes.count);
  EXPECT_EQ(model.failed, 0u);
}

TEST_F(RuntimeTest, WhatIsExecutedIsReadFromOutside) {
  Start();
  Send(5, kCall, 2, Instance("x", 1, 2) + Instance("x", 3, 4));
  auto batch = runtime_->engine().NextBatch(0);
  ASSERT_NE(batch, nullptr);
  Send(6, kCall, 1, Instance("x", 1, 2));
  const auto function = [&] { return stats_->Executing().at(1); };
  EXPECT_EQ(function(), std::vector<ExecutionTag>{link::TagOf(0, 5)});
  EXPECT_TRUE(lane_->MayHaveBegun(5));
  EXPECT_FALSE(lane_->MayHaveBegun(6));
  std::vector<pipeline::FunctionResult> results;
  for (size_t i = 0; i < batch->size(); ++i) results.emplace_back(std::vector<Tensor>{Row(5, 6)});
  runtime_->engine().Complete(std::move(batch), std::move(results));
  EXPECT_EQ(function(), std::vector<ExecutionTag>{});
}

TEST_F(RuntimeTest, FunctionsKnowWhatTheHeadOfACallSays) {
  Start();
  const auto head = [&](uint64_t call, const wire::CallHead& content) {
    const std::string bytes = wire::WriteCallHead(content);
    const auto slab = port_->arena().Allocate(bytes.size());
    ASSERT_TRUE(slab);
    std::memcpy(slab->bytes.data(), bytes.data(), bytes.size());
    lane_->SendHead(call, slab->offset, bytes.size());
  };
  head(1, {.request_id = "r-1", .depth = 3, .callers = {5, 6}});
  Send(1, kCall, 1, Instance("x", 1, 2), /*flush=*/false);
  Send(2, kCall, 1, Instance("x", 1, 2), /*flush=*/false);
  // One of a call that never comes, and one that is no head: calls can do without.
  head(99, {.request_id = "r-99"});
  Send(3, kCall, 1, Instance("x", 1, 2), /*flush=*/false);
  const auto slab = port_->arena().Allocate(2);
  std::memcpy(slab->bytes.data(), "\x0a\x7f", 2);
  lane_->SendHead(4, slab->offset, 2);
  Send(4, kCall, 1, Instance("x", 1, 2));
  std::map<ExecutionTag, std::shared_ptr<const pipeline::RequestOrigin>> origins;
  while (origins.size() < 4) {
    auto batch = runtime_->engine().NextBatch(0);
    ASSERT_NE(batch, nullptr);
    std::vector<pipeline::FunctionResult> results;
    for (size_t i = 0; i < batch->size(); ++i) {
      const auto& request = *batch->request(i);
      origins[request.mark.tag] = request.origin;
      results.emplace_back(std::vector<Tensor>{Row(5, 6)});
    }
    runtime_->engine().Complete(std::move(batch), std::move(results));
  }
  const auto& first = origins.at(link::TagOf(0, 1));
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(first->request_id, "r-1");
  EXPECT_EQ(first->depth, 3u);
  EXPECT_EQ(first->callers, (std::vector<ExecutionTag>{5, 6}));
  for (const uint64_t call : {2, 3, 4}) EXPECT_EQ(origins.at(link::TagOf(0, call)), nullptr) << call;
  for (int i = 0; i < 4; ++i) EXPECT_EQ(Receive().frame.type, link::FrameType::kReply);
}

TEST_F(RuntimeTest, InstancesThatGoAloneShareNoBatch) {
  Start();
  alone_ = true;
  Send(5, kCall, 2, Instance("x", 1, 2) + Instance("x", 3, 4));
  for (int i = 0; i < 2; ++i) {
    auto batch = runtime_->engine().NextBatch(0);
    ASSERT_NE(batch, nullptr);
    EXPECT_EQ(batch->size(), 1u);
    std::vector<pipeline::FunctionResult> results;
    results.emplace_back(std::vector<Tensor>{Row(5, 6)});
    runtime_->engine().Complete(std::move(batch), std::move(results));
  }
  EXPECT_EQ(Receive().frame.type, link::FrameType::kReply);
}

TEST_F(RuntimeTest, BeatsBeforeItIsAskedAnything) {
  Start();
  const auto patience = std::chrono::steady_clock::now() + kPatience;
  while (!stats_->LastBeat()) {
    ASSERT_LT(std::chrono::steady_clock::now(), patience);
    ::poll(nullptr, 0, 5);
  }
}

TEST_F(RuntimeTest, BeatsWhileItHasNothingToDo) {
  Start();
  Send(1, kSame, 1, Instance("x", 7, 8));
  Receive();
  const auto first = stats_->LastBeat();
  ASSERT_TRUE(first.has_value());
  const auto patience = std::chrono::steady_clock::now() + kPatience;
  while (*stats_->LastBeat() - *first < milliseconds(400)) {
    ASSERT_LT(std::chrono::steady_clock::now(), patience);
    ::poll(nullptr, 0, 5);
  }
}

TEST_F(RuntimeTest, AnInstanceFailsAlone) {
  Start();
  Send(1, kDouble, 3, Instance("x", 1, 2) + Instance("z", 3, 4) + Instance("x", 5, 6));
  const Answer answer = Receive();
  EXPECT_EQ(answer.frame.flags, link::kEnds | link::kReleased | link::kHasErrors);
  EXPECT_EQ(answer.text, Written({{{Row(2, 4)}, {}, {}},
                                  {{}, wire::ErrorCode::kInvalidInput, "Cannot find input x in instance input"},
                                  {{Row(10, 12)}, {}, {}}}));
}

class ClassifyingTest : public RuntimeTest {
 protected:
  // Method 3 is `same` again, for the Classifier; of "t.Call" the bytes go to the function.
  ClassifyingTest() {
    before_serving_ = [this](pipeline::Engine& engine) {
      pipeline::MethodSpec spec = engine.method(kSame);
      spec.name = "classify";
      const auto number = engine.AddMethod(spec);
      ASSERT_TRUE(number.ok());
      ASSERT_EQ(*number, kClassify);
      Classifier classifier(*number, spec.inputs, {.classes = {"first", "second"}}, "model");
      pipeline::MethodSpec handled = engine.method(kCall);
      handled.inputs = {"data"};
      const auto local = engine.AddLocalMethod(handled);
      ASSERT_TRUE(local.ok());
      classifier.AddHandler("t.Call", {.number = *local, .fixed = true});
      runtime_->SetClassifier(std::move(classifier));
    };
  }
  static std::string Data(const std::string& type, const std::string& value) {
    return Field(2, Field(1, "x/" + type) + Field(2, value));
  }
  // Without the tag and length of the field that it is in a request.
  static std::string Content(const std::string& instance) { return instance.substr(2); }
  // "model", two predictions of these numbers, and no custom.
  static std::string Reply(double a, double b) {
    const auto entry = [](double value, std::string_view name) {
      std::string eight(8, '\0');
      std::memcpy(eight.data(), &value, 8);
      return Field(2, "\x09" + eight + Field(2, name) + "\x19" + eight);
    };
    return Field(2, "model") + entry(a, "first") + entry(b, "second") + Field(3, "");
  }
  void Complete(Result<std::vector<Tensor>> result) {
    auto batch = runtime_->engine().NextBatch(0);
    ASSERT_NE(batch, nullptr);
    EXPECT_EQ(batch->inputs(0)[0].elements().front(), "bytes");
    std::vector<pipeline::FunctionResult> results;
    results.push_back(std::move(result));
    runtime_->engine().Complete(std::move(batch), std::move(results));
  }
  static constexpr uint16_t kClassify = 3;
};

const char* const kInstance = "mindspore.serving.proto.Instance";

TEST_F(ClassifyingTest, AnswersWithPredictionsAndLetsGoInTheSameFrame) {
  Start();
  Send(11, kClassify, 1, Data(kInstance, Content(Instance("x", 0.25, 0.75))));
  const Answer answer = Receive();
  EXPECT_EQ(answer.frame.type, link::FrameType::kReply);
  EXPECT_EQ(answer.frame.call, 11u);
  EXPECT_EQ(answer.frame.flags, link::kEnds | link::kReleased);
  EXPECT_EQ(answer.text, Reply(0.25, 0.75));
}

TEST_F(ClassifyingTest, PredictIsAnsweredAsEver) {
  Start();
  Send(1, kSame, 1, Instance("x", 7, 8));
  EXPECT_EQ(Receive().text, Written({{{Row(7, 8)}, {}, {}}}));
}

TEST_F(ClassifyingTest, AHandlersResultsAreTheMethods) {
  Start();
  Send(1, kClassify, 1, Data("t.Call", "bytes"));
  Complete(std::vector<Tensor>{Row(0.5, 1)});
  EXPECT_EQ(Receive().text, Reply(0.5, 1));
}

TEST_F(ClassifyingTest, WhatGoesWrongEndsTheCall) {
  Start();
  const auto end = [&](const std::string& body) {
    Send(2, kClassify, 1, body);
    const Answer answer = Receive();
    EXPECT_EQ(answer.frame.type, link::FrameType::kEnd);
    EXPECT_NE(answer.frame.flags & link::kReleased, 0);
    return static_cast<Code>(answer.frame.code);
  };
  EXPECT_EQ(end(Data("t.Unknown", "")), Code::kInvalidArgument);
  EXPECT_EQ(end(Data(kInstance, "")), Code::kInvalidArgument);
  EXPECT_EQ(end(""), Code::kInvalidArgument);
  Send(3, kClassify, 1, Data("t.Call", "bytes"));
  Complete(Status(Code::kInternal, "it broke"));
  Answer answer = Receive();
  EXPECT_EQ(static_cast<Code>(answer.frame.code), Code::kInternal);
  EXPECT_EQ(answer.text, "it broke");
  Send(4, kClassify, 1, Data("t.Call", "bytes"));
  Complete(std::vector<Tensor>{Tensor::Text(DType::kBytes, "no number")});
  answer = Receive();
  EXPECT_EQ(static_cast<Code>(answer.frame.code), Code::kInternal);
  EXPECT_NE(answer.text.find("output 'y' is kMSI_Bytes (1,)"), std::string::npos) << answer.text;
}

TEST_F(ClassifyingTest, ALateOneEndsAsLate) {
  Start();
  deadline_ = Clock::now() + milliseconds(20);
  Send(1, kClassify, 1, Data("t.Call", "bytes"));
  EXPECT_EQ(static_cast<Code>(Receive().frame.code), Code::kDeadlineExceeded);
}

TEST_F(RuntimeTest, AMethodMayReturnItsInput) {
  Start();
  Send(1, kSame, 1, Instance("x", 7, 8));
  const Answer answer = Receive();
  EXPECT_EQ(answer.frame.flags, link::kEnds | link::kReleased);
  EXPECT_EQ(answer.text, Written({{{Row(7, 8)}, {}, {}}}));
}

TEST_F(RuntimeTest, WhatDoesNotParseIsRefusedWhole) {
  Start();
  // The second instance's content is a field that claims more than there is.
  Send(1, kDouble, 2, Instance("x", 1, 2) + Field(2, "\x0a\x7f"));
  Answer answer = Receive();
  EXPECT_EQ(answer.frame.type, link::FrameType::kEnd);
  EXPECT_EQ(answer.frame.code, static_cast<uint8_t>(Code::kInvalidArgument));
  EXPECT_EQ(answer.frame.flags, link::kReleased);
  Send(2, kDouble, 3, Instance("x", 1, 2));
  answer = Receive();
  EXPECT_EQ(answer.frame.call, 2u);
  EXPECT_EQ(answer.frame.code, static_cast<uint8_t>(Code::kInvalidArgument));
}

TEST_F(RuntimeTest, AnUnknownMethodEndsTheCall) {
  Start();
  Send(1, 9, 1, Instance("x", 1, 2));
  const Answer answer = Receive();
  EXPECT_EQ(answer.frame.type, link::FrameType::kEnd);
  EXPECT_EQ(answer.frame.code, static_cast<uint8_t>(Code::kInternal));
}

TEST_F(RuntimeTest, BytesThatAreStillLookedAtAreReleasedLater) {
  Start();
  Send(5, kCall, 1, Instance("x", 1, 2));
  auto batch = runtime_->engine().NextBatch(0);
  ASSERT_NE(batch, nullptr);
  Tensor kept = batch->inputs(0)[0];
  std::vector<pipeline::FunctionResult> results;
  results.emplace_back(std::vector<Tensor>{Row(5, 6)});
  runtime_->engine().Complete(std::move(batch), std::move(results));
  Answer answer = Receive();
  EXPECT_EQ(answer.frame.type, link::FrameType::kReply);
  EXPECT_EQ(answer.frame.flags, link::kEnds);
  EXPECT_GT(runtime_->retained_bytes(), 0u);
  EXPECT_EQ(std::memcmp(kept.data().data(), Pair(1, 2).data(), 8), 0);
  kept = Tensor();
  answer = Receive();
  EXPECT_EQ(answer.frame.type, link::FrameType::kRelease);
  EXPECT_EQ(answer.frame.call, 5u);
  EXPECT_EQ(runtime_->retained_bytes(), 0u);
}

TEST_F(RuntimeTest, ACancelledCallIsEnded) {
  Start();
  Send(1, kCall, 1, Instance("x", 1, 2));
  auto batch = runtime_->engine().NextBatch(0);
  ASSERT_NE(batch, nullptr);
  lane_->SendCancel(1);
  lane_->SendCancel(77);  // of a call that is not there: nothing happens
  lane_->Flush();
  std::vector<pipeline::FunctionResult> results;
  results.emplace_back(std::vector<Tensor>{Row(5, 6)});
  runtime_->engine().Complete(std::move(batch), std::move(results));
  const Answer answer = Receive();
  EXPECT_EQ(answer.frame.call, 1u);
  EXPECT_TRUE(answer.frame.type == link::FrameType::kEnd || answer.frame.type == link::FrameType::kReply);
}

TEST_F(RuntimeTest, AnswersWaitForReplyMemory) {
  Start({.reply_arena_bytes = 8192});
  constexpr uint64_t kCalls = 200;
  for (uint64_t call = 0; call < kCalls; ++call) Send(call, kDouble, 1, Instance("x", 1, 2));
  std::vector<bool> answered(kCalls);
  const std::string expected = Written({{{Row(2, 4)}, {}, {}}});
  for (uint64_t i = 0; i < kCalls; ++i) {
    const Answer answer = Receive();
    ASSERT_LT(answer.frame.call, kCalls);
    EXPECT_FALSE(answered[answer.frame.call]);
    answered[answer.frame.call] = true;
    EXPECT_EQ(answer.text, expected);
  }
}

TEST_F(RuntimeTest, AnAnswerThatCanNeverBeSentIsAnError) {
  Start({.reply_arena_bytes = 64});
  Send(1, kSame, 3, Instance("x", 1, 2) + Instance("x", 3, 4) + Instance("x", 5, 6));
  const Answer answer = Receive();
  EXPECT_EQ(answer.frame.type, link::FrameType::kEnd);
  EXPECT_EQ(answer.frame.code, static_cast<uint8_t>(Code::kResourceExhausted));
}

// Of large requests: so many instances, (i, 0) each.
std::string Many(size_t count) {
  std::string body;
  for (size_t i = 0; i < count; ++i) body += Instance("x", static_cast<float>(i), 0);
  return body;
}

TEST_F(RuntimeTest, ALargeRequestIsAnsweredWhole) {
  Start();
  Send(1, kDouble, 2000, Many(2000));
  std::vector<wire::InstanceReply> expected;
  for (size_t i = 0; i < 2000; ++i) expected.push_back({{Row(2 * static_cast<float>(i), 0)}, {}, {}});
  const Answer answer = Receive();
  EXPECT_EQ(answer.frame.flags, link::kEnds | link::kReleased);
  EXPECT_EQ(answer.text, Written(expected));
}

TEST_F(RuntimeTest, ALargeRequestIsRefusedWholeAsWell) {
  Start();
  Send(1, kDouble, 2001, Many(2000) + Field(2, "\x0a\x7f"));
  Answer answer = Receive();
  EXPECT_EQ(answer.frame.type, link::FrameType::kEnd);
  EXPECT_EQ(answer.frame.code, static_cast<uint8_t>(Code::kInvalidArgument));
  EXPECT_EQ(answer.frame.flags, link::kReleased);
  Send(2, kDouble, 2001, Many(2000));
  answer = Receive();
  EXPECT_EQ(answer.text, "the request has 2000 instances, expected 2001");
}

TEST_F(RuntimeTest, OthersAreServedWhileALargeRequestIsReadAndAnswered) {
  Start({.reply_arena_bytes = 16 << 20});
  constexpr size_t kCount = 40'000;
  Send(1, kSame, kCount, Many(kCount), /*flush=*/false);
  Send(2, kSame, 1, Instance("x", 1, 2));
  EXPECT_EQ(Receive().frame.call, 2u);
  const Answer answer = Receive();
  EXPECT_EQ(answer.frame.call, 1u);
  EXPECT_EQ(answer.frame.type, link::FrameType::kReply);
}

TEST_F(RuntimeTest, ALargeRequestIsCancelledWhileItIsRead) {
  Start();
  Send(1, kCall, 20'000, Many(20'000), /*flush=*/false);
  lane_->SendCancel(1);
  lane_->Flush();
  const Answer answer = Receive();
  EXPECT_EQ(answer.frame.type, link::FrameType::kEnd);
  EXPECT_EQ(answer.frame.code, static_cast<uint8_t>(Code::kCancelled));
  EXPECT_EQ(answer.frame.flags, link::kReleased);
}

TEST_F(RuntimeTest, ALargeTensorIsAnswered) {
  Start({.reply_arena_bytes = 16 << 20});
  const std::string row(1 << 20, 'r');
  const auto field = [](int number, const std::string& content) {
    std::string text(1, static_cast<char>(number << 3 | 2));
    for (size_t size = content.size();; size >>= 7) {
      text += static_cast<char>((size & 0x7f) | (size > 0x7f ? 0x80 : 0));
      if (size <= 0x7f) break;
    }
    return text + content;
  };
  const std::string shape = field(1, std::string("\x0a\x03\x80\x80\x10", 5));  // (2^18,)
  const std::string tensor = shape + "\x10\x0b" + field(3, row);
  Send(1, kSame, 1, field(2, field(1, field(1, "x") + field(2, tensor))));
  const Answer answer = Receive();
  EXPECT_EQ(answer.frame.type, link::FrameType::kReply);
  EXPECT_NE(answer.text.find(row), std::string::npos);
}

TEST_F(RuntimeTest, ACallThatCannotBeDoneInTimeIsRefused) {
  Start({.reply_arena_bytes = kArena, .refuse_late = true});
  const auto run = [&](uint64_t call) {
    Send(call, kCall, 1, Instance("x", 1, 2));
    auto batch = runtime_->engine().NextBatch(0);
    std::this_thread::sleep_for(milliseconds(400));  // what a run takes
    return batch;
  };
  const auto complete = [&](std::unique_ptr<pipeline::FunctionBatch> batch) {
    std::vector<pipeline::FunctionResult> results;
    for (size_t i = 0; i < batch->size(); ++i) results.emplace_back(std::vector<Tensor>{Row(5, 6)});
    runtime_->engine().Complete(std::move(batch), std::move(results));
  };
  complete(run(1));
  EXPECT_EQ(Receive().frame.type, link::FrameType::kReply);
  auto batch = run(2);
  deadline_ = time_.Now() + milliseconds(200);
  Send(3, kCall, 1, Instance("x", 1, 2));
  const Answer answer = Receive();
  EXPECT_EQ(answer.frame.call, 3u);
  EXPECT_EQ(answer.frame.code, static_cast<uint8_t>(Code::kDeadlineExceeded));
  EXPECT_EQ(answer.text.substr(0, 22), "refused by refuse_late");
  EXPECT_EQ(stats_->Read().at(1).expired, 1u);
  deadline_ = time_.Now() + kPatience;
  Send(4, kCall, 1, Instance("x", 1, 2));
  complete(std::move(batch));
  EXPECT_EQ(Receive().frame.call, 2u);
  complete(runtime_->engine().NextBatch(0));
  EXPECT_EQ(Receive().frame.call, 4u);
}

TEST_F(RuntimeTest, ACallOfWhichNothingIsInTimeEndsLate) {
  Start();
  Send(1, kCall, 1, Instance("x", 1, 2));
  auto batch = runtime_->engine().NextBatch(0);
  deadline_ = time_.Now() + milliseconds(20);
  Send(2, kCall, 2, Instance("x", 1, 2) + Instance("x", 3, 4));
  const Answer answer = Receive();
  EXPECT_EQ(answer.frame.call, 2u);
  EXPECT_EQ(answer.frame.type, link::FrameType::kEnd);
  EXPECT_EQ(answer.frame.code, static_cast<uint8_t>(Code::kDeadlineExceeded));
  EXPECT_EQ(answer.text, "the deadline passed before function 'test.function' could run");
  batch.reset();
}

TEST_F(RuntimeTest, AStageThatHangsIsReported) {
  std::promise<HungStage> hung;
  timeout_ = milliseconds(30);
  Start({.reply_arena_bytes = kArena, .on_hung = [&](const HungStage& stage) { hung.set_value(stage); }});
  EXPECT_FALSE(stats_->HungStage().has_value());
  Send(7, kCall, 1, Instance("x", 1, 2));
  auto batch = runtime_->engine().NextBatch(0);
  auto reported = hung.get_future();
  ASSERT_EQ(reported.wait_for(kPatience), std::future_status::ready);
  const HungStage stage = reported.get();
  EXPECT_EQ(stage.number, 1u);
  EXPECT_EQ(stage.report,
            "function 'test.function' has run for longer than its timeout of 30 ms; it executes call 7 of I/O thread "
            "0 (method 'call', connection 1)");
  ASSERT_TRUE(stats_->HungStage().has_value());
  EXPECT_EQ(stats_->HungStage()->name, "test.function");
  batch.reset();
}

TEST_F(RuntimeTest, EndsWithTheGateway) {
  Start();
  socket_.reset();
  const Status status = served_.get();
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_EQ(runtime_->engine().NextBatch(0), nullptr);
}

TEST_F(RuntimeTest, StopEndsItWhileAFunctionIsRunning) {
  Start();
  Send(1, kCall, 1, Instance("x", 1, 2));
  auto batch = runtime_->engine().NextBatch(0);
  ASSERT_NE(batch, nullptr);
  runtime_->Stop();
  EXPECT_TRUE(served_.get().ok());
  runtime_->engine().Complete(std::move(batch), {});
}

}  // namespace
}  // namespace mindserve::worker
