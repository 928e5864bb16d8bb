#include "link/reply_shares.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <map>
#include <thread>
#include <vector>

#include "link/handshake.h"
#include "link/lane.h"
#include "link/worker_link.h"

namespace mindserve::link {
namespace {

TEST(ReplySharesTest, WhatAClientHoldsIsTheSumOfItsSlabs) {
  ReplyShares shares;
  shares.Add(4096, 1, 100);
  shares.Add(8192, 1, 20);
  shares.Add(12288, 2, 3);
  EXPECT_EQ(shares.Held(1), 120u);
  EXPECT_EQ(shares.Held(2), 3u);
  EXPECT_EQ(shares.Held(3), 0u);
  shares.Remove(4096);
  EXPECT_EQ(shares.Held(1), 20u);
  EXPECT_EQ(shares.Held(2), 3u);
}

TEST(ReplySharesTest, SlabsThatWereNotAddedAreNobodys) {
  ReplyShares shares;
  shares.Add(4096, 1, 100);
  shares.Remove(8192);
  EXPECT_EQ(shares.Held(1), 100u);
  shares.Remove(4096);
  shares.Remove(4096);
  EXPECT_EQ(shares.Held(1), 0u);
}

TEST(ReplySharesTest, NothingIsLeftOfClientsThatHoldNothing) {
  ReplyShares shares;
  for (uint64_t client = 1; client <= 100; ++client) shares.Add(client * 4096, client, client);
  EXPECT_EQ(shares.clients(), 100u);
  for (uint64_t client = 1; client <= 100; ++client) shares.Remove(client * 4096);
  EXPECT_EQ(shares.clients(), 0u);
}

TEST(ReplySharesTest, AnOffsetIsUsedAgainByAnother) {
  ReplyShares shares;
  shares.Add(4096, 1, 100);
  shares.Remove(4096);
  shares.Add(4096, 2, 50);
  EXPECT_EQ(shares.Held(1), 0u);
  EXPECT_EQ(shares.Held(2), 50u);
}

// What a link makes of it.
class SharesTest : public testing::Test {
 protected:
  static constexpr size_t kArena = size_t{12} << 20;
  static constexpr std::chrono::milliseconds kPatience{20'000};

  void SetUp() override {
    int fds[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    gateway_socket_.reset(fds[0]);
    worker_socket_.reset(fds[1]);
    auto port = GatewayPort::Create(kPage);
    ASSERT_TRUE(port.ok());
    port_ = *std::move(port);
    std::thread worker([&] {
      auto link = WorkerLink::Connect(worker_socket_.get(), *StatsWriter::Create({}), kArena, kPatience);
      ASSERT_TRUE(link.ok()) << link.status().ToString();
      worker_ = *std::move(link);
    });
    GatewayPort* ports[] = {port_.get()};
    auto shaken = GatewayHandshake::Run(gateway_socket_.get(), ports, kPatience);
    worker.join();
    ASSERT_TRUE(shaken.ok()) << shaken.status().ToString();
    ASSERT_NE(worker_, nullptr);
    lane_ = std::move(shaken->lanes[0]);
  }

  // Whether the client was given so much.
  bool Take(uint64_t client, size_t bytes, WorkerLink::For what = WorkerLink::For::kAnswer) {
    const auto slab = worker_->AllocateReply(0, bytes, client, what);
    if (slab) slabs_[client].push_back(*slab);
    over_share_ = slab.over_share;
    return slab.has_value();
  }

  // What clients have after they took all that they got, by turns.
  std::vector<size_t> Fill(const std::vector<uint64_t>& clients, size_t bytes,
                           WorkerLink::For what = WorkerLink::For::kAnswer) {
    for (bool any = true; any;) {
      any = false;
      for (const uint64_t client : clients) any = Take(client, bytes, what) || any;
    }
    EXPECT_TRUE(over_share_);
    std::vector<size_t> held;
    for (const uint64_t client : clients) held.push_back(slabs_[client].size() * bytes);
    return held;
  }

  // The gateway's end gives back what it sees.
  std::vector<WorkerFrame> Receive() {
    worker_->Flush();
    std::vector<WorkerFrame> frames;
    for (WorkerFrame frame; lane_->Receive(&frame);) frames.push_back(frame);
    return frames;
  }

  bool Rings() {
    lane_->Flush();
    pollfd bell{worker_->bell_fd(), POLLIN, 0};
    return ::poll(&bell, 1, 0) == 1;
  }

  UniqueFd gateway_socket_;
  UniqueFd worker_socket_;
  std::unique_ptr<GatewayPort> port_;
  std::unique_ptr<Lane> lane_;
  std::unique_ptr<WorkerLink> worker_;
  std::map<uint64_t, std::vector<Slab>> slabs_;
  bool over_share_ = false;  // the last one that was refused
};

constexpr size_t kPiece = size_t{64} << 10;
constexpr auto kStream = WorkerLink::For::kStream;

TEST_F(SharesTest, OneClientHasHalf) {
  EXPECT_EQ(Fill({1}, kPiece), std::vector<size_t>{kArena / 2});
}

TEST_F(SharesTest, OfStreamsItIsHalfOfWhatTheyMayHave) {
  EXPECT_EQ(Fill({1}, kPiece, kStream), std::vector<size_t>{kArena / 8 * 3});
  // And the client's other answers have room besides.
  EXPECT_TRUE(Take(1, kPiece));
}

TEST_F(SharesTest, SeveralThatTakeTurnsLeaveHalf) {
  EXPECT_EQ(Fill({1, 2}, kPiece), (std::vector<size_t>{kArena / 4, kArena / 4}));
  EXPECT_TRUE(Take(3, kArena / 2));
}

TEST_F(SharesTest, WhoComesLaterLeavesMost) {
  size_t left = kArena;
  for (const auto& [client, share] : std::map<uint64_t, size_t>{{1, left / 2}, {2, left / 18}, {3, left / 20}}) {
    const size_t held = Fill({client}, kPiece).front();
    EXPECT_LE(held, share);
    EXPECT_GE(held, share - 2 * kPiece);
    left -= held;
  }
  EXPECT_TRUE(Take(4, left));
}

TEST_F(SharesTest, AClientThatHoldsNothingTakesWhatThereIs) {
  ASSERT_TRUE(Take(1, kArena / 2));
  EXPECT_TRUE(Take(2, kArena / 2));
  EXPECT_FALSE(Take(3, kPiece));
  EXPECT_FALSE(over_share_) << "there is no room";
  EXPECT_FALSE(Take(2, kPiece));
  EXPECT_TRUE(over_share_);
}

TEST_F(SharesTest, WhatComesBackCanBeTakenAgain) {
  Fill({1}, kPiece);
  worker_->SendReply(0, 1, slabs_[1].front(), 0);
  for (const WorkerFrame& frame : Receive()) lane_->ReleaseReply(frame.payload);
  lane_->Flush();
  EXPECT_FALSE(Take(1, kPiece));
  const uint64_t releases = worker_->Releases(0);
  GatewayFrame frame;
  EXPECT_FALSE(worker_->Receive(0, &frame));
  EXPECT_GT(worker_->Releases(0), releases);
  EXPECT_TRUE(Take(1, kPiece));
  EXPECT_FALSE(Take(1, kPiece));
  // What is not sent after all comes back as well.
  worker_->FreeReply(0, slabs_[1].back());
  EXPECT_TRUE(Take(1, kPiece));
}

TEST_F(SharesTest, SmallMessagesOfStreamsCountAsWhatTheyTake) {
  Fill({1}, 1, kStream);
  EXPECT_TRUE(Take(2, kArena / 8 * 3 - kPiece, kStream));
}

TEST_F(SharesTest, SmallAnswersDontCount) {
  Fill({1}, kPiece);
  EXPECT_TRUE(Take(1, WorkerLink::kCountedBytes - 1));
  EXPECT_FALSE(Take(1, WorkerLink::kCountedBytes));
}

TEST_F(SharesTest, WhatHoldsNoBytesHoldsNothing) {
  for (int i = 0; i < 3; ++i) worker_->SendReply(0, 1, *worker_->AllocateReply(0, 0, 1, kStream), 0);
  EXPECT_TRUE(Take(1, kArena / 4 * 3, kStream));
}

TEST_F(SharesTest, AWorkerThatWaitsForAShareIsWokenThoughOthersWereGivenMemory) {
  Fill({1}, kPiece);
  ASSERT_TRUE(Take(2, kPiece));
  worker_->SendReply(0, 1, slabs_[1].back(), 0);
  worker_->SendReply(0, 2, slabs_[2].back(), 0);
  const auto frames = Receive();
  ASSERT_EQ(frames.size(), 2u);
  ASSERT_TRUE(worker_->PrepareSleep());
  lane_->ReleaseReply(frames[0].payload);
  EXPECT_TRUE(Rings());
  worker_->Awake();
  worker_->EmptyBell();
  GatewayFrame frame;
  EXPECT_FALSE(worker_->Receive(0, &frame));
  // And not any more once nobody waits.
  worker_->AwaitMemory(0, false);
  ASSERT_TRUE(worker_->PrepareSleep());
  lane_->ReleaseReply(frames[1].payload);
  EXPECT_FALSE(Rings());
}

}  // namespace
}  // namespace mindserve::link
