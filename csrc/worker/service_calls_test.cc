// Calls of users' services through a runtime: what the gateway is told, frame by frame.
#include "worker/service_calls.h"

#include <gtest/gtest.h>

#include "worker/service_fixture.h"

namespace mindserve::worker {
namespace {

using link::FrameType;

class ServiceCallsTest : public ServiceFixture {};

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

}  // namespace
}  // namespace mindserve::worker
