#include "gateway/test_worker.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "gateway/classifier_service.h"
#include "wire/call_head.h"
#include "wire/predict.h"

namespace mindserve::gateway {
namespace {

enum Method : uint16_t { kAdd, kHold, kPause, kRun, kLater, kOnce, kEnd, kDie, kRogue, kBig, kClassify };

std::string_view TextOf(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Unaligned views of the request.
std::vector<float> Floats(const Tensor& tensor) {
  std::vector<float> values(tensor.data().size() / sizeof(float));
  std::memcpy(values.data(), tensor.data().data(), values.size() * sizeof(float));
  return values;
}

wire::InstanceReply Add(const std::vector<Tensor>& inputs) {
  const std::vector<float> x1 = Floats(inputs[0]);
  const std::vector<float> x2 = Floats(inputs[1]);
  std::span<std::byte> bytes;
  auto y = Tensor::Allocate(DType::kFloat32, inputs[0].shape(), &bytes);
  wire::InstanceReply reply;
  std::vector<float> sums(x1.size());
  for (size_t i = 0; i < sums.size(); ++i) sums[i] = x1[i] + x2[i];
  std::memcpy(bytes.data(), sums.data(), bytes.size());
  reply.outputs.push_back(*std::move(y));
  return reply;
}

}  // namespace

const std::vector<WorkerSpec::Method>& TestWorker::Methods() {
  static const std::vector<WorkerSpec::Method> methods = {
      {"add"}, {"hold"}, {"pause"}, {"run"}, {"later", false}, {"once", false}, {"end"}, {"die"}, {"rogue"}, {"big"}};
  return methods;
}

TestWorker::TestWorker(Gateway& gateway, uint64_t id, const std::string& servable, uint64_t version, size_t reply_arena,
                       std::chrono::milliseconds heartbeat_timeout, bool classifies) {
  int fds[2];
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
  socket_.reset(fds[0]);
  command_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  constexpr std::chrono::seconds kPatience{20};
  thread_ = std::thread([this, reply_arena, kPatience] {
    auto link = link::WorkerLink::Connect(socket_.get(), stats_, reply_arena, kPatience);
    ASSERT_TRUE(link.ok()) << link.status().ToString();
    link_ = *std::move(link);
    Run();
  });
  auto methods = Methods();
  if (classifies) methods.push_back({kClassifierPath});
  const Status attached =
      gateway.AttachWorker(UniqueFd(fds[1]), {id, servable, version, std::move(methods), heartbeat_timeout}, kPatience);
  EXPECT_TRUE(attached.ok()) << attached.ToString();
}

TestWorker::~TestWorker() {
  Die();
}

void TestWorker::Die() {
  if (!thread_.joinable()) return;
  stop_ = true;
  ::eventfd_write(command_.get(), 1);
  thread_.join();
  socket_.reset();
}

void TestWorker::Resume() {
  resumed_ = true;
  ::eventfd_write(command_.get(), 1);
}

void TestWorker::Run() {
  while (!stop_) {
    if (frozen_) {
      pollfd told{command_.get(), POLLIN, 0};
      ::poll(&told, 1, -1);
      uint64_t count;
      (void)!::read(command_.get(), &count, sizeof(count));
      continue;
    }
    stats_.Beat(Clock::now());
    for (size_t lane = 0; lane < link_->lanes(); ++lane) {
      link::GatewayFrame frame;
      while (!stop_ && link_->Receive(lane, &frame)) Take(lane, frame);
    }
    if (!link_->fault().ok()) faulty_ = true;
    if (resumed_) {
      for (const Held& held : std::exchange(held_, {})) Answer(held.lane, held.frame);
      held_count_ = 0;
      MarkExecuted();
    }
    link_->Flush();
    if (link_->PrepareSleep() && !stop_) {
      std::array<pollfd, 3> wait{{{link_->bell_fd(), POLLIN, 0}, {command_.get(), POLLIN, 0}, {socket_.get(), 0, 0}}};
      constexpr int kBeatMs = 20;
      ::poll(wait.data(), wait.size(), kBeatMs);
      uint64_t count;
      (void)!::read(command_.get(), &count, sizeof(count));
      if ((wait[2].revents & (POLLHUP | POLLERR)) != 0) stop_ = true;
    }
    link_->Awake();
    link_->EmptyBell();
  }
  ::shutdown(socket_.get(), SHUT_RDWR);
  ended_ = true;
}

void TestWorker::Take(size_t lane, const link::GatewayFrame& frame) {
  if (frame.type == link::FrameType::kCancel) {
    ++cancels_;
    const auto found = std::ranges::find(held_, frame.call, [](const Held& held) { return held.frame.call; });
    if (found != held_.end()) {
      link_->SendEnd(lane, frame.call, {Code::kCancelled, "cancelled"}, static_cast<uint8_t>(released()));
      held_.erase(found);
      MarkExecuted();
      --held_count_;
    }
    return;
  }
  if (frame.type == link::FrameType::kHead) {
    const auto head = wire::ReadCallHead(frame.payload);
    ASSERT_TRUE(head.ok()) << head.status().ToString();
    const std::lock_guard lock(mutex_);
    heads_.emplace_back(head->request_id, head->depth);
    return;
  }
  if (frame.type != link::FrameType::kMessage) return;
  ++calls_;
  instances_ += frame.instances;
  last_deadline_ns_ = frame.deadline_ns;
  if ((frame.flags & link::kAlone) != 0) ++alone_;
  switch (frame.method) {
    case kHold:
    case kLater:
    case kPause:
    case kRun:
    case kOnce:
      if (frame.method == kPause) link_->MarkOf(lane, frame.call).Begin();
      held_.push_back({lane, frame, frame.method == kRun || frame.method == kOnce});
      MarkExecuted();
      ++held_count_;
      return;
    case kEnd:
      return link_->SendEnd(lane, frame.call, {Code::kFailedPrecondition, "this is the end"}, link::kReleased);
    case kDie:
      held_.push_back({lane, frame, true});
      MarkExecuted();
      return;
    case kClassify:
      if (TextOf(frame.payload).find("die") != std::string_view::npos) {
        held_.push_back({lane, frame, true});
        MarkExecuted();
      } else if (TextOf(frame.payload).find("hold") != std::string_view::npos && !resumed_) {
        held_.push_back({lane, frame, false});
        ++held_count_;
      } else {
        Classify(lane, frame);
      }
      return;
    case kRogue:
      return link_->SendEnd(lane, frame.call + 1000, {Code::kInternal, "whose is this?"}, link::kReleased);
    default:
      return Answer(lane, frame);
  }
}

void TestWorker::MarkExecuted() {
  Execution& execution = stats_.stage(0).execution;
  execution.End();
  execution.Begin(Clock::now().time_since_epoch().count());
  const auto execute = [&](const Held& held) {
    execution.Add(link_->MarkOf(held.lane, held.frame.call));
    if (held.frame.method == kDie || held.frame.method == kClassify) stop_ = true;
  };
  const auto alone = [](const Held& held) { return (held.frame.flags & link::kAlone) != 0; };
  bool any = false;
  for (const Held& held : held_) {
    if (!held.executed || alone(held)) continue;
    any = true;
    execute(held);
  }
  const auto first = std::ranges::find_if(held_, [&](const Held& held) { return held.executed && alone(held); });
  if (!any && first != held_.end()) execute(*first);
}

void TestWorker::Classify(size_t lane, const link::GatewayFrame& frame) {
  const std::string_view message = TextOf(frame.payload);
  const bool rogue = message.find("rogue") != std::string_view::npos;
  const std::string answer = rogue ? std::string("\x1a\0", 2) : "\x12\x05model" + std::string(message);
  const auto slab = link_->AllocateReply(lane, answer.size());
  ASSERT_TRUE(slab) << "no reply memory";
  std::memcpy(slab->bytes.data(), answer.data(), answer.size());
  link_->SendReply(lane, frame.call, *slab, static_cast<uint8_t>(link::kEnds | released()));
}

void TestWorker::Answer(size_t lane, const link::GatewayFrame& frame) {
  if (frame.method == kClassify) return Classify(lane, frame);
  const std::vector<std::string> inputs = {"x1", "x2"};
  const std::vector<std::string> outputs = {"y"};
  std::vector<wire::InstanceReply> replies;
  wire::InstanceReader reader(frame.payload, inputs, nullptr);
  while (reader.Next()) {
    std::vector<Tensor> slots;
    if (const Status status = reader.Read(&slots); !status.ok()) {
      replies.push_back({{}, wire::ErrorCode::kInvalidInput, status.message()});
    } else if (frame.method == kBig) {
      const auto size = static_cast<size_t>(Floats(slots[0]).front() * (1 << 20));
      replies.push_back({{Tensor::Text(DType::kBytes, std::string(size, 'x'))}, wire::ErrorCode::kSuccess, {}});
    } else {
      if (replies.empty()) {
        const std::lock_guard lock(mutex_);
        order_.push_back(Floats(slots[0]).front());
      }
      replies.push_back(Add(slots));
    }
  }
  EXPECT_TRUE(reader.status().ok()) << reader.status().ToString();
  EXPECT_EQ(replies.size(), frame.instances);
  const wire::ReplyWriter writer(outputs, replies);
  const auto slab = link_->AllocateReply(lane, writer.size());
  ASSERT_TRUE(slab) << "no reply memory";
  writer.WriteTo(slab->bytes);
  link_->SendReply(lane, frame.call, *slab,
                   static_cast<uint8_t>(link::kEnds | released() | (writer.has_errors() ? link::kHasErrors : 0)));
}

}  // namespace mindserve::gateway
