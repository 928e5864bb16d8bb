#include "link/worker_link.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <new>

#include "link/handshake.h"
#include "link/reply_shares.h"

namespace mindserve::link {
namespace {

// One that says nothing but this of a call; the rest is up to its type.
Frame Bare(FrameType type, uint64_t call) {
  Frame frame{};
  frame.type = type;
  frame.call = call;
  frame.deadline_ns = INT64_MAX;
  return frame;
}

}  // namespace

struct WorkerLink::LaneState {
  Region ours;    // replies' ring, how far requests were read, the reply arena
  Region port;    // the I/O thread's sleep flag and its request arena
  Region theirs;  // requests' ring, how far replies were read
  UniqueFd bell;  // the I/O thread's
  std::unique_ptr<Arena> arena;
  std::array<ReplyShares, 2> shares;  // of it, by For: who reads its answers need not read its streams
  uint64_t releases = 0;              // slabs that came back to it
  RingWriter out;
  RingReader in;
  std::deque<Frame> waiting;  // what the ring had no room for
  uint32_t last_rung = 0;
  // These are told to the gateway.
  bool awaits_memory = false;
  bool awaits_credit = false;

  RingBlock& block() { return *reinterpret_cast<RingBlock*>(ours.data()); }

  void Send(const Frame& frame) {
    if (!waiting.empty() || !out.Put(frame)) waiting.push_back(frame);
  }

  void TellStarved() {
    const uint32_t starved = awaits_memory || awaits_credit ? 1 : 0;
    auto& flag = block().starved.value;
    if (flag.load(std::memory_order_relaxed) != starved) flag.store(starved, std::memory_order_seq_cst);
  }

  bool Free(uint64_t offset) {
    if (!arena->Free(offset)) return false;
    for (ReplyShares& each : shares) each.Remove(offset);
    ++releases;
    return true;
  }
};

WorkerLink::WorkerLink() = default;
WorkerLink::~WorkerLink() = default;

Result<std::unique_ptr<WorkerLink>> WorkerLink::Connect(int socket, const StatsWriter& stats, size_t arena_bytes,
                                                        std::chrono::milliseconds timeout) {
  const Deadline deadline = Deadline::clock::now() + timeout;
  std::unique_ptr<WorkerLink> link(new WorkerLink);
  auto flag = Region::Create("mindserve-worker", sizeof(SleepFlag));
  if (!flag.ok()) return flag.status();
  auto bell = NewBell();
  if (!bell.ok()) return bell.status();
  link->flag_region_ = *std::move(flag);
  link->flag_ = new (link->flag_region_.data()) SleepFlag;
  link->bell_ = *std::move(bell);
  const int hello[] = {link->flag_region_.fd(), link->bell_.get(), stats.fd()};
  MS_RETURN_IF_ERROR(SendHandshake(socket, HandshakeMessage{}, hello, deadline));

  uint32_t lanes = 1;
  for (uint32_t i = 0; i < lanes; ++i) {
    UniqueFd offered[3];
    auto offer = ReceiveHandshake(socket, HandshakeStep::kOffer, offered, deadline);
    if (!offer.ok()) return offer.status();
    if (offer->lane != i || offer->lanes == 0 || offer->lanes > kMaxLanes) {
      return Status(Code::kInvalidArgument, "link handshake: lane " + std::to_string(offer->lane) + " of " +
                                                std::to_string(offer->lanes) + " offered, expected lane " +
                                                std::to_string(i));
    }
    lanes = offer->lanes;
    auto lane = std::make_unique<LaneState>();
    auto port = Region::Open(std::move(offered[0]), kRequestArenaBegin);
    if (!port.ok()) return port.status();
    MS_RETURN_IF_ERROR(CheckBell(offered[1].get()));
    auto theirs = Region::Open(std::move(offered[2]), sizeof(RingBlock));
    if (!theirs.ok()) return theirs.status();
    auto ours = Region::Create("mindserve-replies", kReplyArenaBegin + arena_bytes);
    if (!ours.ok()) return ours.status();
    new (ours->data()) RingBlock;
    lane->ours = *std::move(ours);
    lane->port = *std::move(port);
    lane->theirs = *std::move(theirs);
    lane->bell = std::move(offered[1]);
    lane->arena = std::make_unique<Arena>(lane->ours, kReplyArenaBegin);
    const auto* other = reinterpret_cast<const RingBlock*>(lane->theirs.data());
    lane->out = RingWriter(&lane->block(), other);
    lane->in = RingReader(&lane->block(), other);
    HandshakeMessage accept;
    accept.step = HandshakeStep::kAccept;
    accept.lane = i;
    const int accepted[] = {lane->ours.fd()};
    MS_RETURN_IF_ERROR(SendHandshake(socket, accept, accepted, deadline));
    link->lanes_.push_back(std::move(lane));
  }
  return link;
}

size_t WorkerLink::lanes() const {
  return lanes_.size();
}

bool WorkerLink::Receive(size_t index, GatewayFrame* out) {
  LaneState& lane = *lanes_[index];
  while (fault_.ok()) {
    Frame frame;
    const auto outcome = lane.in.Take(&frame);
    if (outcome == RingReader::Outcome::kEmpty) return false;
    bool fine = outcome == RingReader::Outcome::kFrame;
    if (fine && frame.type == FrameType::kReleaseReply) {
      const bool credit = (frame.flags & kCredit) != 0;
      fine = (credit && frame.offset == 0) || lane.Free(frame.offset);
      if (fine && !credit) continue;
      frame.offset = 0;
    }
    const bool known = frame.type >= FrameType::kMessage && frame.type <= FrameType::kHead;
    const bool inside = frame.length == 0 || (frame.offset >= kRequestArenaBegin && frame.offset <= lane.port.size() &&
                                              frame.length <= lane.port.size() - frame.offset);
    if (!fine || !known || !inside) {
      fault_ = Status(Code::kInternal, "the gateway broke the link's protocol");
      return false;
    }
    out->type = frame.type;
    out->flags = frame.flags;
    out->method = frame.method;
    out->instances = frame.instances;
    out->call = frame.call;
    out->deadline_ns = frame.deadline_ns;
    out->client = frame.client;
    out->key = {.high = frame.key_high, .low = frame.key_low};
    out->payload = {};
    if (frame.length != 0) out->payload = {lane.port.data() + frame.offset, frame.length};
    return true;
  }
  return false;
}

WorkerLink::Allocation WorkerLink::AllocateReply(size_t index, size_t bytes, uint64_t client, For what,
                                                 bool others_wait) {
  LaneState& lane = *lanes_[index];
  ReplyShares& shares = lane.shares[static_cast<size_t>(what)];
  const bool streams = what == For::kStream;
  const bool counts = client != kNobody && (streams || bytes >= kCountedBytes);
  const size_t used = lane.arena->used();
  const size_t all = lane.ours.size() - kReplyArenaBegin;
  const size_t most = streams ? all - all / 4 : all;
  const size_t room = most - std::min(most, used);
  const size_t held = counts ? shares.Held(client) : 0;
  Allocation allocation;
  const size_t left = room - std::min(room, bytes);
  allocation.over_share = held > 0 && left < most / 2 && held + bytes > left / 8;
  const bool leaves = (streams && used > 0 && bytes > room) || (others_wait && bytes > room / 64);
  if (!allocation.over_share && !leaves) allocation = lane.arena->Allocate(bytes);
  if (!allocation) {
    AwaitMemory(index, true);
  } else if (counts) {
    shares.Add(allocation->offset, client, lane.arena->used() - used);
  }
  return allocation;
}

void WorkerLink::FreeReply(size_t index, const Slab& slab) {
  lanes_[index]->Free(slab.offset);
}

uint64_t WorkerLink::Releases(size_t index) const {
  return lanes_[index]->releases;
}

void WorkerLink::AwaitMemory(size_t index, bool awaited) {
  LaneState& lane = *lanes_[index];
  lane.awaits_memory = awaited;
  lane.TellStarved();
}

void WorkerLink::AwaitCredit(size_t index, bool awaited) {
  LaneState& lane = *lanes_[index];
  lane.awaits_credit = awaited;
  lane.TellStarved();
}

std::optional<Slab> WorkerLink::CopyOut(size_t index, std::string_view text) {
  std::optional<Slab> slab = AllocateReply(index, text.size());
  if (slab && !text.empty()) std::memcpy(slab->bytes.data(), text.data(), text.size());
  return slab;
}

bool WorkerLink::SendInitial(size_t index, uint64_t call, std::string_view metadata, uint8_t flags) {
  const auto slab = CopyOut(index, metadata);
  if (slab) SendPayload(*lanes_[index], FrameType::kInitial, flags, call, *slab);
  return slab.has_value();
}

bool WorkerLink::SendTrailing(size_t index, uint64_t call, Code code, std::string_view call_end, uint8_t flags) {
  const auto slab = CopyOut(index, call_end);
  if (slab) SendPayload(*lanes_[index], FrameType::kEnd, flags | kTrailing, call, *slab, code);
  return slab.has_value();
}

bool WorkerLink::SendModel(size_t index, std::string_view model_id, bool loaded) {
  const auto slab = CopyOut(index, model_id);
  if (slab) SendPayload(*lanes_[index], FrameType::kModel, loaded ? kLoaded : 0, 0, *slab);
  return slab.has_value();
}

void WorkerLink::SendReleaseMessage(size_t index, uint64_t call) {
  lanes_[index]->Send(Bare(FrameType::kReleaseMessage, call));
}

void WorkerLink::SendWants(size_t index, uint64_t call, uint32_t taken) {
  Frame frame = Bare(FrameType::kWants, call);
  frame.instances = taken;
  lanes_[index]->Send(frame);
}

void WorkerLink::SendOverShare(size_t index, uint64_t call) {
  lanes_[index]->Send(Bare(FrameType::kOverShare, call));
}

void WorkerLink::SendLacks(size_t index) {
  lanes_[index]->Send(Bare(FrameType::kLacks, 0));
}

void WorkerLink::SendPayload(LaneState& lane, FrameType type, int flags, uint64_t call, const Slab& slab, Code code) {
  Frame frame = Bare(type, call);
  frame.flags = static_cast<uint8_t>(flags);
  frame.code = static_cast<uint32_t>(code);
  if (slab.bytes.empty()) {
    lane.Free(slab.offset);
  } else {
    frame.offset = slab.offset;
    frame.length = slab.bytes.size();
  }
  lane.Send(frame);
}

void WorkerLink::SendReply(size_t index, uint64_t call, const Slab& slab, uint8_t flags) {
  SendPayload(*lanes_[index], FrameType::kReply, flags, call, slab);
}

void WorkerLink::SendEnd(size_t index, uint64_t call, const Status& status, uint8_t flags) {
  LaneState& lane = *lanes_[index];
  Frame frame = Bare(FrameType::kEnd, call);
  frame.flags = flags;
  frame.code = static_cast<uint32_t>(status.code());
  const std::string& text = status.message();
  if (!text.empty()) {
    if (auto slab = lane.arena->Allocate(text.size())) {
      std::memcpy(slab->bytes.data(), text.data(), text.size());
      frame.offset = slab->offset;
      frame.length = text.size();
    }
  }
  lane.Send(frame);
}

void WorkerLink::SendRelease(size_t index, uint64_t call) {
  lanes_[index]->Send(Bare(FrameType::kRelease, call));
}

ExecutionMark WorkerLink::MarkOf(size_t index, uint64_t call) {
  const uint64_t place = call & 0xffffffff;
  auto* begun = reinterpret_cast<std::atomic<uint32_t>*>(lanes_[index]->ours.data() + kBegunBegin);
  return {.tag = TagOf(index, call), .begun = place < kBegunPlaces ? begun + place : nullptr};
}

void WorkerLink::Flush() {
  for (const auto& lane : lanes_) {
    while (!lane->waiting.empty() && lane->out.Put(lane->waiting.front())) lane->waiting.pop_front();
    const bool room_told = lane->in.Publish();
    const bool published = lane->out.Publish();
    if (room_told || published) {
      RingIfAsleep(*reinterpret_cast<const SleepFlag*>(lane->port.data()), lane->bell.get(), &lane->last_rung);
    }
  }
}

bool WorkerLink::PrepareSleep() {
  asleep_ = true;
  flag_->epoch.fetch_add(1, std::memory_order_seq_cst);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  for (const auto& lane : lanes_) {
    if (lane->in.HasFrames() || (!lane->waiting.empty() && lane->out.HasRoom())) return false;
  }
  return true;
}

void WorkerLink::Awake() {
  if (!asleep_) return;
  asleep_ = false;
  flag_->epoch.fetch_add(1, std::memory_order_seq_cst);
}

void WorkerLink::EmptyBell() {
  link::EmptyBell(bell_.get());
}

}  // namespace mindserve::link
