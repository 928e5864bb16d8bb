#include "gateway/test_user_worker.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "gateway/test_gateway.h"

namespace mindserve::gateway {
namespace {

TestUserWorker::Pairs Copy(const wire::MetadataView& view) {
  return {view.begin(), view.end()};
}

}  // namespace

TestUserWorker::TestUserWorker(Gateway& gateway, uint64_t id, const std::string& servable,
                               std::vector<WorkerSpec::Method> methods, uint64_t version, size_t reply_arena) {
  int fds[2];
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
  socket_.reset(fds[0]);
  command_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  constexpr std::chrono::seconds kPatience{20};
  thread_ = std::thread([this, reply_arena, kPatience] {
    auto link = link::WorkerLink::Connect(socket_.get(), stats_, reply_arena, kPatience);
    ASSERT_TRUE(link.ok()) << link.status().ToString();
    {
      const std::lock_guard lock(mutex_);
      link_ = *std::move(link);
    }
    Run();
  });
  const Status attached = gateway.AttachWorker(
      UniqueFd(fds[1]), {id, servable, version, std::move(methods), std::chrono::milliseconds(20'000)}, kPatience);
  EXPECT_TRUE(attached.ok()) << attached.ToString();
  // Its other end may still be at it.
  Eventually([this] {
    const std::lock_guard lock(mutex_);
    return link_ != nullptr;
  });
}

void TestUserWorker::Die() {
  if (!thread_.joinable()) return;
  stop_ = true;
  ::eventfd_write(command_.get(), 1);
  thread_.join();
  socket_.reset();
}

void TestUserWorker::Run() {
  while (!stop_) {
    bool sleeps;
    {
      const std::lock_guard lock(mutex_);
      stats_.Beat(Clock::now());
      for (size_t lane = 0; lane < link_->lanes(); ++lane) {
        link::GatewayFrame frame;
        while (!stop_ && link_->Receive(lane, &frame)) Receive(lane, frame);
      }
      if (!link_->fault().ok()) faulty_ = true;
      link_->Flush();
      sleeps = link_->PrepareSleep() && !stop_;
    }
    if (sleeps) {
      std::array<pollfd, 3> wait{{{link_->bell_fd(), POLLIN, 0}, {command_.get(), POLLIN, 0}, {socket_.get(), 0, 0}}};
      constexpr int kBeatMs = 20;
      ::poll(wait.data(), wait.size(), kBeatMs);
      if ((wait[2].revents & (POLLHUP | POLLERR)) != 0) stop_ = true;
    }
    const std::lock_guard lock(mutex_);
    link_->Awake();
    link_->EmptyBell();
  }
  ::shutdown(socket_.get(), SHUT_RDWR);
  ended_ = true;
}

void TestUserWorker::Receive(size_t lane, const link::GatewayFrame& frame) {
  const auto text = [&] {
    return std::string(reinterpret_cast<const char*>(frame.payload.data()), frame.payload.size());
  };
  if (frame.type == link::FrameType::kMessage && (frame.flags & link::kOpens) != 0) {
    const auto head = wire::ReadCallHead(frame.payload);
    ASSERT_TRUE(head.ok()) << head.status().ToString();
    open_[{lane, frame.call}] = calls_.size();
    calls_.push_back({.lane = lane,
                      .number = frame.call,
                      .method = frame.method,
                      .client = frame.client,
                      .deadline_ns = frame.deadline_ns,
                      .request_id = std::string(head->request_id),
                      .model_id = std::string(head->model_id),
                      .peer = std::string(head->peer),
                      .metadata = Copy(head->metadata),
                      .auth = Copy(head->auth),
                      .depth = head->depth,
                      .messages = {},
                      .half_closed = false,
                      .cancelled = false,
                      .credits = 0});
    return;
  }
  const auto found = open_.find({lane, frame.call});
  if (found == open_.end()) {
    ADD_FAILURE() << "a frame of type " << static_cast<int>(frame.type) << " for a call that is not there";
    return;
  }
  Seen& seen = calls_[found->second];
  switch (frame.type) {
    case link::FrameType::kMessage:
      if ((frame.flags & link::kNoMessage) == 0) seen.messages.push_back(text());
      if ((frame.flags & link::kEnds) != 0) {
        seen.half_closed = true;
        if (echo_) AnswerEcho(seen);
      }
      return;
    case link::FrameType::kCancel:
      // As a worker does: it drops what it holds, and ends.
      seen.cancelled = true;
      link_->SendEnd(lane, frame.call, {Code::kCancelled, "cancelled"}, link::kReleased);
      return;
    case link::FrameType::kReleaseReply:
      ++seen.credits;
      return;
    default:
      ADD_FAILURE() << "a frame of type " << static_cast<int>(frame.type);
  }
}

void TestUserWorker::AnswerEcho(Seen& seen) {
  std::string all;
  for (const std::string& message : seen.messages) all += message;
  const auto slab = link_->AllocateReply(seen.lane, all.size());
  ASSERT_TRUE(slab) << "no reply memory";
  if (!all.empty()) std::memcpy(slab->bytes.data(), all.data(), all.size());
  link_->SendReply(seen.lane, seen.number, *slab, link::kEnds | link::kReleased);
}

void TestUserWorker::Echo() {
  const std::lock_guard lock(mutex_);
  echo_ = true;
}

size_t TestUserWorker::calls() const {
  const std::lock_guard lock(mutex_);
  return calls_.size();
}

TestUserWorker::Seen TestUserWorker::Call(size_t n) const {
  return Await(n, [](const Seen&) { return true; });
}

TestUserWorker::Seen TestUserWorker::Await(size_t n, const std::function<bool(const Seen&)>& holds) const {
  Seen seen;
  Eventually([&] {
    const std::lock_guard lock(mutex_);
    if (n >= calls_.size() || !holds(calls_[n])) return false;
    seen = calls_[n];
    return true;
  });
  return seen;
}

void TestUserWorker::Do(const std::function<void(link::WorkerLink&, const Seen*)>& task, size_t n) {
  Eventually([&] { return calls() > n; });
  const std::lock_guard lock(mutex_);
  if (n >= calls_.size()) return;
  task(*link_, &calls_[n]);
  link_->Flush();
}

void TestUserWorker::Begin(size_t n) {
  Do([](link::WorkerLink& link, const Seen* call) { link.MarkOf(call->lane, call->number).Begin(); }, n);
}

bool TestUserWorker::Reply(size_t n, std::string_view message, int flags) {
  bool sent = false;
  Do(
      [&](link::WorkerLink& link, const Seen* call) {
        const auto slab = link.AllocateReply(call->lane, message.size());
        if (!slab) return;
        if (!message.empty()) std::memcpy(slab->bytes.data(), message.data(), message.size());
        link.SendReply(call->lane, call->number, *slab, static_cast<uint8_t>(flags));
        sent = true;
      },
      n);
  return sent;
}

void TestUserWorker::Initial(size_t n, const wire::MetadataView& metadata, bool gzip) {
  Do(
      [&](link::WorkerLink& link, const Seen* call) {
        EXPECT_TRUE(
            link.SendInitial(call->lane, call->number, wire::WriteMetadata(metadata), gzip ? link::kCompressed : 0));
      },
      n);
}

void TestUserWorker::End(size_t n, Code code, std::string_view details, const wire::MetadataView& trailing, int flags) {
  Do(
      [&](link::WorkerLink& link, const Seen* call) {
        EXPECT_TRUE(link.SendTrailing(call->lane, call->number, code,
                                      wire::WriteCallEnd({.details = details, .trailing = trailing}),
                                      static_cast<uint8_t>(flags)));
      },
      n);
}

void TestUserWorker::EndInShort(size_t n, const Status& status) {
  Do([&](link::WorkerLink& link, const Seen* call) { link.SendEnd(call->lane, call->number, status, link::kReleased); },
     n);
}

void TestUserWorker::Take(size_t n) {
  Do([](link::WorkerLink& link, const Seen* call) { link.SendReleaseMessage(call->lane, call->number); }, n);
}

void TestUserWorker::Release(size_t n) {
  Do([](link::WorkerLink& link, const Seen* call) { link.SendRelease(call->lane, call->number); }, n);
}

void TestUserWorker::AwaitCredit(bool awaited) {
  const std::lock_guard lock(mutex_);
  for (size_t lane = 0; lane < link_->lanes(); ++lane) link_->AwaitCredit(lane, awaited);
}

void TestUserWorker::Model(std::string_view id, bool loaded) {
  const std::lock_guard lock(mutex_);
  for (size_t lane = 0; lane < link_->lanes(); ++lane) EXPECT_TRUE(link_->SendModel(lane, id, loaded));
  link_->Flush();
}

}  // namespace mindserve::gateway
