// Handler threads for tests, whose handlers do as they are told.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "worker/handlers.h"
#include "worker/service_call.h"
#include "worker/service_fixture.h"

namespace mindserve::worker {

// Handler threads on a clock that stands: each call that has begun stays in its handler until it is let go.
class HandlerThreadsTest : public testing::Test {
 protected:
  ~HandlerThreadsTest() override {
    EndThreads();
    handlers_->Clear();
  }

  void EndThreads() {
    handlers_->Stop();
    LetGo(SIZE_MAX);
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  void AddThreads(int count) {
    for (int i = 0; i < count; ++i) {
      threads_.emplace_back([this] { RunThread([this] { return handlers_->Await(); }); });
    }
    AwaitIdle(static_cast<size_t>(count));
  }

  // In a handler that waits for a servable if `calls_` says so.
  template <typename Await>
  void RunThread(Await await) {
    for (;;) {
      const CallPointer call = handlers_->TryTake();
      if (call == nullptr) {
        if (!await()) return;
        continue;
      }
      if (call->spec().client_streaming && !Reads(*call)) continue;
      const bool calls = calls_;
      if (calls) handlers_->BeginCall(nullptr);
      {
        std::unique_lock lock(mutex_);
        by_.push_back(std::this_thread::get_id());
        depths_.push_back(call->depth());
        clients_.push_back(call->client());
        const size_t own = by_.size();
        changed_.notify_all();
        changed_.wait(lock, [&] { return own <= let_go_ || (inner_goes_ && call->depth() > 0); });
      }
      if (calls) handlers_->EndCall(nullptr);
    }
  }

  // A stream, until it is over, and as much longer as `lingers_` says; true: a message came, and `works_` says that the
  // handler has to do with it.
  bool Reads(ServiceCall& call) {
    for (;;) {
      const auto reading = call.Read([](std::span<const std::byte>) {});
      if (reading == ServiceCall::Reading::kHalfClosed || reading == ServiceCall::Reading::kGone) {
        lingers_.wait(true);
        return false;
      }
      if (reading == ServiceCall::Reading::kMessage && works_) return true;
      if (reading == ServiceCall::Reading::kNotYet) call.AwaitReadable();
    }
  }

  // Waits until so many of the threads do nothing.
  void AwaitIdle(size_t count) {
    EXPECT_TRUE(Eventually([&] { return handlers_->idle_threads() == count; }));
  }

  void Push(int count, uint32_t depth = 0, uint64_t client = 0) {
    for (int i = 0; i < count; ++i) {
      ServiceCall::Opened opened;
      opened.depth = depth;
      opened.client = client;
      pushed_.push_back(std::make_shared<ServiceCall>(handlers_, std::move(opened)));
      handlers_->Push(pushed_.back());
    }
  }

  // The first so many calls that have begun, or will.
  void LetGo(size_t count) {
    const std::lock_guard lock(mutex_);
    let_go_ = count;
    changed_.notify_all();
  }

  // All inner calls.
  void LetInnerGo() {
    const std::lock_guard lock(mutex_);
    inner_goes_ = true;
    changed_.notify_all();
  }

  // Waits until so many have begun; on how many threads those did.
  size_t ThreadsOf(size_t begun) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(30), [&] { return by_.size() >= begun; }));
    return std::set(by_.begin(), by_.end()).size();
  }

  // The depths of the calls that have begun, in that order.
  std::vector<uint32_t> Depths() {
    const std::lock_guard lock(mutex_);
    return depths_;
  }

  // Whose calls they were.
  std::vector<uint64_t> Clients() {
    const std::lock_guard lock(mutex_);
    return clients_;
  }

  FakeTime time_;
  std::atomic<bool> calls_{false};
  std::atomic<bool> works_{false};
  std::atomic<bool> lingers_{false};
  std::vector<CallPointer> pushed_;
  std::shared_ptr<Handlers> handlers_ = [this] {
    auto handlers = std::make_shared<Handlers>(time_, [] {});
    handlers->Add({.path = "/t.T/M"});
    handlers->Add({.path = "/t.T/Up", .client_streaming = true});
    return handlers;
  }();

 protected:
  std::vector<std::thread> threads_;

 private:
  std::mutex mutex_;
  // Guarded by mutex_.
  std::condition_variable changed_;
  std::vector<std::thread::id> by_;  // which began them, in that order
  std::vector<uint32_t> depths_;
  std::vector<uint64_t> clients_;
  size_t let_go_ = 0;
  bool inner_goes_ = false;
};

// With somebody who starts extra threads, if he may.
class ExtraThreadsTest : public HandlerThreadsTest {
 protected:
  ExtraThreadsTest() {
    keeper_ = std::thread([this] {
      for (bool stuck = false;;) {
        const Handlers::Needs needs = handlers_->AwaitNeeds(stuck);
        if (needs.stopped) return;
        stuck = needs.stuck;
        stuck_ = stuck;
        if (fails_ && needs.threads > 0) {
          handlers_->ThreadsFailed(needs.threads);
          failed_ += needs.threads;
          continue;
        }
        for (size_t i = 0; i < needs.threads; ++i) {
          ++started_;
          ++extra_;
          threads_.emplace_back([this] {
            RunThread([this] { return handlers_->AwaitExtra(idle_for_); });
            --extra_;
          });
        }
      }
    });
  }
  ~ExtraThreadsTest() override {
    handlers_->Stop();
    keeper_.join();
    // Here, since they use what is this class's own.
    EndThreads();
  }

  // Nobody who looks after the line for as long as anything could come of it.
  void Tend() {
    for (int i = 0; i < 20; ++i) {
      time_.Advance(std::chrono::milliseconds(1));
      handlers_->Tend(time_.Now());
    }
  }
  // All ordinary threads, so many, held by calls of this depth that wait for a servable.
  void Fill(int count, uint32_t depth = 0) {
    calls_ = true;
    AddThreads(count);
    for (int i = 1; i <= count; ++i) {
      Push(1, depth);
      ThreadsOf(static_cast<size_t>(i));
    }
  }

  std::atomic<bool> fails_{false};
  std::atomic<size_t> failed_{0};
  std::atomic<size_t> started_{0};
  std::atomic<size_t> extra_{0};
  std::atomic<bool> stuck_{false};
  std::chrono::milliseconds idle_for_ = std::chrono::minutes(1);

 private:
  std::thread keeper_;
};

}  // namespace mindserve::worker
