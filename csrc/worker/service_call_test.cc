// What a handler may do with a call, and what it learns of the client.
#include "worker/service_call.h"

#include <gtest/gtest.h>

#include <atomic>

#include "worker/service_fixture.h"

namespace mindserve::worker {
namespace {

using link::FrameType;

class ServiceCallTest : public ServiceFixture {
 protected:
  // Handler threads that only hand calls over to the test.
  void Collect() {
    Run([this](const CallPointer& call) {
      const std::lock_guard lock(mutex_);
      taken_.push_back(call);
    });
  }
  CallPointer Next() {
    CallPointer call;
    EXPECT_TRUE(Eventually([&] {
      const std::lock_guard lock(mutex_);
      if (taken_.empty()) return false;
      call = taken_.front();
      taken_.erase(taken_.begin());
      return true;
    }));
    return call;
  }
  bool NoneCame() {
    const std::lock_guard lock(mutex_);
    return taken_.empty();
  }

 private:
  std::mutex mutex_;
  std::vector<CallPointer> taken_;  // guarded by mutex_
};

TEST_F(ServiceCallTest, AMethodThatTakesOneMessageBeginsWithIt) {
  Start();
  Collect();
  Open(1, kUnary);
  Open(2, kClientStreaming);
  lane_->Flush();
  EXPECT_EQ(Next()->number(), 2u);
  EXPECT_TRUE(NoneCame());
  Message(1, "now", true);
  lane_->Flush();
  const CallPointer call = Next();
  EXPECT_EQ(call->number(), 1u);
  EXPECT_EQ(ReadNow(*call), "now");
  EXPECT_EQ(ReadNow(*call), "<half-closed>");
}

TEST_F(ServiceCallTest, TheClientsMessagesComeInOrderAndThenItsHalfClose) {
  Start();
  Run([](const CallPointer& call) {
    std::string all;
    for (std::string text; (text = ReadBlocking(*call)) != "<half-closed>";) all += text + ",";
    call->WriteLast(OutMessage(all));
  });
  Open(1, kClientStreaming);
  Message(1, "a", false);
  Message(1, "", false);
  lane_->Flush();
  // Taken messages are released one by one, the head with the call.
  for (int i = 0; i < 2; ++i) {
    const Answer answer = Receive();
    EXPECT_EQ(answer.frame.type, FrameType::kReleaseMessage);
    EXPECT_EQ(answer.frame.call, 1u);
  }
  Message(1, "b", false);
  lane_->SendHalfClose(1);
  lane_->Flush();
  Answer answer = Receive();
  while (answer.frame.type == FrameType::kReleaseMessage) answer = Receive();
  EXPECT_EQ(answer.frame.flags, link::kEnds | link::kReleased);
  EXPECT_EQ(answer.text, "a,,b,");
}

TEST_F(ServiceCallTest, NoMessageIsReleasedTwice) {
  Start();
  Run([](const CallPointer& call) {
    ReadBlocking(*call);
    call->Finish(Code::kAborted, "enough", {});
  });
  Open(1, kClientStreaming);
  for (int i = 0; i < 20; ++i) Message(1, "m", false);
  lane_->Flush();
  // The release of the call comprises all that were not released before: after it there is none.
  size_t released = 0;
  Answer answer = Receive();
  for (; answer.frame.type == FrameType::kReleaseMessage; answer = Receive()) ++released;
  EXPECT_LE(released, 1u);
  EXPECT_EQ(answer.frame.type, FrameType::kEnd);
  EXPECT_NE(answer.frame.flags & link::kReleased, 0);
  // What comes late is nobody's.
  Message(1, "late", true);
  lane_->SendCancel(1);
  OpenUnary(2, kUnary, "x");
  answer = Receive();
  while (answer.frame.type == FrameType::kReleaseMessage && answer.frame.call == 2) answer = Receive();
  EXPECT_EQ(answer.frame.call, 2u);
}

TEST_F(ServiceCallTest, WhatTheMethodDoesNotTakeEndsTheCall) {
  Start();
  Collect();
  Open(1, kUnary);
  lane_->SendHalfClose(1);
  lane_->Flush();
  Answer answer = Receive();
  EXPECT_EQ(answer.frame.code, static_cast<uint8_t>(Code::kInternal));
  EXPECT_EQ(answer.text, "the client sent no message to a method that takes one");
  EXPECT_EQ(answer.frame.flags, link::kReleased);
  Open(2, kUnary);
  Message(2, "a", false);
  Message(2, "b", true);
  lane_->Flush();
  answer = Receive();
  EXPECT_EQ(answer.frame.call, 2u);
  EXPECT_EQ(answer.text, "the client sent more messages than the method takes");
  // It was seen, or not: in any case it is over.
  EXPECT_TRUE(NoneCame() || Next()->over());
}

TEST_F(ServiceCallTest, InitialMetadataGoesOnceAndBeforeMessages) {
  Start();
  Run([](const CallPointer& call) {
    EXPECT_TRUE(call->SendInitial({{"a", "b"}}, true));
    EXPECT_FALSE(call->SendInitial({{"c", "d"}}, false));
    call->Write(OutMessage("gz", true));
    call->Finish(Code::kOk, {}, {{"t", "u"}});
  });
  OpenUnary(1, kUnary, "x");
  Answer answer = Receive();
  EXPECT_EQ(answer.frame.type, FrameType::kInitial);
  EXPECT_EQ(answer.frame.flags, link::kCompressed);
  EXPECT_EQ(*wire::ReadMetadata(answer.frame.payload), (wire::MetadataView{{"a", "b"}}));
  answer = Receive();
  EXPECT_EQ(answer.frame.type, FrameType::kReply);
  EXPECT_EQ(answer.frame.flags, link::kCompressed);
  answer = Receive();
  EXPECT_EQ(answer.frame.type, FrameType::kEnd);
  EXPECT_EQ(answer.frame.flags, link::kTrailing | link::kReleased);
  EXPECT_EQ(answer.frame.code, 0);
}

TEST_F(ServiceCallTest, AMessageTooLateForInitialMetadata) {
  Start();
  Run([](const CallPointer& call) {
    call->Write(OutMessage("m"));
    EXPECT_FALSE(call->SendInitial({}, false));
    call->Finish(Code::kAborted, "so", {});
  });
  OpenUnary(1, kServerStreaming, "x");
  EXPECT_EQ(Receive().text, "m");
  EXPECT_EQ(Receive().frame.type, FrameType::kEnd);
}

TEST_F(ServiceCallTest, ACallIsCancelledBeforeItsHandlerBegins) {
  Start();
  Open(1, kUnary);
  Message(1, "x", true);
  lane_->SendCancel(1);
  lane_->Flush();
  const Answer answer = Receive();
  EXPECT_EQ(answer.frame.type, FrameType::kEnd);
  EXPECT_EQ(answer.frame.code, static_cast<uint8_t>(Code::kCancelled));
  EXPECT_EQ(answer.frame.flags, link::kReleased);
  EXPECT_FALSE(lane_->MayHaveBegun(1));
  Collect();
  OpenUnary(2, kUnary, "x");
  EXPECT_EQ(Next()->number(), 2u);
  EXPECT_TRUE(lane_->MayHaveBegun(2));
}

TEST_F(ServiceCallTest, ACancelledCallIsOverForItsHandler) {
  Start();
  Collect();
  OpenUnary(1, kServerStreaming, "x");
  const CallPointer call = Next();
  lane_->SendCancel(1);
  lane_->Flush();
  const Answer answer = Receive();
  EXPECT_EQ(answer.frame.code, static_cast<uint8_t>(Code::kCancelled));
  EXPECT_TRUE(call->cancelled());
  EXPECT_EQ(ReadNow(*call), "<gone>");
  EXPECT_EQ(call->Write(OutMessage("m")), ServiceCall::Writing::kGone);
  EXPECT_TRUE(call->SendInitial({}, false));  // dropped, like the end
  call->Finish(Code::kOk, {}, {});
  OpenUnary(2, kUnary, "x");
  Next()->WriteLast(OutMessage("next"));
  EXPECT_EQ(Receive().text, "next");
}

TEST_F(ServiceCallTest, CancellingWakesAReader) {
  Start();
  std::promise<std::string> read;
  Run([&](const CallPointer& call) { read.set_value(ReadBlocking(*call)); });
  Open(1, kBothWays);
  lane_->Flush();
  ASSERT_TRUE(Eventually([&] { return lane_->MayHaveBegun(1); }));
  lane_->SendCancel(1);
  lane_->Flush();
  EXPECT_EQ(read.get_future().get(), "<gone>");
  EXPECT_EQ(Receive().frame.code, static_cast<uint8_t>(Code::kCancelled));
}

TEST_F(ServiceCallTest, ACallThatIsDroppedEndsWithAnError) {
  Start();
  Run([](const CallPointer& call) { call->Drop(); });
  OpenUnary(1, kUnary, "x");
  const Answer answer = Receive();
  EXPECT_EQ(answer.frame.code, static_cast<uint8_t>(Code::kInternal));
  EXPECT_EQ(wire::ReadCallEnd(answer.frame.payload)->details, "the handler gave no answer");
}

TEST_F(ServiceCallTest, OnlyTheFirstEndCounts) {
  Start();
  Run([](const CallPointer& call) {
    call->Finish(Code::kAborted, "first", {});
    call->Finish(Code::kOk, {}, {});
    call->Drop();
    EXPECT_EQ(call->Write(OutMessage("m")), ServiceCall::Writing::kGone);
  });
  OpenUnary(1, kUnary, "x");
  EXPECT_EQ(Receive().frame.code, static_cast<uint8_t>(Code::kAborted));
  OpenUnary(2, kUnary, "x");
  EXPECT_EQ(Receive().frame.call, 2u);
}

// Messages until the call holds its writer back.
size_t Fill(ServiceCall& call, size_t bytes) {
  size_t count = 1;
  while (call.Write(OutMessage(std::string(bytes, 'm'))) == ServiceCall::Writing::kGoOn) ++count;
  return count;
}

TEST_F(ServiceCallTest, AWriterIsHeldBackUntilHalfHasLeft) {
  Start();
  keeps_replies_ = true;
  Collect();
  OpenUnary(1, kServerStreaming, "x");
  const CallPointer call = Next();
  ASSERT_EQ(Fill(*call, 10), ServiceCall::kMaxMessagesAhead);
  for (size_t i = 0; i < ServiceCall::kMaxMessagesAhead; ++i) EXPECT_EQ(Receive().text.size(), 10u);
  auto writable = std::async(std::launch::async, [&] { return call->AwaitWritable(); });
  GiveBackKept(ServiceCall::kMaxMessagesAhead / 2 - 1);
  EXPECT_EQ(writable.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  // The worker sleeps; one message more wakes it.
  GiveBackKept(1);
  EXPECT_TRUE(writable.get());
  EXPECT_EQ(call->Write(OutMessage("m")), ServiceCall::Writing::kGoOn);
}

TEST_F(ServiceCallTest, AWriterIsHeldBackByBytesAsWell) {
  Start();
  keeps_replies_ = true;
  Collect();
  OpenUnary(1, kServerStreaming, "x");
  const CallPointer call = Next();
  EXPECT_EQ(Fill(*call, 100 << 10), 3u);
  for (int i = 0; i < 3; ++i) Receive();
  auto writable = std::async(std::launch::async, [&] { return call->AwaitWritable(); });
  GiveBackKept(2);
  EXPECT_TRUE(writable.get());
}

TEST_F(ServiceCallTest, AMessageOfAnySizeIsTaken) {
  Start(size_t{16} << 20);
  Run([](const CallPointer& call) {
    EXPECT_EQ(call->Write(OutMessage(std::string(3 << 20, 'm'))), ServiceCall::Writing::kHoldBack);
    EXPECT_TRUE(call->AwaitWritable());
    call->WriteLast(OutMessage(std::string(2 << 20, 'n')));
  });
  OpenUnary(1, kServerStreaming, "x");
  EXPECT_EQ(Receive().text, std::string(3 << 20, 'm'));
  EXPECT_EQ(Receive().text, std::string(2 << 20, 'n'));
}

TEST_F(ServiceCallTest, CancellingWakesAWriter) {
  Start();
  keeps_replies_ = true;
  std::promise<bool> writable;
  Run([&](const CallPointer& call) {
    Fill(*call, 10);
    writable.set_value(call->AwaitWritable());
  });
  OpenUnary(1, kServerStreaming, "x");
  for (size_t i = 0; i < ServiceCall::kMaxMessagesAhead; ++i) Receive();
  lane_->SendCancel(1);
  lane_->Flush();
  EXPECT_FALSE(writable.get_future().get());
}

TEST_F(ServiceCallTest, AParkedCallComesAgainOnceItIsWritable) {
  Start();
  std::atomic<int> turns{0};
  Run([&](const CallPointer& call) {
    if (++turns < 3) {
      Fill(*call, 10);
    } else {
      call->Finish(Code::kAborted, "enough", {});
    }
  });
  OpenUnary(1, kServerStreaming, "x");
  keeps_replies_ = true;
  for (size_t i = 0; i < ServiceCall::kMaxMessagesAhead; ++i) Receive();
  EXPECT_EQ(turns, 1);
  GiveBackKept(kept_.size());
  keeps_replies_ = false;
  Answer answer = Receive();
  while (answer.frame.type == FrameType::kReply) answer = Receive();
  EXPECT_EQ(answer.frame.type, FrameType::kEnd);
  EXPECT_EQ(turns, 3);
}

TEST_F(ServiceCallTest, AParkedCallComesAgainWhenItIsCancelled) {
  Start();
  keeps_replies_ = true;
  std::promise<bool> over;
  Run([&, turn = 0](const CallPointer& call) mutable {
    if (++turn == 1) {
      Fill(*call, 10);
    } else {
      over.set_value(call->over());
    }
  });
  OpenUnary(1, kServerStreaming, "x");
  for (size_t i = 0; i < ServiceCall::kMaxMessagesAhead; ++i) Receive();
  lane_->SendCancel(1);
  lane_->Flush();
  EXPECT_TRUE(over.get_future().get());
}

TEST_F(ServiceCallTest, ACallEndsWithItsRuntime) {
  Start();
  Collect();
  Open(1, kBothWays);
  Message(1, "x", false);
  lane_->Flush();
  const CallPointer call = Next();
  runtime_->Stop();
  EXPECT_TRUE(served_.get().ok());
  EXPECT_TRUE(call->cancelled());
  EXPECT_EQ(ReadNow(*call), "<gone>");
  threads_.front().join();
  threads_.clear();
  runtime_.reset();
  call->Finish(Code::kOk, {}, {});
}

}  // namespace
}  // namespace mindserve::worker
