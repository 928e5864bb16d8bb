#include "gateway/worker_calls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cstring>
#include <thread>

#include "link/worker_link.h"

namespace mindserve::gateway {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// Notes what it is told, in words.
class Listener final : public WorkerCallListener {
 public:
  void OnWorkerReply(uint32_t tag, ReplyPart payload, uint8_t) override {
    const auto bytes = payload.bytes();
    told.push_back(std::to_string(tag) + " reply " +
                   std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  }
  void OnWorkerEnd(uint32_t tag, Status status) override {
    told.push_back(std::to_string(tag) + " end " + status.message());
  }
  void OnWorkerLost(uint32_t tag, const LostCall& lost) override {
    told.push_back(std::to_string(tag) + " lost" + (lost.begun ? " begun" : "") + (lost.executing ? " executing" : ""));
  }
  void OnAnswerWaits() override { told.emplace_back("an answer waits"); }
  std::vector<std::string> told;
};

// An I/O thread's calls at a worker's real link, both in this thread.
class WorkerCallsTest : public testing::Test {
 protected:
  WorkerCallsTest() {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    UniqueFd ours(fds[0]);
    UniqueFd theirs(fds[1]);
    constexpr std::chrono::seconds kPatience{20};
    std::thread worker([&] {
      auto link = link::WorkerLink::Connect(theirs.get(), stats_, 1 << 20, kPatience);
      ASSERT_TRUE(link.ok()) << link.status().ToString();
      link_ = *std::move(link);
    });
    link::GatewayPort* ports[] = {port_.get()};
    auto shaken = link::GatewayHandshake::Run(ours.get(), ports, kPatience);
    worker.join();
    EXPECT_TRUE(shaken.ok()) << shaken.status().ToString();
    reader_.emplace(std::move(shaken->stats));
    worker_ = std::make_shared<WorkerEnd>(WorkerSpec{.id = 1, .servable = "s", .methods = {{"m"}}}, nullptr,
                                          std::move(shaken->lanes.front()));
    calls_.Add(worker_);
  }

  // Opens a call and gives it to the worker.
  link::GatewayFrame Open(uint32_t tag) {
    auto message = memory_.Allocate(8);
    EXPECT_TRUE(message.ok());
    auto request = std::make_shared<Request>(*std::move(message));
    calls_.Open(worker_, 0, {.offset = 0, .length = 8, .instances = 1}, request, {}, listener_, tag);
    calls_.Flush();
    link::GatewayFrame frame;
    EXPECT_TRUE(link_->Receive(0, &frame));
    return frame;
  }
  void Reply(const link::GatewayFrame& frame, std::string_view text) {
    const auto slab = link_->AllocateReply(0, text.size());
    ASSERT_TRUE(slab);
    std::memcpy(slab->bytes.data(), text.data(), text.size());
    link_->SendReply(0, frame.call, *slab, link::kEnds | link::kReleased);
  }
  WorkerLoss Loss(bool dead) { return WorkerLoss::Of("test", dead, *reader_); }

  link::StatsWriter stats_ = *link::StatsWriter::Create(std::vector{link::StageName{}, link::StageName{}});
  Admission admission_;
  std::unique_ptr<link::GatewayPort> port_ = *link::GatewayPort::Create(1 << 20);
  RequestMemory memory_{port_->arena(), admission_};
  std::unique_ptr<link::WorkerLink> link_;
  std::optional<link::StatsReader> reader_;
  std::vector<std::string> faults_;
  std::vector<ExecutionTag> given_up_;
  int lacks_ = 0;
  WorkerCalls calls_{[this](uint64_t, const Status& why) { faults_.push_back(why.message()); }, [](uint64_t) {},
                     [this](ExecutionTag call) { given_up_.push_back(call); }, [this] { ++lacks_; }};
  std::shared_ptr<WorkerEnd> worker_;
  Listener listener_;
};

TEST_F(WorkerCallsTest, AWorkerSaysThatItLacksMemoryForAnswers) {
  const auto call = Open(1);
  link_->SendLacks(0);
  link_->Flush();
  calls_.Poll();
  EXPECT_EQ(lacks_, 1);
  Reply(call, "answer");
  calls_.Poll();
  EXPECT_EQ(lacks_, 1);
  EXPECT_TRUE(faults_.empty());
}

TEST_F(WorkerCallsTest, ACallIsToldThatItsAnswerWaits) {
  const auto call = Open(1);
  link_->SendOverShare(0, call.call);
  link_->Flush();
  calls_.Poll();
  EXPECT_THAT(listener_.told, ElementsAre("an answer waits"));
  calls_.Cancel(call.call);
  calls_.Flush();
  link_->SendOverShare(0, call.call);
  link_->Flush();
  calls_.Poll();
  EXPECT_EQ(listener_.told.size(), 1u) << "nobody waits for it any more";
  link_->SendEnd(0, call.call, {Code::kCancelled, "cancelled"}, link::kReleased);
  link_->Flush();
  calls_.Poll();
  EXPECT_THAT(faults_, IsEmpty());
  link_->SendOverShare(0, call.call);
  link_->Flush();
  calls_.Poll();
  EXPECT_EQ(faults_.size(), 1u) << "of a call that there is not";
}

TEST_F(WorkerCallsTest, WhatWasPublishedBeforeTheDeathIsDelivered) {
  const auto one = Open(1);
  const auto two = Open(2);
  const auto three = Open(3);
  Reply(one, "answer");
  link_->SendEnd(0, two.call, {Code::kInternal, "why"}, link::kReleased);
  link_->Flush();
  Reply(three, "never published");
  calls_.Remove(worker_, Loss(true));
  EXPECT_THAT(listener_.told, ElementsAre("1 reply answer", "2 end why", "3 lost"));
  EXPECT_EQ(calls_.size(), 0u);
  EXPECT_THAT(faults_, IsEmpty());
}

TEST_F(WorkerCallsTest, ALostCallSaysHowFarItHadCome) {
  Open(1);
  const auto begun = Open(2);
  const auto executed = Open(3);
  const auto over = Open(4);
  link_->MarkOf(0, begun.call).Begin();
  Execution& execution = stats_.stage(1).execution;
  execution.Begin(1);
  execution.Add(link_->MarkOf(0, executed.call));
  stats_.stage(0).execution.Begin(1);
  stats_.stage(0).execution.Add(link_->MarkOf(0, over.call));
  stats_.stage(0).execution.End();
  calls_.Remove(worker_, Loss(true));
  EXPECT_THAT(listener_.told, ElementsAre("1 lost", "2 lost begun", "3 lost begun executing", "4 lost begun"));
}

TEST_F(WorkerCallsTest, WhatAProcessThatMayGoOnHasNotBegunItMayBegin) {
  Open(1);
  calls_.Remove(worker_, Loss(false));
  EXPECT_THAT(listener_.told, ElementsAre("1 lost begun"));
}

TEST_F(WorkerCallsTest, WhereNotAllCouldBeNamedAllThatHaveBegunMayBeExecuted) {
  Open(1);
  const auto begun = Open(2);
  link_->MarkOf(0, begun.call).Begin();
  Execution& execution = stats_.stage(0).execution;
  execution.Begin(1);
  for (uint64_t i = 0; i <= Execution::kMost; ++i) execution.Add({.tag = 1'000'000 + i});
  calls_.Remove(worker_, Loss(true));
  EXPECT_THAT(listener_.told, ElementsAre("1 lost", "2 lost begun executing"));
}

TEST_F(WorkerCallsTest, OneThatBrokeTheRulesIsNotListenedToAnyMore) {
  const auto one = Open(1);
  link_->SendEnd(0, one.call + 1, {Code::kInternal, "whose?"}, link::kReleased);
  Reply(one, "answer");
  link_->Flush();
  calls_.Remove(worker_, Loss(false));
  EXPECT_THAT(listener_.told, ElementsAre("1 lost begun"));
}

}  // namespace
}  // namespace mindserve::gateway
