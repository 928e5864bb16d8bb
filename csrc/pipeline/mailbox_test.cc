#include "pipeline/mailbox.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>

namespace mindserve::pipeline {
namespace {

std::unique_ptr<pipeline::Run> Named(std::string name) {
  auto run = std::make_unique<pipeline::Run>();
  run->status = Status(Code::kUnknown, std::move(name));
  return run;
}

TEST(MailboxTest, RunsComeInTheOrderOfPosting) {
  Mailbox mailbox(nullptr);
  for (const char* name : {"a", "b", "c"}) mailbox.PostRun(Named(name));
  Mailbox::Mail mail = mailbox.Collect();
  for (const char* name : {"a", "b", "c"}) EXPECT_EQ(mail.NextRun()->status.message(), name);
  EXPECT_EQ(mail.NextRun(), nullptr);
  mailbox.PostRun(Named("d"));
  mail = mailbox.Collect();
  EXPECT_EQ(mail.NextRun()->status.message(), "d");
}

TEST(MailboxTest, ItemsAreChained) {
  Mailbox mailbox(nullptr);
  batching::Item items[4];
  for (int i = 0; i < 4; ++i) {
    batching::ItemList list;
    list.Append(items[i]);
    if (i < 3) {
      mailbox.PostExpired(std::move(list));
    } else {
      mailbox.PostOutOfMemory(std::move(list));
    }
  }
  Mailbox::Mail mail = mailbox.Collect();
  EXPECT_EQ(mail.expired.size(), 3u);
  EXPECT_EQ(mail.expired.Pop(), &items[0]);
  EXPECT_EQ(mail.out_of_memory.Pop(), &items[3]);
  EXPECT_TRUE(mailbox.Collect().expired.empty());
}

TEST(MailboxTest, WakesOnceUntilItIsCollected) {
  int wakes = 0;
  Mailbox mailbox([&] { ++wakes; });
  mailbox.PostExpired({});
  EXPECT_EQ(wakes, 0);
  mailbox.PostRun(Named("a"));
  mailbox.PostRun(Named("b"));
  mailbox.Nudge();
  EXPECT_EQ(wakes, 1);
  mailbox.Collect();
  EXPECT_EQ(wakes, 1);
  mailbox.Nudge();
  EXPECT_EQ(wakes, 2);
}

TEST(MailboxTest, WakeMayCollect) {
  Mailbox* in_wake = nullptr;
  std::string seen;
  Mailbox mailbox([&] {
    Mailbox::Mail mail = in_wake->Collect();
    seen += mail.NextRun()->status.message();
  });
  in_wake = &mailbox;
  mailbox.PostRun(Named("a"));
  mailbox.PostRun(Named("b"));
  EXPECT_EQ(seen, "ab");
}

TEST(MailboxTest, WakesNobodyOnceItIsClosed) {
  int wakes = 0;
  Mailbox mailbox([&] { ++wakes; });
  mailbox.Close();
  mailbox.PostRun(Named("a"));
  EXPECT_EQ(wakes, 0);
}

TEST(MailboxTest, CloseWaitsForTheWakingThatGoesOn) {
  std::atomic<bool> closed{false};
  std::atomic<bool> started{false};
  std::atomic<bool> go{false};
  std::atomic<bool> woke_after{false};
  Mailbox mailbox([&] {
    started = true;
    while (!go) std::this_thread::yield();
    woke_after = closed.load();
  });
  std::thread poster([&] { mailbox.PostRun(Named("a")); });
  while (!started) std::this_thread::yield();
  std::thread closer([&] {
    mailbox.Close();
    closed = true;
  });
  go = true;
  closer.join();
  poster.join();
  EXPECT_FALSE(woke_after);
}

TEST(MailboxTest, ALongChainGoesWithTheMailbox) {
  Mailbox mailbox(nullptr);
  for (int i = 0; i < 200'000; ++i) mailbox.PostRun(std::make_unique<pipeline::Run>());
}

TEST(MailboxTest, ManyThreadsPost) {
  constexpr int kThreads = 4;
  constexpr int kEach = 2'000;
  std::atomic<int> wakes{0};
  Mailbox mailbox([&] { ++wakes; });
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < kEach; ++n) mailbox.PostRun(std::make_unique<pipeline::Run>());
    });
  }
  int seen = 0;
  while (seen < kThreads * kEach) {
    Mailbox::Mail mail = mailbox.Collect();
    while (mail.NextRun() != nullptr) ++seen;
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GE(wakes, 1);
}

}  // namespace
}  // namespace mindserve::pipeline
