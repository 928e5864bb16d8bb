// Clients that don't read what they are answered: what that leaves to others, and how it goes on once they do.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "worker/answer_line.h"
#include "worker/service_fixture.h"

namespace mindserve::worker {
namespace {

using link::FrameType;

constexpr size_t kArena = size_t{1} << 20;
constexpr size_t kLarge = size_t{64} << 10;
constexpr uint64_t kGreedy = 8;
constexpr uint64_t kOther = 9;
// On the link.
constexpr uint16_t kSame = 0;  // a Predict method that answers with what it is given
constexpr uint16_t kClassify = 1;

// Protobuf.
std::string Varint(size_t number) {
  std::string text;
  for (; number > 0x7f; number >>= 7) text += static_cast<char>((number & 0x7f) | 0x80);
  return text + static_cast<char>(number);
}

std::string Field(int number, const std::string& content) {
  return static_cast<char>(number << 3 | 2) + Varint(content.size()) + content;
}

class ReplyMemoryTest : public ServiceFixture {
 protected:
  void SetUp() override {
    // No timer goes off: the worker would wake now and then, and who was forgotten would only be late.
    fake_time_.Advance(time_.Now() - fake_time_.Now() + std::chrono::hours(1));
    clock_ = &fake_time_;
    before_serving_ = [this](pipeline::Engine& engine) {
      pipeline::MethodSpec same;
      same.name = "same";
      same.inputs = {"x"};
      same.outputs = {"y"};
      same.results = {pipeline::ValueRef{}};
      ASSERT_TRUE(engine.AddMethod(same).ok());
      same.name = "classify";
      ASSERT_TRUE(engine.AddMethod(same).ok());
      runtime_->SetClassifier(Classifier(kClassify, same.inputs, {.classes = {"a", "b"}}, std::string(kLarge, 'm')));
    };
  }

  // Handlers answer a unary call with as many bytes as its message names, and a stream with so many large messages,
  // which begin with their number.
  void StartAndRun() {
    Start(kArena);
    Run([this](const CallPointer& call) {
      const int number = std::stoi(ReadNow(*call));
      if (call->handler() == kUnary) {
        call->WriteLast(OutMessage(std::string(static_cast<size_t>(number), 'u')));
      } else {
        for (int sent = 0; sent < number; ++sent) {
          std::string message = std::to_string(sent) + " ";
          message.resize(kLarge, 's');
          if (sent + 1 < number) {
            call->Write(OutMessage(message));
          } else {
            call->WriteLast(OutMessage(message));
          }
        }
      }
      ++handled_;
    });
  }

  void Ask(uint64_t client, uint64_t call, uint16_t method, size_t number) {
    client_ = client;
    OpenUnary(call, method, std::to_string(number));
  }

  // The content of an instance with a tensor of one dimension.
  static std::string Instance(char type, size_t size, size_t bytes) {
    const std::string tensor = Field(1, Field(1, Varint(size))) + "\x10" + type + Field(3, std::string(bytes, '\0'));
    return Field(1, Field(1, "x") + Field(2, tensor));
  }

  void Predict(uint64_t client, uint64_t call, size_t bytes) {
    constexpr char kUint8 = 3;
    OpenPredict(client, call, kSame, Field(2, Instance(kUint8, bytes, bytes)));
  }

  // The answer names the model, which makes it a large one.
  void Classify(uint64_t client, uint64_t call) {
    constexpr char kFloat32 = 11;
    OpenPredict(client, call, kClassify,
                Field(2, Field(1, "x/mindspore.serving.proto.Instance") + Field(2, Instance(kFloat32, 2, 8))));
  }

  void OpenPredict(uint64_t client, uint64_t call, uint16_t method, const std::string& body) {
    const link::Slab slab = Lay(body);
    link::Lane::Open open;
    open.call = call;
    open.method = method;
    open.instances = 1;
    open.client = client;
    open.offset = slab.offset;
    open.length = body.size();
    lane_->SendOpen(open);
    lane_->Flush();
  }

  // So many of the greedy one's messages are kept, and not one more comes.
  void ExpectKept(size_t count) {
    keeps_replies_ = true;
    while (kept_.size() < count) {
      const Answer answer = Receive();
      ASSERT_EQ(answer.frame.type, FrameType::kReply);
      Note(answer);
    }
    EXPECT_FALSE(Hears(std::chrono::milliseconds(200)));
    keeps_replies_ = false;
  }

  // What each call was answered: messages of streams, in order.
  void Note(const Answer& answer) {
    if (answer.frame.type == FrameType::kReply && !answer.text.empty() && answer.text.back() == 's') {
      const size_t next = messages_[answer.frame.call]++;
      EXPECT_EQ(answer.text.substr(0, answer.text.find(' ')), std::to_string(next));
    }
    if ((answer.frame.flags & link::kEnds) != 0 || answer.frame.type == FrameType::kEnd) ++ends_[answer.frame.call];
  }

  void ReceiveUntilEnded(size_t calls) {
    while (ends_.size() < calls && !HasFailure()) Note(Receive());
  }

  std::atomic<size_t> handled_{0};
  std::map<uint64_t, size_t> messages_;
  std::map<uint64_t, int> ends_;
};

TEST_F(ReplyMemoryTest, AClientThatReadsNothingIsInNobodysWay) {
  StartAndRun();
  for (uint64_t call = 1; call <= 3; ++call) Ask(kGreedy, call, kServerStreaming, 20);
  // Half of what streams may have.
  ExpectKept(6);

  for (uint64_t call = 10; call < 30; ++call) {
    Ask(kOther, call, kUnary, 200'000);
    EXPECT_EQ(Receive().frame.call, call);
  }
  Ask(kOther, 30, kServerStreaming, 20);
  while (ends_.empty() && !HasFailure()) {
    const Answer answer = Receive();
    ASSERT_EQ(answer.frame.call, 30u);
    Note(answer);
  }
  EXPECT_EQ(messages_[30], 20u);
  // The client's own plain calls have room besides its streams.
  Ask(kGreedy, 31, kUnary, 100'000);
  EXPECT_EQ(Receive().frame.call, 31u);

  // Once it reads it is sent the rest, in order.
  GiveBackKept(kept_.size());
  ReceiveUntilEnded(4);
  for (uint64_t call = 1; call <= 3; ++call) {
    EXPECT_EQ(messages_[call], 20u);
    EXPECT_EQ(ends_[call], 1);
  }
}

TEST_F(ReplyMemoryTest, WhatIsGivenBackIsWhatAWaitingClientMayHave) {
  StartAndRun();
  Ask(kGreedy, 1, kServerStreaming, 20);
  ExpectKept(6);
  keeps_replies_ = true;
  for (size_t left = 14; left > 0; --left) {
    GiveBackKept(1);
    Note(Receive());
    if (HasFailure()) return;
  }
  EXPECT_EQ(messages_[1], 20u);
}

TEST_F(ReplyMemoryTest, AWorkerThatWaitsForNothingButAStreamsShareIsWoken) {
  StartAndRun();
  // So few messages that their handlers wait for none to leave.
  for (uint64_t call = 1; call <= 3; ++call) Ask(kGreedy, call, kServerStreaming, 3);
  ExpectKept(6);
  GiveBackKept(kept_.size());
  ReceiveUntilEnded(3);
  for (uint64_t call = 1; call <= 3; ++call) EXPECT_EQ(messages_[call], 3u);
}

TEST_F(ReplyMemoryTest, AnyMessageThatCanBeSentGoesToAClientThatHoldsNothing) {
  StartAndRun();
  Ask(kGreedy, 1, kServerStreaming, 20);
  ExpectKept(6);
  // As large as one can be.
  for (uint64_t call = 2; call <= 3; ++call) {
    Ask(kOther, call, kUnary, kArena / 2);
    const Answer answer = Receive();
    EXPECT_EQ(answer.frame.call, call);
    EXPECT_EQ(answer.text.size(), kArena / 2);
  }
}

TEST_F(ReplyMemoryTest, PlainAnswersHaveSharesAsWell) {
  StartAndRun();
  for (uint64_t call = 1; call <= 20; ++call) Ask(kGreedy, call, kUnary, kLarge);
  ExpectKept(8);
  for (uint64_t call = 30; call < 40; ++call) {
    Ask(kOther, call, kUnary, call % 2 == 0 ? kLarge : 10);
    EXPECT_EQ(Receive().frame.call, call);
  }
  // A client's own go in order.
  Ask(kGreedy, 21, kUnary, 10);
  EXPECT_FALSE(Hears(std::chrono::milliseconds(100)));
  GiveBackKept(kept_.size());
  for (uint64_t call = 9; call <= 21; ++call) EXPECT_EQ(Receive().frame.call, call);
}

TEST_F(ReplyMemoryTest, WhatIsAnsweredTogetherWithWhatMustWaitGoesAtOnce) {
  Start(kArena);
  Run([this, first = CallPointer()](const CallPointer& call) mutable {
    if (call->client() == kGreedy) {
      first = call;
      ++handled_;
    } else {
      first->WriteLast(OutMessage(std::string(kLarge, 'u')));
      call->WriteLast(OutMessage("x"));
    }
  });
  constexpr uint64_t kShare = kArena / 2 / kLarge;
  for (uint64_t call = 1; call <= kShare + 20; ++call) {
    Ask(kGreedy, call, kUnary, 0);
    ASSERT_TRUE(Eventually([&] { return handled_ == call; }));
    Ask(kOther, 100 + call, kUnary, 0);
    keeps_replies_ = true;
    if (call <= kShare) {
      EXPECT_EQ(Receive().frame.call, call);
    }
    keeps_replies_ = false;
    EXPECT_EQ(Receive().frame.call, 100 + call);
    if (HasFailure()) return;
  }
}

TEST_F(ReplyMemoryTest, WhoWaitsForItsShareIsCancelledAtOnce) {
  StartAndRun();
  for (uint64_t call = 1; call <= 10; ++call) Ask(kGreedy, call, kUnary, kLarge);
  Ask(kGreedy, 11, kServerStreaming, 3);
  ExpectKept(8 + 1);  // streams have a share of their own
  for (const uint64_t call : {9, 11}) {
    lane_->SendCancel(call);
    lane_->Flush();
    const Answer answer = Receive();
    EXPECT_EQ(answer.frame.call, call);
    EXPECT_EQ(answer.frame.code, static_cast<uint8_t>(Code::kCancelled));
  }
  // Its number is used again, by another client, and means that one's call.
  Ask(kOther, 9, kUnary, 100);
  EXPECT_EQ(Receive().text.size(), 100u);
  GiveBackKept(kept_.size());
  EXPECT_EQ(Receive().frame.call, 10u);
  EXPECT_FALSE(Hears(std::chrono::milliseconds(100)));
}

TEST_F(ReplyMemoryTest, SmallAnswersPassALargeOneThatWaitsForRoom) {
  StartAndRun();
  keeps_replies_ = true;
  Ask(kGreedy, 1, kUnary, kArena / 2);
  EXPECT_EQ(Receive().frame.call, 1u);
  Ask(kGreedy + 10, 2, kUnary, kArena / 4);
  EXPECT_EQ(Receive().frame.call, 2u);
  keeps_replies_ = false;
  // A quarter is free.
  Ask(kGreedy + 11, 3, kUnary, kArena / 2);
  EXPECT_FALSE(Hears(std::chrono::milliseconds(100)));
  for (uint64_t call = 4; call < 20; ++call) {
    Ask(kOther, call, kUnary, call % 2 == 0 ? 10 : kArena / 4 / 64);
    EXPECT_EQ(Receive().frame.call, call);
  }
  Predict(kOther, 20, 10);
  EXPECT_EQ(Receive().frame.call, 20u);
  // But not what takes more of it.
  Ask(kOther, 21, kUnary, kArena / 4 / 32);
  EXPECT_FALSE(Hears(std::chrono::milliseconds(100)));
  Ask(kOther, 22, kUnary, 10);
  EXPECT_FALSE(Hears(std::chrono::milliseconds(100))) << "its own go in order";
  GiveBackKept(kept_.size());
  std::vector<uint64_t> answered;
  for (int i = 0; i < 3; ++i) answered.push_back(Receive().frame.call);
  std::erase(answered, 3);  // it is copied in steps
  EXPECT_EQ(answered, (std::vector<uint64_t>{21, 22}));
}

TEST_F(ReplyMemoryTest, ClientsTakeTurnsWhereThereIsNoRoom) {
  StartAndRun();
  // Small ones, which don't count, fill the arena; then others wait, a crowd of one client's before one of another's.
  constexpr size_t kSmall = 3000;
  uint64_t call = 0;
  keeps_replies_ = true;
  do {
    Ask(kGreedy, ++call, kUnary, kSmall);
    ASSERT_TRUE(Eventually([&] { return handled_ == call; }));
  } while (Hears(std::chrono::milliseconds(500)) && Receive().frame.call == call);
  ASSERT_EQ(kept_.size() + 1, call);
  keeps_replies_ = false;
  for (int i = 0; i < 10; ++i) {
    Ask(kGreedy, ++call, kUnary, kSmall);
    ASSERT_TRUE(Eventually([&] { return handled_ == call; }));
  }
  Ask(kOther, ++call, kUnary, kSmall);
  ASSERT_TRUE(Eventually([&] { return handled_ == call; }));
  EXPECT_FALSE(Hears(std::chrono::milliseconds(200)));
  GiveBackKept(1);
  EXPECT_EQ(Receive().frame.call, call - 11);
  EXPECT_EQ(Receive().frame.call, call);
  for (uint64_t next = call - 10; next < call; ++next) EXPECT_EQ(Receive().frame.call, next);
}

TEST_F(ReplyMemoryTest, TheGatewayIsToldOfAnswersThatHaveWaitedForLong) {
  StartAndRun();
  keeps_replies_ = true;
  uint64_t call = 0;
  // Each wakes the worker.
  const auto ask = [&](uint64_t client, size_t bytes) {
    Ask(client, ++call, kUnary, bytes);
    ASSERT_TRUE(Eventually([&] { return handled_ == call; }));
  };
  ask(kGreedy, kArena / 2);
  ask(kGreedy + 10, kArena / 2);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(Receive().frame.type, FrameType::kReply);
  ask(kOther, 10);
  fake_time_.Advance(std::chrono::milliseconds(4999));
  ask(kOther, 10);
  EXPECT_FALSE(Hears(std::chrono::milliseconds(100)));
  for (int i = 0; i < 2; ++i) {
    fake_time_.Advance(std::chrono::milliseconds(i == 0 ? 1 : 5000));
    ask(kOther, 10);
    EXPECT_EQ(Receive().frame.type, FrameType::kLacks);
    ask(kOther, 10);
    EXPECT_FALSE(Hears(std::chrono::milliseconds(100)));
  }
  // As soon as there is room it is over.
  GiveBackKept(kept_.size());
  for (int i = 0; i < 6; ++i) EXPECT_EQ(Receive().frame.type, FrameType::kReply);
  fake_time_.Advance(std::chrono::minutes(1));
  ask(kOther, 10);
  EXPECT_EQ(Receive().frame.type, FrameType::kReply);
}

TEST_F(ReplyMemoryTest, TheGatewayIsToldOfCallsThatWaitForTheirClientsShare) {
  StartAndRun();
  for (uint64_t call = 1; call <= 3; ++call) Ask(kGreedy, call, kServerStreaming, 3);
  ExpectKept(6);
  std::set<uint64_t> waiting;
  for (uint64_t call = 1; call <= 3; ++call) {
    if (messages_[call] < 3) waiting.insert(call);
  }
  ASSERT_FALSE(waiting.empty());
  uint64_t asked = 100;
  // Another call wakes the worker then: which calls it tells the gateway of.
  const auto told_after = [&](int milliseconds) {
    fake_time_.Advance(std::chrono::milliseconds(milliseconds));
    Ask(kOther, ++asked, kUnary, 10);
    std::set<uint64_t> told;
    for (bool answered = false; (!answered || Hears(std::chrono::milliseconds(100))) && !HasFailure();) {
      const Answer answer = Receive();
      if (answer.frame.type == FrameType::kOverShare) {
        told.insert(answer.frame.call);
      } else {
        EXPECT_EQ(answer.frame.call, asked);
        answered = true;
      }
    }
    return told;
  };
  EXPECT_EQ(told_after(5000), std::set<uint64_t>()) << "they have just come";
  EXPECT_EQ(told_after(4999), std::set<uint64_t>());
  EXPECT_EQ(told_after(1), waiting);
  EXPECT_EQ(told_after(5000), waiting);
  // Who gets something is not stuck.
  keeps_replies_ = true;
  GiveBackKept(1);
  Note(Receive());
  keeps_replies_ = false;
  EXPECT_EQ(told_after(5000), std::set<uint64_t>());
  GiveBackKept(kept_.size());
  ReceiveUntilEnded(3);
}

TEST_F(ReplyMemoryTest, CallsOfServablesHaveNoShare) {
  StartAndRun();
  // As a client it has its share with the sixth of these.
  for (uint64_t call = 1; call <= 4; ++call) {
    Open(call, kServerStreaming, {.depth = 1});
    Message(call, "3", true);
    lane_->Flush();
  }
  // But for a quarter they may take all.
  ExpectKept(12);
  GiveBackKept(kept_.size());
  ReceiveUntilEnded(4);
}

TEST_F(ReplyMemoryTest, StreamsAndOtherAnswersAreCountedApart) {
  StartAndRun();
  Ask(kGreedy, 1, kUnary, kArena / 2);
  ExpectKept(1);
  // For streams it is as a client that holds nothing.
  Ask(kGreedy, 2, kServerStreaming, 20);
  Ask(kGreedy, 3, kServerStreaming, 20);
  ExpectKept(2);
  keeps_replies_ = true;
  Ask(kGreedy, 4, kUnary, 5000);
  EXPECT_FALSE(Hears(std::chrono::milliseconds(200))) << "it has its share of those";
  Ask(kOther, 5, kUnary, 5000);
  EXPECT_EQ(Receive().frame.call, 5u);
  keeps_replies_ = false;
  GiveBackKept(kept_.size());
  ReceiveUntilEnded(3);
}

TEST_F(ReplyMemoryTest, OneOfACrowdGoesOnOnceItHasGivenBack) {
  StartAndRun();
  constexpr uint64_t kCrowd = 80;
  static_assert(kCrowd > AnswerLine::kMostTries);
  keeps_replies_ = true;
  uint64_t call = 0;
  const auto ask = [&](uint64_t client, size_t bytes) {
    Ask(client, ++call, kUnary, bytes);
    ASSERT_TRUE(Eventually([&] { return handled_ == call; }));
  };
  for (uint64_t client = 1; client <= kCrowd; ++client) ask(client, 4096);
  // Two others take the rest.
  ask(kCrowd + 1, kArena / 2);
  ask(kCrowd + 2, kArena / 2 - kCrowd * 4096);
  while (kept_.size() < call && !HasFailure()) Receive();
  for (uint64_t client = 1; client <= kCrowd; ++client) ask(client, 4096);
  EXPECT_FALSE(Hears(std::chrono::milliseconds(100)));
  const auto last = std::ranges::find(kept_, kCrowd, &link::WorkerFrame::call);
  ASSERT_NE(last, kept_.end());
  GiveBack(*last);
  lane_->Flush();
  EXPECT_EQ(Receive().frame.call, call);
}

TEST_F(ReplyMemoryTest, PredictAnswersHaveShares) {
  Start(kArena);
  // Some of these are written in one step, and some in several.
  for (const size_t bytes : {kLarge, size_t{300'000}}) {
    const size_t rounded = (bytes + 100 + 4095) / 4096 * 4096;
    const size_t share = kArena / 2 / rounded;
    for (uint64_t call = 1; call <= 12; ++call) Predict(kGreedy, call, bytes);
    ExpectKept(share);
    for (uint64_t call = 20; call < 26; ++call) {
      Predict(kOther, call, call % 2 == 0 ? bytes : 10);
      EXPECT_EQ(Receive().frame.call, call);
    }
    // One that waits is cancelled, and ends though nothing is given back.
    const uint64_t cancelled = share + 2;
    lane_->SendCancel(cancelled);
    lane_->Flush();
    const Answer answer = Receive();
    EXPECT_EQ(answer.frame.call, cancelled);
    EXPECT_EQ(answer.frame.code, static_cast<uint8_t>(Code::kCancelled));
    // Another waits behind the client's own.
    Predict(kGreedy, 13, 10);
    EXPECT_FALSE(Hears(std::chrono::milliseconds(100)));
    GiveBackKept(kept_.size());
    std::set<uint64_t> answered;
    while (answered.size() < 12 - share && !HasFailure()) answered.insert(Receive().frame.call);
    EXPECT_FALSE(answered.contains(cancelled));
    EXPECT_EQ(*answered.begin(), share + 1);
    EXPECT_EQ(*answered.rbegin(), 13u);
    if (HasFailure()) return;
  }
}

TEST_F(ReplyMemoryTest, ClassifiersAnswersHaveShares) {
  Start(kArena);
  for (uint64_t call = 1; call <= 12; ++call) Classify(kGreedy, call);
  ExpectKept(7);
  Classify(kOther, 20);
  EXPECT_EQ(Receive().frame.call, 20u);
  GiveBackKept(kept_.size());
  for (uint64_t call = 8; call <= 12; ++call) EXPECT_EQ(Receive().frame.call, call);
}

}  // namespace
}  // namespace mindserve::worker
