// Streams of users' services when one side is slow.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "gateway/stream_window.h"
#include "gateway/user_fixture.h"

namespace mindserve::gateway {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

// --- How a stream ends. ---

TEST_F(UserTest, TrailersAreRightWhileAClientChangesItsHeaderTable) {
  const auto worker = Start(1);
  TestClient client(Listen());
  for (uint64_t number = 0; number < 4; ++number) {
    const int32_t call = Begin(client, kDown, "go");
    worker->Await(number, [](const auto& c) { return c.half_closed; });
    worker->Reply(number, "first", 0);
    client.RunUntil([&] { return client.response(call).messages().size() == 1; });
    // Between the header fields of a response and its trailers: the client holds the latter to it.
    if (number > 0) client.SetTableSize(number % 2 == 0 ? 4096 : 0);
    Sync(client);
    worker->Reply(number, "last", link::kEnds | link::kReleased);
    IsOk(client.Wait(call), {"first", "last"});
    EXPECT_EQ(client.response(call).trailers.at("request_id"), worker->Call(number).request_id);
  }
  EXPECT_EQ(client.goaways(), 0);
  EXPECT_FALSE(client.ended());
}

// --- A slow handler. ---

class SlowHandlerTest : public UserTest {
 protected:
  // Sends messages until the client may send no more.
  static void Fill(TestClient& client, int32_t call, size_t size, size_t count) {
    const std::string message = Framed(std::string(size, 'x'));
    for (size_t i = 0; i < count; ++i) client.Send(call, message, false);
    client.RunUntil([&] { return client.window(call) <= 0; });
    Sync(client);
    EXPECT_LE(client.window(call), 0);
    EXPECT_TRUE(client.waits(call));
  }
};

TEST_F(SlowHandlerTest, HoldsItsClientBack) {
  constexpr size_t kSize = 100'000;
  const auto worker = Start(1);
  TestClient client(Listen());
  const int32_t call = Open(client, kUp);
  Fill(client, call, kSize, 100);
  const size_t fits = kStreamWindow / kSize;
  const size_t came = worker->Await(0, [&](const auto& c) { return c.messages.size() >= fits; }).messages.size();
  EXPECT_LE(came, fits + 1);
  EXPECT_LE(gateway_->GetStats().enqueued_bytes, kStreamWindow + 2 * kSize);
  // It goes on, and so does the client.
  for (size_t i = 0; i < came; ++i) worker->Take(0);
  client.Send(call, "", true);
  for (size_t taken = came; taken < 100; ++taken) {
    While(client, [&] { return worker->Call(0).messages.size() > taken; });
    worker->Take(0);
  }
  client.RunUntil([&] { return !client.waits(call); });
  worker->Await(0, [](const auto& c) { return c.half_closed && c.messages.size() == 100; });
  worker->Reply(0, "done", link::kEnds | link::kReleased);
  IsOk(client.Wait(call), {"done"});
  NothingHeld();
}

TEST_F(SlowHandlerTest, StopsNoOtherCall) {
  const auto worker = Start(1);
  const auto other = Start(2, "other");
  other->Echo();
  TestClient client(Listen());
  // More than the connection's window in all.
  constexpr size_t kStreams = kConnectionWindow / kStreamWindow + 1;
  for (size_t i = 0; i < kStreams; ++i) {
    const int32_t call = Open(client, kUp, {{"application", "s"}});
    const std::string message = Framed(std::string(1 << 20, 'x'));
    for (int j = 0; j < 6; ++j) client.Send(call, message, false);
    client.RunUntil([&] { return client.window(call) <= 0; });
  }
  IsOk(client.Call(kUnary, "x", {{"application", "other"}}), {"x"});
}

TEST_F(SlowHandlerTest, MessagesLargerThanTheWindowComeNevertheless) {
  const auto worker = Start(1);
  TestClient client(Listen());
  const int32_t call = Open(client, kUp);
  const std::string large(3 * kStreamWindow, 'x');
  // Behind one that is not taken, too.
  Send(client, call, std::string(kStreamWindow / 4, 'a'));
  client.Send(call, Framed(large), false);
  client.Send(call, Framed(large), true);
  While(client, [&] { return client.window(call) <= 0 && worker->Call(0).messages.size() == 2; });
  for (int i = 0; i < 2; ++i) worker->Take(0);
  While(client, [&] { return worker->Call(0).half_closed; });
  EXPECT_EQ(worker->Call(0).messages.back(), large);
}

TEST_F(SlowHandlerTest, SmallMessagesAreBoundedByTheirNumber) {
  const auto worker = Start(1);
  TestClient client(Listen());
  const int32_t call = Open(client, kUp);
  const size_t before = [&] {
    worker->Call(0);
    return gateway_->GetStats().enqueued_bytes;
  }();
  std::string all;
  constexpr size_t kCount = 1000;
  for (size_t i = 0; i < kCount; ++i) all += Framed("");
  client.Send(call, all + Framed("last").substr(0, 6), false);
  Sync(client);
  worker->Await(0, [](const auto& c) { return c.messages.size() == StreamWindow::kMostHeld; });
  EXPECT_EQ(gateway_->GetStats().enqueued_bytes - before, 5 * (kCount - StreamWindow::kMostHeld) + 6);
  worker->Take(0);
  worker->Await(0, [](const auto& c) { return c.messages.size() == StreamWindow::kMostHeld + 1; });
  client.Send(call, "ast", true);
  Sync(client);
  EXPECT_FALSE(worker->Call(0).half_closed);
  for (size_t i = 0; i < kCount; ++i) {
    worker->Await(0, [&](const auto& c) { return c.messages.size() > i + 1; });
    worker->Take(0);
  }
  const auto seen = worker->Await(0, [](const auto& c) { return c.half_closed; });
  EXPECT_EQ(seen.messages.size(), kCount + 1);
  EXPECT_EQ(seen.messages.back(), "last");
  worker->Reply(0, "", link::kEnds | link::kReleased);
  IsOk(client.Wait(call), {""});
  NothingHeld();
}

TEST_F(SlowHandlerTest, WhatIsKeptUndecodedIsStillChecked) {
  const auto worker = Start(1);
  TestClient client(Listen());
  std::string all;
  for (size_t i = 0; i < 2 * StreamWindow::kMostHeld; ++i) all += Framed("");
  const int32_t within = client.Start(kUp, all + std::string("\0\0", 2), true);
  const int32_t broken = client.Start(kUp, all + std::string("\7\0\0\0\0", 5), false);
  client.Flush();
  for (const size_t n : {0, 1}) {
    for (size_t i = 0; i <= StreamWindow::kMostHeld; ++i) {
      worker->Await(n, [&](const auto& c) { return c.messages.size() > i; });
      worker->Take(n);
    }
  }
  for (const int32_t call : {within, broken}) {
    Is(client.Wait(call), Code::kInternal, HasSubstr("broken gRPC framing"));
  }
  for (const size_t n : {0, 1}) worker->Await(n, [](const auto& c) { return c.cancelled; });
  NothingHeld();
}

TEST_F(SlowHandlerTest, HoldsNoMoreThanTheLimit) {
  Limits limits;
  limits.max_enqueued_bytes = 10'000;
  const auto worker = Start(1);
  TestClient client(Listen(limits));
  std::string all;
  for (int i = 0; i < 3000; ++i) all += Framed("");
  Is(client.Wait(client.Start(kUp, all, false)), Code::kResourceExhausted, HasSubstr("max_enqueued_bytes"));
  worker->Await(0, [](const auto& c) { return c.cancelled; });
  NothingHeld();
}

TEST_F(SlowHandlerTest, ThatEndsEarlyEndsTheCall) {
  const auto worker = Start(1);
  TestClient client(Listen());
  const int32_t call = Open(client, kUp);
  Fill(client, call, 100'000, 100);
  worker->End(0, Code::kOutOfRange, "that is enough");
  Is(client.Wait(call), Code::kOutOfRange, "that is enough");
  NothingHeld();
}

// --- A client that takes its time. ---

class PatienceTest : public UserTest {
 protected:
  PatienceTest() { limits_.body_idle_timeout = limits_.keepalive_time = milliseconds(20); }
  // Several times body_idle_timeout.
  static void LetTimePass(TestClient& client) {
    const int pings = client.pings();
    ASSERT_TRUE(client.RunUntil([&] { return client.pings() >= pings + 8; }));
  }
  Limits limits_;
};

TEST_F(PatienceTest, BetweenMessagesAStreamMayRest) {
  const auto worker = Start(1);
  TestClient client(Listen(limits_));
  const int32_t call = Open(client, kBoth);
  LetTimePass(client);
  Send(client, call, "a");
  worker->Await(0, [](const auto& c) { return c.messages.size() == 1; });
  worker->Take(0);
  LetTimePass(client);
  EXPECT_FALSE(client.response(call).closed);
  client.Send(call, Framed("b").substr(0, 3), false);
  Is(client.Wait(call), Code::kCancelled, HasSubstr("body_idle_timeout"));
  EXPECT_EQ(Refused(Refusal::kBodyIdleTimeout), 1u);
}

TEST_F(PatienceTest, AClientThatIsHeldBackIsNotAwaited) {
  const auto worker = Start(1);
  TestClient client(Listen(limits_));
  const int32_t call = Open(client, kBoth);
  client.Send(call, Framed("a") + Framed("b").substr(0, 3), false);
  client.Flush();
  worker->Await(0, [](const auto& c) { return c.messages.size() == 1; });
  LetTimePass(client);
  EXPECT_FALSE(client.response(call).closed);
  worker->Take(0);
  Is(client.Wait(call), Code::kCancelled, HasSubstr("body_idle_timeout"));
}

TEST_F(PatienceTest, TheReaderOfAStreamMayRest) {
  const auto worker = Start(1);
  TestClient client(ConnectTo(Listen(limits_)), 10, /*reads_slowly=*/true);
  const int32_t call = Begin(client, kDown, "m");
  worker->Reply(0, std::string(100, 'x'));
  LetTimePass(client);
  worker->End(0, Code::kOk);
  LetTimePass(client);
  EXPECT_EQ(client.response(call).body.size(), 10u);
  client.Consume(call, 10);
  client.RunUntil([&] { return client.response(call).body.size() == 20; });
  while (!client.response(call).closed) {
    const size_t had = client.response(call).body.size();
    client.Consume(call, 10);
    client.RunUntil([&] { return client.response(call).body.size() > had || client.response(call).closed; });
  }
  IsOk(client.response(call), {std::string(100, 'x')});
}

TEST_F(PatienceTest, ReadersThatRestMakeRoomForThoseWhoAreRefused) {
  limits_.max_enqueued_requests = 2;
  const auto worker = Start(1);
  const net::Address address = Listen(limits_);
  TestClient resting(ConnectTo(address), 10, /*reads_slowly=*/true);
  for (size_t n = 0; n < 2; ++n) {
    Begin(resting, kDown, "m");
    worker->Reply(n, std::string(100, 'x'));
  }
  LetTimePass(resting);
  TestClient other(address);
  const auto ask = [&] {
    const size_t n = worker->calls();
    const int32_t call = Begin(other, kUnary, "m");
    While(other, [&] { return other.response(call).closed || worker->calls() > n; });
    if (other.response(call).closed) {
      Is(other.response(call), Code::kResourceExhausted, HasSubstr("max_enqueued_requests"));
      return false;
    }
    worker->Reply(n, "answer", link::kEnds | link::kReleased);
    IsOk(other.Wait(call), {"answer"});
    return true;
  };
  EXPECT_FALSE(ask());
  EXPECT_TRUE(While(resting, ask));
  for (const int32_t call : {1, 3}) EXPECT_EQ(resting.Wait(call).error, static_cast<uint32_t>(NGHTTP2_CANCEL));
  EXPECT_TRUE(NothingHeld());
  EXPECT_TRUE(worker->Call(0).cancelled && worker->Call(1).cancelled);
}

TEST_F(PatienceTest, ButNotThatOfOneAnswer) {
  const auto worker = Start(1);
  TestClient client(ConnectTo(Listen(limits_)), 10, /*reads_slowly=*/true);
  const int32_t call = Begin(client, kUnary, "m");
  worker->Reply(0, std::string(100, 'x'), link::kEnds | link::kReleased);
  EXPECT_EQ(client.Wait(call).error, static_cast<uint32_t>(NGHTTP2_CANCEL));
  EXPECT_EQ(Refused(Refusal::kBodyIdleTimeout), 1u);
}

// --- A slow client. ---

using SlowClientTest = UserTest;

TEST_F(SlowClientTest, AWorkerIsToldOfEachMessageWhenItHasGone) {
  const auto worker = Start(1);
  TestClient client(ConnectTo(Listen()), 10, /*reads_slowly=*/true);
  const int32_t call = Begin(client, kDown, "m");
  worker->AwaitCredit(true);
  worker->Reply(0, "0123456789");  // 15 bytes with the prefix
  worker->Reply(0, "");            // 20
  worker->Reply(0, "");            // 25
  worker->Reply(0, std::string(5000, 'x'));
  const auto come = [&](size_t bytes) {
    client.RunUntil([&] { return client.response(call).body.size() == bytes; });
    Sync(client);
  };
  come(10);
  EXPECT_EQ(worker->Call(0).credits, 0u);
  client.Consume(call, 5);
  come(15);
  EXPECT_EQ(worker->Await(0, [](const auto& c) { return c.credits > 0; }).credits, 1u);
  client.Consume(call, 9);
  come(24);
  EXPECT_EQ(worker->Await(0, [](const auto& c) { return c.credits > 1; }).credits, 2u);
  client.Consume(call, 10);
  come(34);
  EXPECT_EQ(worker->Await(0, [](const auto& c) { return c.credits > 2; }).credits, 3u);
  constexpr size_t kAll = 25 + 5005;
  for (size_t had = 34; had < kAll; had += 10) {
    client.Consume(call, 10);
    come(std::min(had + 10, kAll));
  }
  worker->Await(0, [](const auto& c) { return c.credits == 4; });
}

TEST_F(SlowClientTest, AWorkerThatSendsOnNeverthelessIsGivenUp) {
  const auto worker = Start(1);
  TestClient client(ConnectTo(Listen()), 10, /*reads_slowly=*/true);
  Begin(client, kDown, "m");
  worker->Reply(0, "0123456789");
  for (size_t n = 1; n < link::kMostMessagesAhead; ++n) worker->Reply(0, "");
  Sync(client);
  EXPECT_FALSE(worker->ended());
  worker->Reply(0, "");
  Eventually([&] { return worker->ended(); });
}

TEST_F(SlowClientTest, NobodyIsToldOfWhatLeavesAfterTheEnd) {
  const auto worker = Start(1);
  TestClient client(ConnectTo(Listen()), 10, /*reads_slowly=*/true);
  const int32_t call = Begin(client, kDown, "m");
  worker->Reply(0, "0123456789");
  worker->Reply(0, "");
  worker->End(0, Code::kOk);
  client.RunUntil([&] { return client.response(call).body.size() == 10; });
  Sync(client);
  client.Consume(call, 10);
  IsOk(client.Wait(call), {"0123456789", ""});
  // The next credit that comes is of another call.
  const int32_t other = Begin(client, kDown, "m");
  worker->Reply(1, "a");
  worker->Await(1, [](const auto& c) { return c.credits == 1; });
  EXPECT_EQ(worker->Call(0).credits, 0u);
  worker->End(1, Code::kOk);
  IsOk(client.Wait(other), {"a"});
}

TEST_F(SlowClientTest, WhatIsGivenUpGoesBackToo) {
  constexpr size_t kArena = 1 << 20;
  const auto worker = Start(1, "s", 1, kArena);
  TestClient client(ConnectTo(Listen()), 10, /*reads_slowly=*/true);
  for (size_t n = 0; n < 8; ++n) {
    const int32_t call = Begin(client, kDown, "m");
    Eventually([&] { return worker->Reply(n, std::string(kArena / 2, 'x')); });
    client.RunUntil([&] { return client.response(call).body.size() == 10; });
    client.Reset(call);
    client.Flush();
    worker->Await(n, [](const auto& c) { return c.cancelled; });
  }
}

TEST_F(SlowClientTest, ReplyMemoryIsUsedAgainWhileTheStreamGoesOn) {
  constexpr size_t kArena = 1 << 20;
  const auto worker = Start(1, "s", 1, kArena);
  TestClient client(Listen());
  const int32_t call = Begin(client, kDown, "m");
  size_t bytes = 0;
  for (size_t size = 1; bytes < 8 * kArena; size = size * 3 % 200'003) {
    bytes += 5 + size;
    While(client, [&] { return worker->Reply(0, std::string(size, 'x')); });
  }
  worker->End(0, Code::kOk);
  EXPECT_EQ(client.Wait(call).body.size(), bytes);
}

TEST_F(SlowClientTest, ManySmallMessagesComeInOrder) {
  const auto worker = Start(1);
  TestClient client(Listen());
  const int32_t call = Begin(client, kDown, "m");
  constexpr size_t kCount = 20'000;
  std::vector<std::string> expected;
  for (size_t i = 0; i < kCount; ++i) expected.push_back(i % 7 == 0 ? "" : std::to_string(i));
  for (size_t sent = 0; sent < kCount;) {
    const size_t end = std::min(sent + link::kMostMessagesAhead, kCount);
    worker->Do(
        [&](link::WorkerLink& link, const auto* seen) {
          for (size_t i = sent; i < end; ++i) {
            const std::string& text = expected[i];
            const auto slab = link.AllocateReply(seen->lane, text.size());
            ASSERT_TRUE(slab);
            std::copy_n(reinterpret_cast<const std::byte*>(text.data()), text.size(), slab->bytes.begin());
            link.SendReply(seen->lane, seen->number, *slab, 0);
          }
        },
        0);
    client.RunUntil([&] { return client.response(call).body.ends_with(Framed(expected[end - 1])); });
    worker->Await(0, [&](const auto& c) { return c.credits == end; });
    sent = end;
  }
  worker->End(0, Code::kOk);
  IsOk(client.Wait(call), expected);
}

TEST(StreamWindowTest, WithholdsWholeMessagesThatWait) {
  Admission admission;
  StreamWindow window(admission);
  window.Received(100);
  EXPECT_EQ(window.Grant(), 100u);  // of a message that is coming
  window.Hold(100);
  EXPECT_EQ(window.Grant(), 0u);
  window.Received(50);
  EXPECT_EQ(window.Grant(), 0u);  // as much was granted too early
  window.Received(70);
  EXPECT_EQ(window.Grant(), 20u);
  window.Hold(120);
  EXPECT_TRUE(window.Take());
  EXPECT_EQ(window.Grant(), 0u);
  EXPECT_TRUE(window.Take());
  EXPECT_EQ(window.Grant(), 100u);
  EXPECT_FALSE(window.Take());
}

TEST(StreamWindowTest, WhatIsKeptCountsAndIsWithheld) {
  Admission admission;
  admission.SetMaxBytes(10);
  StreamWindow window(admission);
  const std::vector<std::byte> bytes(6);
  window.Received(6);
  EXPECT_TRUE(window.Keep(bytes));
  EXPECT_EQ(window.Grant(), 0u);
  EXPECT_EQ(admission.bytes(), 6u);
  EXPECT_FALSE(window.Keep(bytes));
  window.Drop(2, admission);
  EXPECT_EQ(window.Grant(), 2u);
  EXPECT_EQ(window.kept().size(), 4u);
  window.Drop(4, admission);
  EXPECT_EQ(window.Grant(), 4u);
  EXPECT_EQ(admission.bytes(), 0u);
}

}  // namespace
}  // namespace mindserve::gateway
