// Calls of users' services through a runtime: what the gateway is told, frame by frame.
#include "worker/service_calls.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <mutex>

#include "base/log.h"
#include "worker/service_fixture.h"

namespace mindserve::worker {
namespace {

using link::FrameType;

class ServiceCallsTest : public ServiceFixture {
 protected:
  ~ServiceCallsTest() override { SetLogSink({}); }

  void KeepLog() {
    SetLogSink([this](LogLevel, std::string_view line) {
      const std::lock_guard lock(log_mutex_);
      log_.emplace_back(line);
    });
  }
  std::vector<std::string> log() {
    const std::lock_guard lock(log_mutex_);
    return log_;
  }

 private:
  std::mutex log_mutex_;
  std::vector<std::string> log_;  // guarded by log_mutex_
};

TEST_F(ServiceCallsTest, AUnaryAnswerIsOneFrame) {
  Start();
  Run([](const CallPointer& call) { call->WriteLast(OutMessage(ReadNow(*call) + "!")); });
  OpenUnary(3, kUnary, "hello");
  const Answer answer = Receive();
  EXPECT_EQ(answer.frame.type, FrameType::kReply);
  EXPECT_EQ(answer.frame.call, 3u);
  EXPECT_EQ(answer.frame.flags, link::kEnds | link::kReleased);
  EXPECT_EQ(answer.text, "hello!");
}

TEST_F(ServiceCallsTest, EmptyMessagesAreMessages) {
  Start();
  Run([](const CallPointer& call) {
    EXPECT_EQ(ReadNow(*call), "");
    call->WriteLast(OutMessage(""));
  });
  OpenUnary(3, kUnary, "");
  const Answer answer = Receive();
  EXPECT_EQ(answer.frame.type, FrameType::kReply);
  EXPECT_EQ(answer.frame.flags, link::kEnds | link::kReleased);
  EXPECT_EQ(answer.text, "");
}

TEST_F(ServiceCallsTest, TheHandlerSeesWhatTheGatewaySaysOfTheCall) {
  Start();
  Run([](const CallPointer& call) {
    const wire::CallHead head = call->head();
    EXPECT_EQ(head.request_id, "id");
    EXPECT_EQ(head.model_id, "m");
    EXPECT_EQ(head.peer, "ipv4:127.0.0.1:5");
    EXPECT_EQ(head.metadata, (wire::MetadataView{{"key", "value"}, {"key-bin", std::string_view("\0x", 2)}}));
    EXPECT_EQ(head.auth, (wire::MetadataView{{"transport_security_type", "ssl"}}));
    EXPECT_EQ(call->client(), 7u);
    EXPECT_EQ(call->deadline(), TimePoint(Duration(1'000'000'000'000'000)));
    EXPECT_EQ(call->handler(), kUnary);
    call->WriteLast(OutMessage("ok"));
  });
  deadline_ns_ = 1'000'000'000'000'000;
  Open(1, kUnary,
       {.request_id = "id",
        .model_id = "m",
        .peer = "ipv4:127.0.0.1:5",
        .metadata = {{"key", "value"}, {"key-bin", std::string_view("\0x", 2)}},
        .auth = {{"transport_security_type", "ssl"}}});
  Message(1, "x", true);
  lane_->Flush();
  EXPECT_EQ(Receive().text, "ok");
}

TEST_F(ServiceCallsTest, AnErrorEndsTheCallWithDetailsAndTrailingMetadata) {
  Start();
  Run([](const CallPointer& call) { call->Finish(Code::kNotFound, "no such thing", {{"k", "v"}}); });
  OpenUnary(1, kUnary, "x");
  const Answer answer = Receive();
  EXPECT_EQ(answer.frame.type, FrameType::kEnd);
  EXPECT_EQ(answer.frame.flags, link::kTrailing | link::kReleased);
  EXPECT_EQ(answer.frame.code, static_cast<uint8_t>(Code::kNotFound));
  const auto end = wire::ReadCallEnd(answer.frame.payload);
  ASSERT_TRUE(end.ok());
  EXPECT_EQ(end->details, "no such thing");
  EXPECT_EQ(end->trailing, (wire::MetadataView{{"k", "v"}}));
}

TEST_F(ServiceCallsTest, WhatHandlersDoIsReadFromOutside) {
  Start();
  Run([](const CallPointer& call) {
    if (ReadNow(*call) == "fail") return call->Finish(Code::kAborted, "as told", {});
    call->WriteLast(OutMessage("ok"));
  });
  OpenUnary(1, kUnary, "x");
  Receive();
  OpenUnary(2, kUnary, "fail");
  Receive();
  Open(3, kServerStreaming);
  lane_->SendCancel(3);
  lane_->Flush();
  Receive();
  const std::vector<link::StageSnapshot> stages = stats_->Read();
  ASSERT_EQ(stages.size(), runtime_->handlers().size());
  const link::StageSnapshot& unary = stages[kUnary];
  EXPECT_EQ(unary.stage.kind, link::StageKind::kHandler);
  EXPECT_EQ(unary.stage.name, "/t.T/Unary");
  EXPECT_EQ(unary.batch_sizes.sum, 2u);
  EXPECT_EQ(unary.queue_ns.count, 2u);
  EXPECT_EQ(unary.run_ns.count, 2u);
  EXPECT_EQ(unary.failed, 1u);
  EXPECT_EQ(stages[kServerStreaming].batch_sizes.sum, 0u);
}

TEST_F(ServiceCallsTest, AnswersWaitForReplyMemory) {
  Start(8192);
  Run([](const CallPointer& call) {
    call->SendInitial({{"k", std::string(300, 'v')}}, false);
    call->Write(OutMessage(std::string(1000, 'm')));
    call->Finish(Code::kOk, {}, {{"t", std::string(300, 'u')}});
  });
  constexpr uint64_t kCalls = 100;
  for (uint64_t call = 1; call <= kCalls; ++call) OpenUnary(call, kServerStreaming, "x");
  std::vector<int> frames(kCalls + 1);
  for (size_t i = 0; i < 3 * kCalls; ++i) {
    const Answer answer = Receive();
    ASSERT_LE(answer.frame.call, kCalls);
    const FrameType expected[] = {FrameType::kInitial, FrameType::kReply, FrameType::kEnd};
    ASSERT_LT(frames[answer.frame.call], 3);
    EXPECT_EQ(answer.frame.type, expected[frames[answer.frame.call]++]);
  }
}

TEST_F(ServiceCallsTest, ACallThatWaitsForReplyMemoryIsCancelled) {
  Start(8192);
  keeps_replies_ = true;
  Run([](const CallPointer& call) { call->WriteLast(OutMessage(std::string(3000, 'm'))); });
  for (uint64_t call = 1; call <= 5; ++call) OpenUnary(call, kUnary, "x");
  std::vector<uint64_t> answered;
  while (Hears(std::chrono::milliseconds(500))) answered.push_back(Receive().frame.call);
  ASSERT_GE(answered.size(), 1u);
  ASSERT_LT(answered.size(), 5u);
  // Of those that wait, one is cancelled; the others get the memory.
  const uint64_t cancelled = 6 - *std::min_element(answered.begin(), answered.end());
  lane_->SendCancel(cancelled);
  lane_->Flush();
  Answer answer = Receive();
  EXPECT_EQ(answer.frame.call, cancelled);
  EXPECT_EQ(answer.frame.code, static_cast<uint8_t>(Code::kCancelled));
  GiveBackKept(kept_.size());
  keeps_replies_ = false;
  for (size_t left = 5 - answered.size() - 1; left > 0; --left) {
    EXPECT_EQ(Receive().frame.flags, link::kEnds | link::kReleased);
  }
}

TEST_F(ServiceCallsTest, StreamsThatNobodyReadsLeaveMemoryToOtherAnswers) {
  Start(64 << 10);
  keeps_replies_ = true;
  for (int i = 0; i < 3; ++i) {
    Run([](const CallPointer& call) {
      if (call->handler() == kUnary) return call->WriteLast(OutMessage(std::string(3000, 'u')));
      for (int sent = 0; sent < 100; ++sent) call->Write(OutMessage(std::string(3000, 's')));
      call->Finish(Code::kOk, "", {});
    });
  }
  for (uint64_t call = 1; call <= 2; ++call) {
    client_ = call;
    OpenUnary(call, kServerStreaming, "x");
  }
  // As much as streams of two clients may have.
  size_t messages = 0;
  while (Hears(std::chrono::milliseconds(500))) {
    EXPECT_EQ(Receive().frame.type, FrameType::kReply);
    ++messages;
  }
  EXPECT_GE(messages, 7u);
  EXPECT_LE(messages, (32u << 10) / 3000 + 2);
  // Others are answered, one after the other, as long as theirs is read.
  for (uint64_t call = 3; call <= 20; ++call) {
    OpenUnary(call, kUnary, "x");
    const Answer answer = Receive();
    EXPECT_EQ(answer.frame.call, call);
    EXPECT_EQ(answer.text.size(), 3000u);
    GiveBack(answer.frame);
    kept_.pop_back();
    lane_->Flush();
  }
  // And streams go on when it is read on.
  GiveBackKept(kept_.size());
  keeps_replies_ = false;
  for (size_t ends = 0; ends < 2; ++messages) {
    if ((Receive().frame.flags & link::kEnds) != 0) ++ends;
  }
  EXPECT_EQ(messages, 200u);
}

TEST_F(ServiceCallsTest, AMessageThatCanNeverBeSentIsAnError) {
  Start(size_t{64} << 10);
  Run([](const CallPointer& call) {
    call->Write(OutMessage("small"));
    call->WriteLast(OutMessage(std::string(40 << 10, 'm')));
  });
  OpenUnary(1, kServerStreaming, "x");
  Answer answer = Receive();
  EXPECT_EQ(answer.text, "small");
  answer = Receive();
  EXPECT_EQ(answer.frame.type, FrameType::kEnd);
  EXPECT_EQ(answer.frame.code, static_cast<uint8_t>(Code::kResourceExhausted));
  EXPECT_EQ(wire::ReadCallEnd(answer.frame.payload)->details,
            "the answer has a message of 40960 bytes, more than a message can have");
}

TEST_F(ServiceCallsTest, AMessageThatIsBeingCopiedIsDroppedWithItsCall) {
  constexpr size_t kLarge = size_t{6} << 20;
  Start(size_t{16} << 20);
  Run([](const CallPointer& call) { call->WriteLast(OutMessage(std::string(kLarge, 'm'))); });
  for (uint64_t call = 1; call <= 10; ++call) {
    OpenUnary(call, kUnary, "x");
    if (call % 2 == 0) lane_->SendCancel(call);
    lane_->Flush();
    const Answer answer = Receive();
    EXPECT_EQ(answer.frame.call, call);
    // The memory of those that were dropped is there for the others, or they would wait for ever.
    if (answer.frame.type == FrameType::kReply) {
      EXPECT_EQ(answer.frame.payload.size(), kLarge);
    }
  }
}

TEST_F(ServiceCallsTest, ManyCallsOnManyThreads) {
  Start();
  for (int i = 0; i < 4; ++i) {
    Run([](const CallPointer& call) {
      std::string all;
      for (std::string text; (text = ReadBlocking(*call)) != "<half-closed>";) {
        if (text == "<gone>") return;
        all += text;
      }
      call->WriteLast(OutMessage(all));
    });
  }
  constexpr uint64_t kCalls = 500;
  for (uint64_t call = 1; call <= kCalls; ++call) Open(call, kBothWays);
  for (int i = 0; i < 3; ++i) {
    for (uint64_t call = 1; call <= kCalls; ++call) Message(call, std::to_string(call * 10 + i), false);
    lane_->Flush();
  }
  for (uint64_t call = 1; call <= kCalls; ++call) {
    if (call % 5 == 0) lane_->SendCancel(call);
    lane_->SendHalfClose(call);
  }
  lane_->Flush();
  std::vector<int> ended(kCalls + 1);
  std::vector<int> released(kCalls + 1);
  for (size_t ends = 0; ends < kCalls;) {
    const Answer answer = Receive();
    ASSERT_LE(answer.frame.call, kCalls);
    if (answer.frame.type == FrameType::kReleaseMessage) {
      EXPECT_EQ(ended[answer.frame.call], 0);
      EXPECT_LE(++released[answer.frame.call], 3);
      continue;
    }
    if (answer.frame.type == FrameType::kWants) {
      EXPECT_EQ(ended[answer.frame.call], 0);
      continue;
    }
    ++ends;
    EXPECT_EQ(ended[answer.frame.call]++, 0);
    EXPECT_NE(answer.frame.flags & link::kReleased, 0);
    if (answer.frame.type == FrameType::kEnd) {
      EXPECT_EQ(answer.frame.call % 5, 0u);
    } else {
      std::string expected;
      for (uint64_t i = 0; i < 3; ++i) expected += std::to_string(answer.frame.call * 10 + i);
      EXPECT_EQ(answer.text, expected);
    }
  }
}

TEST_F(ServiceCallsTest, AModelIsToldToTheGateway) {
  Start();
  runtime_->handlers().SetModel("a", true);
  Answer answer = Receive();
  EXPECT_EQ(answer.frame.type, FrameType::kModel);
  EXPECT_EQ(answer.frame.flags, link::kLoaded);
  EXPECT_EQ(answer.text, "a");
  runtime_->handlers().SetModel("a", false);
  answer = Receive();
  EXPECT_EQ(answer.frame.flags, 0);
}

TEST_F(ServiceCallsTest, ACallHasTheGatewaysNameAndKnowsItsCallers) {
  Start();
  Open(5, kUnary, {.depth = 2, .callers = {1, 2}});
  Message(5, "m", true);
  lane_->Flush();
  CallPointer call;
  ASSERT_TRUE(Eventually([&] {
    runtime_->handlers().Await();
    call = runtime_->handlers().TryTake();
    return call != nullptr;
  }));
  EXPECT_EQ(call->tag(), link::TagOf(0, 5));
  EXPECT_EQ(call->head().depth, 2u);
  EXPECT_EQ(call->head().callers, (std::vector<ExecutionTag>{1, 2}));
}

TEST_F(ServiceCallsTest, AHeadThatDoesNotParseEndsTheCall) {
  Start();
  const link::Slab slab = Lay("\x0a\x7f");
  link::Lane::Open open;
  open.call = 1;
  open.method = kUnary;
  open.offset = slab.offset;
  open.length = 2;
  open.ends = false;
  lane_->SendOpen(open);
  lane_->Flush();
  const Answer answer = Receive();
  EXPECT_EQ(answer.frame.type, FrameType::kEnd);
  EXPECT_EQ(answer.frame.code, static_cast<uint8_t>(Code::kInternal));
  EXPECT_EQ(answer.frame.flags, link::kReleased);
}

TEST_F(ServiceCallsTest, AClientThatRestsMakesRoomForOthers) {
  KeepLog();
  clock_ = &fake_time_;
  Start();
  const auto read = std::make_shared<std::promise<std::string>>();
  const auto begun = std::make_shared<std::promise<CallPointer>>();
  Run([=](const CallPointer& call) {
    if (call->handler() == kUnary) return call->WriteLast(OutMessage("ok"));
    begun->set_value(call);
    read->set_value(ReadBlocking(*call));
  });
  Open(1, kBothWays);
  lane_->Flush();
  const CallPointer rests = begun->get_future().get();
  ASSERT_TRUE(Eventually([&] { return runtime_->handlers().Rests(*rests, fake_time_.Now()); }));
  OpenUnary(2, kUnary, "x");
  EXPECT_TRUE(Eventually([&] { return runtime_->handlers().waiting() == 1; }));
  EXPECT_FALSE(rests->over());
  // Again and again, as it is not known when the line was looked at first.
  ASSERT_TRUE(Eventually([&] {
    fake_time_.Advance(Handlers::kStuck);
    return rests->over();
  }));
  Answer answer = Receive();
  EXPECT_EQ(answer.frame.type, FrameType::kEnd);
  EXPECT_EQ(answer.frame.call, 1u);
  EXPECT_EQ(answer.frame.code, static_cast<uint8_t>(Code::kResourceExhausted));
  EXPECT_EQ(answer.frame.flags, link::kReleased);
  EXPECT_EQ(answer.text,
            "no message came from the client for 5 s, while other calls waited for one of the handler threads");
  EXPECT_EQ(Receive().text, "ok");
  EXPECT_EQ(read->get_future().get(), "<gone>");
  EXPECT_TRUE(rests->cancelled());
  EXPECT_EQ(log(), std::vector<std::string>{"calls whose clients stream were ended, since others waited for their "
                                            "handler threads: 1 of /t.T/BothWays"});
}

TEST_F(ServiceCallsTest, AClientThatSendsWithoutPauseMakesRoomForOthers) {
  clock_ = &fake_time_;
  Start();
  std::atomic<int> begun{0};
  for (int i = 0; i < 2; ++i) {
    Run([&](const CallPointer& call) {
      if (call->handler() == kUnary) return call->WriteLast(OutMessage("ok"));
      ++begun;
      std::string last;
      for (std::string text; (text = ReadBlocking(*call)).starts_with('m');) last = text;
      call->WriteLast(OutMessage(last));
    });
  }
  for (uint64_t call = 1; call <= 2; ++call) Open(call, kClientStreaming);
  lane_->Flush();
  ASSERT_TRUE(Eventually([&] {
    fake_time_.Advance(std::chrono::milliseconds(2));
    return begun == 2;
  }));
  client_ = 8;
  OpenUnary(3, kUnary, "x");
  std::map<uint64_t, Answer> ended;
  const auto receive = [&] {
    const Answer answer = Receive();
    if (answer.frame.type != FrameType::kReleaseMessage) ended[answer.frame.call] = answer;
  };
  while (ended.empty()) {
    for (uint64_t call = 1; call <= 2; ++call) {
      for (int i = 0; i < 4; ++i) Message(call, "m", false);
    }
    lane_->Flush();
    for (int i = 0; i < 4 && ended.empty(); ++i) receive();
    fake_time_.Advance(std::chrono::milliseconds(50));
  }
  const uint64_t gone = ended.begin()->first;
  EXPECT_EQ(ended[gone].frame.code, static_cast<uint8_t>(Code::kResourceExhausted));
  EXPECT_EQ(ended[gone].text,
            "the client holds more handler threads than its share, while other calls waited for one of the handler "
            "threads");
  ASSERT_LE(gone, 2u);
  lane_->SendHalfClose(3 - gone);
  lane_->Flush();
  while (ended.size() < 3) receive();
  EXPECT_EQ(ended[3].text, "ok");
  EXPECT_EQ(ended[3 - gone].text, "m");
}

TEST_F(ServiceCallsTest, TheGatewayIsToldOfHandlersThatWaitWithoutAnAnswer) {
  Start();
  std::array<std::promise<void>, 3> steps;
  Run([&](const CallPointer& call) {
    EXPECT_EQ(ReadBlocking(*call), "a");
    steps[0].get_future().wait();
    EXPECT_EQ(ReadBlocking(*call), "b");
    call->Write(OutMessage("to b"));
    EXPECT_EQ(ReadBlocking(*call), "c");
    EXPECT_EQ(ReadBlocking(*call), "d");
    EXPECT_EQ(ReadBlocking(*call), "<half-closed>");
    call->Finish(Code::kOk, "", {});
  });
  // What the worker says, in short, but for how it gives messages back.
  const auto said = [&] {
    Answer answer;
    do {
      answer = Receive();
    } while (answer.frame.type == FrameType::kReleaseMessage);
    if (answer.frame.type == FrameType::kWants) return "wants after " + std::to_string(answer.frame.messages);
    return answer.frame.type == FrameType::kReply ? answer.text : std::string("end");
  };
  Open(1, kBothWays);
  Message(1, "a", false);
  lane_->Flush();
  // As long as it works it waits for nothing.
  EXPECT_EQ(Receive().frame.type, FrameType::kReleaseMessage);
  steps[0].set_value();
  EXPECT_EQ(said(), "wants after 1");
  Message(1, "b", false);
  lane_->Flush();
  EXPECT_EQ(said(), "to b") << "an answer says as much";
  Message(1, "c", false);
  lane_->Flush();
  EXPECT_EQ(said(), "wants after 3");
  Message(1, "d", true);
  lane_->Flush();
  EXPECT_EQ(said(), "end");
}

TEST_F(ServiceCallsTest, TheGatewayIsNotToldWhereOnlyTheClientStreams) {
  Start();
  Run([](const CallPointer& call) {
    while (ReadBlocking(*call) != "<half-closed>") continue;
    call->WriteLast(OutMessage("ok"));
  });
  Open(1, kClientStreaming);
  for (int i = 0; i < 3; ++i) {
    Message(1, "x", false);
    lane_->Flush();
    EXPECT_EQ(Receive().frame.type, FrameType::kReleaseMessage);
  }
  lane_->SendHalfClose(1);
  lane_->Flush();
  EXPECT_EQ(Receive().text, "ok");
}

TEST_F(ServiceCallsTest, AnUnknownMethodEndsTheCall) {
  Start();
  Open(1, 77);
  lane_->Flush();
  const Answer answer = Receive();
  EXPECT_EQ(answer.frame.code, static_cast<uint8_t>(Code::kInternal));
  EXPECT_EQ(answer.frame.flags, link::kReleased);
}

}  // namespace
}  // namespace mindserve::worker
