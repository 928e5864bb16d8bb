#include "link/lane.h"

#include <new>

#include "link/handshake.h"

namespace mindserve::link {

Result<std::unique_ptr<GatewayPort>> GatewayPort::Create(size_t arena_bytes) {
  std::unique_ptr<GatewayPort> port(new GatewayPort);
  auto region = Region::Create("mindserve-requests", kRequestArenaBegin + arena_bytes);
  if (!region.ok()) return region.status();
  auto bell = NewBell();
  if (!bell.ok()) return bell.status();
  port->region_ = *std::move(region);
  port->bell_ = *std::move(bell);
  port->flag_ = new (port->region_.data()) SleepFlag;
  port->arena_ = std::make_unique<Arena>(port->region_, kRequestArenaBegin);
  return port;
}

void GatewayPort::Asleep() {
  asleep_ = true;
  flag_->epoch.fetch_add(1, std::memory_order_seq_cst);
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

void GatewayPort::Awake() {
  if (!asleep_) return;
  asleep_ = false;
  flag_->epoch.fetch_add(1, std::memory_order_seq_cst);
}

void GatewayPort::EmptyBell() {
  link::EmptyBell(bell_.get());
}

Lane::~Lane() = default;

void Lane::Send(const Frame& frame) {
  if (!waiting_.empty() || !out_.Put(frame)) waiting_.push_back(frame);
}

void Lane::SendOpen(const Open& open) {
  Frame frame{};
  frame.type = FrameType::kMessage;
  frame.flags = static_cast<uint8_t>(kOpens | (open.ends ? kEnds : 0) | (open.alone ? kAlone : 0));
  frame.method = open.method;
  frame.instances = open.instances;
  frame.call = open.call;
  frame.offset = open.offset;
  frame.length = open.length;
  frame.deadline_ns = open.deadline_ns;
  frame.client = open.client;
  frame.key_high = open.key.high;
  frame.key_low = open.key.low;
  Send(frame);
  wake_ = true;
}

void Lane::SendHead(uint64_t call, uint64_t offset, uint64_t length) {
  Frame frame{};
  frame.type = FrameType::kHead;
  frame.call = call;
  frame.offset = offset;
  frame.length = length;
  frame.deadline_ns = INT64_MAX;
  Send(frame);
}

void Lane::SendMessage(uint64_t call, uint64_t offset, uint64_t length, bool ends) {
  Frame frame{};
  frame.type = FrameType::kMessage;
  frame.flags = ends ? kEnds : 0;
  frame.call = call;
  frame.offset = offset;
  frame.length = length;
  frame.deadline_ns = INT64_MAX;
  Send(frame);
  wake_ = true;
}

void Lane::SendHalfClose(uint64_t call) {
  Frame frame{};
  frame.type = FrameType::kMessage;
  frame.flags = kEnds | kNoMessage;
  frame.call = call;
  frame.deadline_ns = INT64_MAX;
  Send(frame);
  wake_ = true;
}

void Lane::SendCancel(uint64_t call) {
  Frame frame{};
  frame.type = FrameType::kCancel;
  frame.call = call;
  frame.deadline_ns = INT64_MAX;
  Send(frame);
  wake_ = true;
}

void Lane::ReleaseReply(std::span<const std::byte> payload) {
  if (payload.empty()) return;
  Frame frame{};
  frame.type = FrameType::kReleaseReply;
  frame.offset = static_cast<uint64_t>(payload.data() - theirs_.data());
  frame.deadline_ns = INT64_MAX;
  Send(frame);
  released_ = true;
}

void Lane::ReleaseReply(std::span<const std::byte> payload, uint64_t call) {
  Frame frame{};
  frame.type = FrameType::kReleaseReply;
  frame.flags = kCredit;
  frame.call = call;
  if (!payload.empty()) frame.offset = static_cast<uint64_t>(payload.data() - theirs_.data());
  frame.deadline_ns = INT64_MAX;
  Send(frame);
  released_ = true;
}

void Lane::MoveWaiting() {
  while (!waiting_.empty() && out_.Put(waiting_.front())) waiting_.pop_front();
}

void Lane::Flush() {
  MoveWaiting();
  const bool room_told = in_.Publish();
  const bool published = out_.Publish();
  const auto* theirs = reinterpret_cast<const RingBlock*>(theirs_.data());
  const bool starved = published && released_ && theirs->starved.value.load(std::memory_order_seq_cst) != 0;
  // A full ring may hold nothing but releases, of which the worker was not told: it has to make room for what waits.
  if (room_told || starved || (wake_ && (published || !waiting_.empty()))) {
    RingIfAsleep(*reinterpret_cast<const SleepFlag*>(worker_->data()), worker_bell_->get(), &last_rung_);
  }
  if (published) {
    wake_ = !waiting_.empty();
    released_ = !waiting_.empty();
  }
}

bool Lane::HasWork() {
  return (fault_.ok() && in_.HasFrames()) || (!waiting_.empty() && out_.HasRoom());
}

bool Lane::Receive(WorkerFrame* out) {
  if (!fault_.ok()) return false;
  Frame frame;
  switch (in_.Take(&frame)) {
    case RingReader::Outcome::kEmpty:
      return false;
    case RingReader::Outcome::kFault:
      fault_ =
          Status(Code::kInternal, "the worker broke the link's protocol: it claims more frames than its ring holds");
      return false;
    case RingReader::Outcome::kFrame:
      break;
  }
  const bool known = frame.type >= FrameType::kReply && frame.type <= FrameType::kOverShare;
  const bool inside = frame.length == 0 || (frame.offset >= kReplyArenaBegin && frame.offset <= theirs_.size() &&
                                            frame.length <= theirs_.size() - frame.offset);
  const bool coded =
      frame.type != FrameType::kEnd || (frame.code < kCodeCount && (frame.code != 0 || (frame.flags & kTrailing) != 0));
  if (!known || !inside || !coded) {
    fault_ = Status(Code::kInternal, "the worker broke the link's protocol: frame of type " +
                                         std::to_string(static_cast<int>(frame.type)) + ", offset " +
                                         std::to_string(frame.offset) + ", length " + std::to_string(frame.length) +
                                         ", code " + std::to_string(frame.code));
    return false;
  }
  out->type = frame.type;
  out->flags = frame.flags;
  out->code = static_cast<uint8_t>(frame.code);
  out->messages = frame.instances;
  out->call = frame.call;
  out->payload = {};
  if (frame.length != 0) out->payload = {theirs_.data() + frame.offset, frame.length};
  return true;
}

bool Lane::MayHaveBegun(uint64_t call) const {
  const uint64_t place = call & 0xffffffff;
  if (place >= kBegunPlaces) return true;  // not noted
  const auto* begun = reinterpret_cast<const std::atomic<uint32_t>*>(theirs_.data() + kBegunBegin);
  return begun[place].load(std::memory_order_acquire) == ExecutionMark::Value(TagOf(call));
}

Result<GatewayHandshake::Outcome> GatewayHandshake::Run(int socket, std::span<GatewayPort* const> ports,
                                                        std::chrono::milliseconds timeout) {
  const Deadline deadline = Deadline::clock::now() + timeout;
  UniqueFd hello_fds[3];
  auto hello = ReceiveHandshake(socket, HandshakeStep::kHello, hello_fds, deadline);
  if (!hello.ok()) return hello.status();
  auto flag = Region::Open(std::move(hello_fds[0]), sizeof(SleepFlag));
  if (!flag.ok()) return flag.status();
  MS_RETURN_IF_ERROR(CheckBell(hello_fds[1].get()));
  auto stats = StatsReader::Open(std::move(hello_fds[2]));
  if (!stats.ok()) return stats.status();
  const auto worker = std::make_shared<const Region>(*std::move(flag));
  const auto worker_bell = std::make_shared<const UniqueFd>(std::move(hello_fds[1]));

  Outcome outcome{.lanes = {}, .stats = *std::move(stats)};
  for (size_t i = 0; i < ports.size(); ++i) {
    GatewayPort& port = *ports[i];
    auto ours = Region::Create("mindserve-lane", sizeof(RingBlock));
    if (!ours.ok()) return ours.status();
    new (ours->data()) RingBlock;
    HandshakeMessage offer;
    offer.step = HandshakeStep::kOffer;
    offer.lane = static_cast<uint32_t>(i);
    offer.lanes = static_cast<uint32_t>(ports.size());
    const int offered[] = {port.region_.fd(), port.bell_.get(), ours->fd()};
    MS_RETURN_IF_ERROR(SendHandshake(socket, offer, offered, deadline));
    UniqueFd accepted[1];
    auto accept = ReceiveHandshake(socket, HandshakeStep::kAccept, accepted, deadline);
    if (!accept.ok()) return accept.status();
    if (accept->lane != i)
      return Status(Code::kInvalidArgument, "link handshake: another lane was accepted than offered");
    auto theirs = Region::Open(std::move(accepted[0]), kReplyArenaBegin);
    if (!theirs.ok()) return theirs.status();

    std::unique_ptr<Lane> lane(new Lane);
    lane->port_ = &port;
    lane->number_ = i;
    lane->ours_ = *std::move(ours);
    lane->theirs_ = *std::move(theirs);
    lane->worker_ = worker;
    lane->worker_bell_ = worker_bell;
    auto* mine = reinterpret_cast<RingBlock*>(lane->ours_.data());
    const auto* other = reinterpret_cast<const RingBlock*>(lane->theirs_.data());
    lane->out_ = RingWriter(mine, other);
    lane->in_ = RingReader(mine, other);
    outcome.lanes.push_back(std::move(lane));
  }
  return outcome;
}

}  // namespace mindserve::link
