// Both ends of a link, over a real socket pair and real shared memory, in two threads or in one.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "link/handshake.h"
#include "link/lane.h"
#include "link/worker_link.h"

namespace mindserve::link {
namespace {

using std::chrono::milliseconds;
constexpr size_t kArena = 2 << 20;
constexpr milliseconds kPatience{20'000};

struct Pair {
  UniqueFd gateway;
  UniqueFd worker;
};

Pair NewPair(int type) {
  int fds[2];
  EXPECT_EQ(::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds), 0);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

class LinkTest : public testing::TestWithParam<int> {
 protected:
  void SetUp() override { Connect(2); }

  void Connect(size_t lanes) {
    sockets_ = NewPair(GetParam());
    std::vector<GatewayPort*> ports;
    for (size_t i = 0; i < lanes; ++i) {
      auto port = GatewayPort::Create(kArena);
      ASSERT_TRUE(port.ok());
      ports_.push_back(*std::move(port));
      ports.push_back(ports_.back().get());
    }
    std::thread worker([&] {
      auto link = WorkerLink::Connect(sockets_.worker.get(), *StatsWriter::Create({}), kArena, kPatience);
      ASSERT_TRUE(link.ok()) << link.status().ToString();
      worker_ = *std::move(link);
    });
    auto lanes_made = GatewayHandshake::Run(sockets_.gateway.get(), ports, kPatience);
    worker.join();
    ASSERT_TRUE(lanes_made.ok()) << lanes_made.status().ToString();
    lanes_ = std::move(lanes_made->lanes);
    ASSERT_NE(worker_, nullptr);
  }

  // Puts text into the port's arena and opens a call with it.
  Slab Open(size_t lane, uint64_t call, std::string_view text) {
    const auto slab = ports_[lane]->arena().Allocate(text.size());
    EXPECT_TRUE(slab);
    std::memcpy(slab->bytes.data(), text.data(), text.size());
    Lane::Open open;
    open.call = call;
    open.method = 3;
    open.instances = 2;
    open.deadline_ns = 99;
    open.client = 7;
    open.key = {.high = 8, .low = 9};
    open.offset = slab->offset;
    open.length = text.size();
    lanes_[lane]->SendOpen(open);
    return *slab;
  }

  static std::string_view Text(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  Pair sockets_;
  std::vector<std::unique_ptr<GatewayPort>> ports_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  std::unique_ptr<WorkerLink> worker_;
};

TEST_P(LinkTest, TheGatewaySeesWhatHasBegunAlsoOfADeadWorker) {
  constexpr uint64_t kSecondUse = uint64_t{1} << 32;  // of the same place
  EXPECT_FALSE(lanes_[1]->MayHaveBegun(5));
  EXPECT_FALSE(lanes_[1]->MayHaveBegun(5 | kSecondUse));
  worker_->MarkOf(1, 5 | kSecondUse).Begin();
  worker_.reset();
  EXPECT_TRUE(lanes_[1]->MayHaveBegun(5 | kSecondUse));
  EXPECT_FALSE(lanes_[1]->MayHaveBegun(5 | 2 * kSecondUse)) << "the place's next call has not begun";
  EXPECT_FALSE(lanes_[1]->MayHaveBegun(6));
  EXPECT_FALSE(lanes_[0]->MayHaveBegun(5 | kSecondUse)) << "another lane's call";
  EXPECT_TRUE(lanes_[1]->MayHaveBegun(kBegunPlaces)) << "not noted: it may";
}

TEST_P(LinkTest, BothEndsGiveACallTheSameTag) {
  EXPECT_EQ(worker_->MarkOf(1, 77).tag, lanes_[1]->TagOf(77));
  EXPECT_NE(lanes_[0]->TagOf(77), lanes_[1]->TagOf(77));
  worker_->MarkOf(0, kBegunPlaces).Begin();  // noted nowhere
}

TEST_P(LinkTest, ACallGoesThereAndItsAnswerComesBack) {
  ASSERT_EQ(worker_->lanes(), 2u);
  Open(1, 42, "question");
  GatewayFrame asked;
  EXPECT_FALSE(worker_->Receive(1, &asked)) << "not flushed yet";
  lanes_[1]->Flush();
  EXPECT_FALSE(worker_->Receive(0, &asked));
  ASSERT_TRUE(worker_->Receive(1, &asked));
  EXPECT_EQ(asked.type, FrameType::kMessage);
  EXPECT_EQ(asked.flags, kOpens | kEnds);
  EXPECT_EQ(asked.call, 42u);
  EXPECT_EQ(asked.method, 3);
  EXPECT_EQ(asked.instances, 2u);
  EXPECT_EQ(asked.deadline_ns, 99);
  EXPECT_EQ(asked.client, 7u);
  EXPECT_EQ(asked.key, (RequestKey{8, 9}));
  EXPECT_EQ(Text(asked.payload), "question");

  const auto slab = worker_->AllocateReply(1, 6);
  ASSERT_TRUE(slab);
  std::memcpy(slab->bytes.data(), "answer", 6);
  worker_->SendReply(1, 42, *slab, kEnds | kReleased);
  worker_->Flush();
  WorkerFrame answer;
  ASSERT_TRUE(lanes_[1]->Receive(&answer));
  EXPECT_EQ(answer.type, FrameType::kReply);
  EXPECT_EQ(answer.call, 42u);
  EXPECT_EQ(answer.flags, kEnds | kReleased);
  EXPECT_EQ(Text(answer.payload), "answer");
  lanes_[1]->ReleaseReply(answer.payload);
  lanes_[1]->Flush();
  EXPECT_FALSE(worker_->Receive(1, &asked));
  EXPECT_TRUE(worker_->fault().ok());
  EXPECT_EQ(worker_->AllocateReply(1, 6)->offset, slab->offset) << "the released slab is used again";
}

TEST_P(LinkTest, EndsCarryCodeAndText) {
  worker_->SendEnd(0, 5, Status(Code::kInternal, "what was wrong"), kReleased);
  worker_->SendRelease(0, 6);
  worker_->Flush();
  WorkerFrame frame;
  ASSERT_TRUE(lanes_[0]->Receive(&frame));
  EXPECT_EQ(frame.type, FrameType::kEnd);
  EXPECT_EQ(frame.code, static_cast<uint8_t>(Code::kInternal));
  EXPECT_EQ(Text(frame.payload), "what was wrong");
  ASSERT_TRUE(lanes_[0]->Receive(&frame));
  EXPECT_EQ(frame.type, FrameType::kRelease);
  EXPECT_EQ(frame.call, 6u);
  EXPECT_FALSE(lanes_[0]->Receive(&frame));
  EXPECT_FALSE(lanes_[0]->broken());
}

TEST_P(LinkTest, WhatTheRingCannotHoldWaits) {
  constexpr uint64_t kCalls = 3 * kRingFrames;
  for (uint64_t i = 0; i < kCalls; ++i) lanes_[0]->SendCancel(i);
  lanes_[0]->Flush();
  uint64_t expected = 0;
  GatewayFrame frame;
  while (expected < kCalls) {
    ASSERT_TRUE(worker_->Receive(0, &frame)) << expected;
    ASSERT_EQ(frame.call, expected++);
    if (expected % kRingFrames == 0) {
      ports_[0]->Asleep();
      EXPECT_TRUE(expected == kCalls || !lanes_[0]->HasWork());
      worker_->Flush();
      pollfd bell{ports_[0]->bell_fd(), POLLIN, 0};
      EXPECT_EQ(::poll(&bell, 1, 0), 1) << "a sleeper that waits for room is woken";
      ports_[0]->Awake();
      ports_[0]->EmptyBell();
      lanes_[0]->Flush();
    }
  }
  EXPECT_FALSE(worker_->Receive(0, &frame));
}

TEST_P(LinkTest, AWorkerThatWaitsForReplyMemoryIsWokenByARelease) {
  std::vector<Slab> slabs;
  while (const auto slab = worker_->AllocateReply(0, 100'000)) slabs.push_back(*slab);
  ASSERT_FALSE(slabs.empty());
  worker_->SendReply(0, 1, slabs.front(), kEnds);
  worker_->Flush();
  WorkerFrame reply;
  ASSERT_TRUE(lanes_[0]->Receive(&reply));
  ASSERT_TRUE(worker_->PrepareSleep());
  lanes_[0]->ReleaseReply(reply.payload);
  lanes_[0]->Flush();
  pollfd bell{worker_->bell_fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&bell, 1, 0), 1);
  worker_->Awake();
  worker_->EmptyBell();
  GatewayFrame frame;
  EXPECT_FALSE(worker_->Receive(0, &frame));
  EXPECT_TRUE(worker_->AllocateReply(0, 100'000));
}

TEST_P(LinkTest, AWorkerThatSleepsBesideAFullRingIsWokenByWhatWaits) {
  // As many answers as the ring has places; slow clients take them while the worker sleeps, and releases don't wake it.
  for (uint64_t call = 0; call < kRingFrames; ++call) {
    const auto slab = worker_->AllocateReply(0, 1);
    ASSERT_TRUE(slab);
    worker_->SendReply(0, call, *slab, kEnds | kReleased);
  }
  worker_->Flush();
  std::vector<std::span<const std::byte>> answers;
  WorkerFrame reply;
  while (lanes_[0]->Receive(&reply)) answers.push_back(reply.payload);
  lanes_[0]->Flush();
  ASSERT_TRUE(worker_->PrepareSleep());
  for (const auto& answer : answers) lanes_[0]->ReleaseReply(answer);
  lanes_[0]->Flush();
  pollfd bell{worker_->bell_fd(), POLLIN, 0};
  ASSERT_EQ(::poll(&bell, 1, 0), 0);

  // The next request finds no place in the ring.
  Open(0, kRingFrames, "question");
  lanes_[0]->Flush();
  ASSERT_EQ(::poll(&bell, 1, 0), 1) << "the worker sleeps on, and the request waits for ever";
  worker_->Awake();
  worker_->EmptyBell();
  GatewayFrame asked;
  EXPECT_FALSE(worker_->Receive(0, &asked));
  worker_->Flush();
  EXPECT_TRUE(lanes_[0]->HasWork());
  lanes_[0]->Flush();
  ASSERT_TRUE(worker_->Receive(0, &asked));
  EXPECT_EQ(asked.call, kRingFrames);
}

TEST_P(LinkTest, AReleaseAloneDoesNotWakeAWorkerThatHasMemory) {
  const auto slab = worker_->AllocateReply(0, 10);
  worker_->SendReply(0, 1, *slab, kEnds);
  worker_->Flush();
  WorkerFrame reply;
  ASSERT_TRUE(lanes_[0]->Receive(&reply));
  ASSERT_TRUE(worker_->PrepareSleep());
  lanes_[0]->ReleaseReply(reply.payload);
  lanes_[0]->Flush();
  pollfd bell{worker_->bell_fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&bell, 1, 0), 0);
  worker_->Awake();
  worker_->EmptyBell();
}

TEST_P(LinkTest, AUsersCallIsAStreamOfMessagesEachWay) {
  const auto head = ports_[0]->arena().Allocate(4);
  const auto message = ports_[0]->arena().Allocate(7);
  lanes_[0]->SendOpen({.call = 9, .method = 1, .offset = head->offset, .length = 4, .ends = false});
  lanes_[0]->SendMessage(9, message->offset, 7, false);
  lanes_[0]->SendMessage(9, 0, 0, false);
  lanes_[0]->SendHalfClose(9);
  lanes_[0]->Flush();
  GatewayFrame frame;
  ASSERT_TRUE(worker_->Receive(0, &frame));
  EXPECT_EQ(frame.flags, kOpens);
  EXPECT_EQ(frame.payload.size(), 4u);
  ASSERT_TRUE(worker_->Receive(0, &frame));
  EXPECT_EQ(frame.flags, 0);
  EXPECT_EQ(frame.payload.size(), 7u);
  ASSERT_TRUE(worker_->Receive(0, &frame));
  EXPECT_EQ(frame.flags, 0) << "an empty message is one";
  EXPECT_EQ(frame.payload.size(), 0u);
  ASSERT_TRUE(worker_->Receive(0, &frame));
  EXPECT_EQ(frame.flags, kEnds | kNoMessage);

  worker_->SendReleaseMessage(0, 9);
  worker_->SendWants(0, 9, 3);
  ASSERT_TRUE(worker_->SendInitial(0, 9, "metadata", kCompressed));
  ASSERT_TRUE(worker_->SendTrailing(0, 9, Code::kOk, "end", kReleased));
  ASSERT_TRUE(worker_->SendModel(0, "resnet", true));
  worker_->Flush();
  WorkerFrame answer;
  ASSERT_TRUE(lanes_[0]->Receive(&answer));
  EXPECT_EQ(answer.type, FrameType::kReleaseMessage);
  EXPECT_EQ(answer.call, 9u);
  ASSERT_TRUE(lanes_[0]->Receive(&answer));
  EXPECT_EQ(answer.type, FrameType::kWants);
  EXPECT_EQ(answer.call, 9u);
  EXPECT_EQ(answer.messages, 3u);
  ASSERT_TRUE(lanes_[0]->Receive(&answer));
  EXPECT_EQ(answer.type, FrameType::kInitial);
  EXPECT_EQ(answer.flags, kCompressed);
  EXPECT_EQ(Text(answer.payload), "metadata");
  ASSERT_TRUE(lanes_[0]->Receive(&answer));
  EXPECT_EQ(answer.type, FrameType::kEnd);
  EXPECT_EQ(answer.flags, kTrailing | kReleased);
  EXPECT_EQ(answer.code, 0);
  EXPECT_EQ(Text(answer.payload), "end");
  ASSERT_TRUE(lanes_[0]->Receive(&answer));
  EXPECT_EQ(answer.type, FrameType::kModel);
  EXPECT_EQ(answer.flags, kLoaded);
  EXPECT_EQ(Text(answer.payload), "resnet");
  EXPECT_FALSE(lanes_[0]->broken());
}

TEST_P(LinkTest, AnEndWithoutTrailingMetadataIsNeverOk) {
  worker_->SendEnd(0, 1, Status::Ok(), 0);
  worker_->Flush();
  WorkerFrame answer;
  EXPECT_FALSE(lanes_[0]->Receive(&answer));
  EXPECT_TRUE(lanes_[0]->broken());
}

TEST_P(LinkTest, CreditWakesAWorkerThatAwaitsIt) {
  const auto slab = worker_->AllocateReply(0, 10);
  worker_->SendReply(0, 5, *slab, 0);
  worker_->SendReply(0, 5, *worker_->AllocateReply(0, 0), 0);
  worker_->AwaitCredit(0, true);
  worker_->Flush();
  WorkerFrame first;
  WorkerFrame second;
  ASSERT_TRUE(lanes_[0]->Receive(&first));
  ASSERT_TRUE(lanes_[0]->Receive(&second));
  ASSERT_TRUE(worker_->PrepareSleep());
  lanes_[0]->ReleaseReply(first.payload, 5);
  lanes_[0]->ReleaseReply(second.payload, 5);
  lanes_[0]->Flush();
  pollfd bell{worker_->bell_fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&bell, 1, 0), 1);
  worker_->Awake();
  worker_->EmptyBell();
  GatewayFrame credit;
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(worker_->Receive(0, &credit));
    EXPECT_EQ(credit.type, FrameType::kReleaseReply);
    EXPECT_EQ(credit.call, 5u);
  }
  EXPECT_FALSE(worker_->Receive(0, &credit));
  EXPECT_TRUE(worker_->fault().ok());
}

TEST_P(LinkTest, SleepersAreWokenAndThoseWithWorkDontSleep) {
  EXPECT_TRUE(worker_->PrepareSleep());
  worker_->Awake();
  worker_->EmptyBell();
  lanes_[0]->SendCancel(1);
  lanes_[0]->Flush();
  EXPECT_FALSE(worker_->PrepareSleep());
  worker_->Awake();
  worker_->EmptyBell();
  ports_[0]->Asleep();
  EXPECT_FALSE(lanes_[0]->HasWork());
  worker_->SendRelease(0, 1);
  worker_->Flush();
  EXPECT_TRUE(lanes_[0]->HasWork());
  pollfd bell{ports_[0]->bell_fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&bell, 1, 0), 1);
  ports_[0]->Awake();
  ports_[0]->EmptyBell();
  EXPECT_EQ(::poll(&bell, 1, 0), 0);
}

TEST_P(LinkTest, AWorkerThatReleasesWhatIsNotOutBreaksTheProtocol) {
  const std::byte* inside = reinterpret_cast<const std::byte*>(this);
  // A release for bytes that are no slab of the worker's.
  lanes_[0]->ReleaseReply({inside, 1});
  lanes_[0]->Flush();
  GatewayFrame frame;
  EXPECT_FALSE(worker_->Receive(0, &frame));
  EXPECT_FALSE(worker_->fault().ok());
}

TEST_P(LinkTest, ManyCallsBetweenTwoThreadsAreAllAnsweredRight) {
  constexpr uint64_t kCalls = 100'000;
  std::thread worker([&] {
    uint64_t done = 0;
    while (done < kCalls) {
      GatewayFrame frame;
      while (worker_->Receive(0, &frame)) {
        const auto slab = worker_->AllocateReply(0, frame.payload.size());
        ASSERT_TRUE(slab);
        std::ranges::copy(frame.payload, slab->bytes.begin());
        worker_->SendReply(0, frame.call, *slab, kEnds | kReleased);
        ++done;
      }
      ASSERT_TRUE(worker_->fault().ok());
      worker_->Flush();
      if (done < kCalls && worker_->PrepareSleep()) {
        pollfd bell{worker_->bell_fd(), POLLIN, 0};
        ::poll(&bell, 1, -1);
      }
      worker_->Awake();
      worker_->EmptyBell();
    }
  });
  constexpr uint64_t kWindow = 64;
  uint64_t sent = 0;
  uint64_t answered = 0;
  std::vector<Slab> slabs(kWindow);
  while (answered < kCalls) {
    for (; sent < kCalls && sent - answered < kWindow; ++sent) {
      slabs[sent % kWindow] = Open(0, sent, std::string(sent % 300, static_cast<char>('a' + sent % 26)));
    }
    WorkerFrame frame;
    while (lanes_[0]->Receive(&frame)) {
      ASSERT_EQ(frame.call, answered) << "this worker answers in order";
      ASSERT_EQ(Text(frame.payload), std::string(answered % 300, static_cast<char>('a' + answered % 26)));
      lanes_[0]->ReleaseReply(frame.payload);
      ASSERT_TRUE(ports_[0]->arena().Free(slabs[answered % kWindow].offset));
      ++answered;
    }
    ASSERT_FALSE(lanes_[0]->broken());
    lanes_[0]->Flush();
    if (answered == kCalls) break;
    if (sent == kCalls || sent - answered == kWindow) {
      ports_[0]->Asleep();
      if (!lanes_[0]->HasWork()) {
        pollfd bell{ports_[0]->bell_fd(), POLLIN, 0};
        ::poll(&bell, 1, -1);
      }
      ports_[0]->Awake();
      ports_[0]->EmptyBell();
    }
  }
  worker.join();
  EXPECT_EQ(ports_[0]->arena().slabs(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Sockets, LinkTest, testing::Values(SOCK_STREAM, SOCK_SEQPACKET),
                         [](const auto& given) { return given.param == SOCK_STREAM ? "Stream" : "Seqpacket"; });

TEST(Handshake, RefusesAnotherVersionAndStrangersAndSilence) {
  auto port = GatewayPort::Create(kArena);
  ASSERT_TRUE(port.ok());
  GatewayPort* ports[] = {port->get()};
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  auto bell = NewBell();
  auto region = Region::Create("flag", kPage);
  const auto stats = StatsWriter::Create({});
  ASSERT_TRUE(bell.ok() && region.ok() && stats.ok());

  {
    Pair pair = NewPair(SOCK_SEQPACKET);
    HandshakeMessage hello;
    hello.version = kLinkVersion + 1;
    const int fds[] = {region->fd(), bell->get(), stats->fd()};
    ASSERT_TRUE(SendHandshake(pair.worker.get(), hello, fds, deadline).ok());
    const auto result = GatewayHandshake::Run(pair.gateway.get(), ports, kPatience);
    EXPECT_EQ(result.status().code(), Code::kFailedPrecondition) << result.status().ToString();
  }
  {
    Pair pair = NewPair(SOCK_STREAM);
    ASSERT_GT(::send(pair.worker.get(), "GET / HTTP/1.1\r\n\r\n.......", 24, 0), 0);
    EXPECT_EQ(GatewayHandshake::Run(pair.gateway.get(), ports, kPatience).status().code(), Code::kInvalidArgument);
  }
  {
    Pair pair = NewPair(SOCK_SEQPACKET);
    EXPECT_EQ(GatewayHandshake::Run(pair.gateway.get(), ports, milliseconds(1)).status().code(),
              Code::kDeadlineExceeded);
    pair.worker.reset();
    EXPECT_EQ(GatewayHandshake::Run(pair.gateway.get(), ports, kPatience).status().code(), Code::kUnavailable);
  }
  {
    // A pipe as a bell could block whoever rings it.
    Pair pair = NewPair(SOCK_SEQPACKET);
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const UniqueFd read_end(ends[0]);
    const UniqueFd write_end(ends[1]);
    const int fds[] = {region->fd(), write_end.get(), stats->fd()};
    ASSERT_TRUE(SendHandshake(pair.worker.get(), HandshakeMessage{}, fds, deadline).ok());
    EXPECT_EQ(GatewayHandshake::Run(pair.gateway.get(), ports, kPatience).status().code(), Code::kInvalidArgument);
  }
}

// A worker that writes nonsense into its rings makes its lane broken, and nothing worse.
// The kernel passes on as many descriptors as there is room for, and the message without the others.
TEST(Handshake, SaysThatThereIsNoRoomForDescriptors) {
  Pair pair = NewPair(SOCK_SEQPACKET);
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  const int fds[] = {0, 1, 2};
  ASSERT_TRUE(SendHandshake(pair.worker.get(), HandshakeMessage{}, fds, deadline).ok());
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const int next = ::dup(0);
  ASSERT_GE(next, 0);
  ::close(next);
  const rlimit none{static_cast<rlim_t>(next), before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  UniqueFd came[3];
  const auto result = ReceiveHandshake(pair.gateway.get(), HandshakeStep::kHello, came, deadline);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(result.status().code(), Code::kResourceExhausted);
  EXPECT_EQ(result.status().message(),
            "link handshake: Too many open files to take those that it passes on: raise RLIMIT_NOFILE (ulimit -n, "
            "LimitNOFILE=)");
}

TEST(HostileWorker, BadFramesBreakTheLane) {
  struct Case {
    const char* what;
    Frame frame;
  };
  Frame base{};
  base.type = FrameType::kReply;
  base.call = 1;
  std::vector<Case> cases;
  cases.push_back({"unknown type", base});
  cases.back().frame.type = static_cast<FrameType>(99);
  cases.push_back({"a gateway's type", base});
  cases.back().frame.type = FrameType::kMessage;
  cases.push_back({"before the arena", base});
  cases.back().frame.offset = 8;
  cases.back().frame.length = 8;
  cases.push_back({"past the end", base});
  cases.back().frame.offset = kReplyArenaBegin;
  cases.back().frame.length = kArena + kPage;
  cases.push_back({"overflowing", base});
  cases.back().frame.offset = UINT64_MAX - 4;
  cases.back().frame.length = 8;
  cases.push_back({"huge length", base});
  cases.back().frame.offset = kReplyArenaBegin;
  cases.back().frame.length = UINT64_MAX;
  cases.push_back({"an end that is OK", base});
  cases.back().frame.type = FrameType::kEnd;
  cases.push_back({"an end with no code", base});
  cases.back().frame.type = FrameType::kEnd;
  cases.back().frame.code = 17;
  for (const Case& bad : cases) {
    Pair pair = NewPair(SOCK_SEQPACKET);
    auto port = GatewayPort::Create(kArena);
    ASSERT_TRUE(port.ok());
    GatewayPort* ports[] = {port->get()};
    auto flag = Region::Create("flag", sizeof(SleepFlag));
    auto bell = NewBell();
    auto ring = Region::Create("ring", kReplyArenaBegin + kArena);
    auto stats = StatsWriter::Create({});
    ASSERT_TRUE(flag.ok() && bell.ok() && ring.ok() && stats.ok());
    std::thread worker([&] {
      const auto deadline = std::chrono::steady_clock::now() + kPatience;
      const int hello[] = {flag->fd(), bell->get(), stats->fd()};
      ASSERT_TRUE(SendHandshake(pair.worker.get(), HandshakeMessage{}, hello, deadline).ok());
      UniqueFd offered[3];
      ASSERT_TRUE(ReceiveHandshake(pair.worker.get(), HandshakeStep::kOffer, offered, deadline).ok());
      HandshakeMessage accept;
      accept.step = HandshakeStep::kAccept;
      const int fds[] = {ring->fd()};
      ASSERT_TRUE(SendHandshake(pair.worker.get(), accept, fds, deadline).ok());
    });
    auto shaken = GatewayHandshake::Run(pair.gateway.get(), ports, kPatience);
    worker.join();
    ASSERT_TRUE(shaken.ok()) << bad.what;
    Lane& lane = *shaken->lanes[0];
    auto* block = reinterpret_cast<RingBlock*>(ring->data());
    block->frames[0] = bad.frame;
    block->written.value = 1;
    WorkerFrame frame;
    EXPECT_FALSE(lane.Receive(&frame)) << bad.what;
    EXPECT_TRUE(lane.broken()) << bad.what;
  }
}

}  // namespace
}  // namespace mindserve::link
