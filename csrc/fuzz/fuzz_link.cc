// Frames and counts of the other side's ring, as each end of a link takes them.
#include <array>

#include "fuzz/raw_link.h"

namespace mindserve::fuzz {
namespace {

// What a payload claims may be read.
void Touch(std::span<const std::byte> payload) {
  if (payload.empty()) return;
  volatile std::byte sink = payload.front();
  sink = payload.back();
  (void)sink;
}

void RunAtGateway(Input input) {
  static const auto port = *link::GatewayPort::Create(1 << 20);
  std::unique_ptr<link::Lane> lane;
  const auto worker = RawWorker::Connect(*port, &lane);
  while (!input.empty() && !lane->broken()) {
    if (const uint8_t op = input.Byte(); op == 0xff) {
      worker->side().Claim(input.Take<uint32_t>(), input.Take<uint32_t>());
    } else {
      worker->side().Put(worker->side().TakeFrame(input, {1, 2}));
    }
    link::WorkerFrame frame;
    while (lane->Receive(&frame)) {
      Touch(frame.payload);
      FUZZ_REQUIRE(frame.payload.size() <= kRawArena);
      if (frame.type == link::FrameType::kEnd) FUZZ_REQUIRE(frame.code < kCodeCount);
      (void)lane->MayHaveBegun(frame.call);
      lane->ReleaseReply(frame.payload, frame.call);
    }
    (void)lane->HasWork();
    lane->Flush();
  }
  FUZZ_REQUIRE(lane->broken() == !lane->fault().ok());
}

// The gateway's end by hand.
void RunAtWorker(Input input) {
  auto port = *link::Region::Create("mindserve-requests", link::kRequestArenaBegin + kRawArena);
  auto ring = *link::Region::Create("mindserve-lane", sizeof(link::RingBlock));
  new (port.data()) link::SleepFlag;
  new (ring.data()) link::RingBlock;
  const UniqueFd bell = *link::NewBell();
  static const link::StatsWriter stats = *link::StatsWriter::Create(std::vector{link::StageName{}});
  int fds[2];
  FUZZ_REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) == 0);
  const UniqueFd gateways(fds[0]);
  const UniqueFd workers(fds[1]);
  link::HandshakeMessage offer;
  offer.step = link::HandshakeStep::kOffer;
  offer.lanes = 1;
  const int offered[] = {port.fd(), bell.get(), ring.fd()};
  FUZZ_REQUIRE(
      link::SendHandshake(gateways.get(), offer, offered, std::chrono::steady_clock::now() + kRawPatience).ok());
  auto connected = link::WorkerLink::Connect(workers.get(), stats, kRawArena, kRawPatience);
  FUZZ_REQUIRE(connected.ok());
  link::WorkerLink& worker = **connected;

  // Its payloads lie in the port's region, its frames in the ring's.
  RawSide frames(ring, 0);
  RawSide payloads(port, link::kRequestArenaBegin);
  while (!input.empty() && worker.fault().ok()) {
    const uint8_t op = input.Byte();
    if (op == 0xff) {
      frames.Claim(input.Take<uint32_t>(), input.Take<uint32_t>());
    } else if (op == 0xfe) {
      // Something to be released.
      if (const auto slab = worker.AllocateReply(0, input.Byte())) worker.SendReply(0, 1, *slab, link::kEnds);
    } else {
      frames.Put(payloads.TakeFrame(input, {1, 2}));
    }
    link::GatewayFrame frame;
    while (worker.Receive(0, &frame)) {
      Touch(frame.payload);
      FUZZ_REQUIRE(frame.payload.size() <= kRawArena + link::kPage);
    }
    worker.Flush();
    (void)worker.PrepareSleep();
    worker.Awake();
  }
}

// The worker's words of the handshake, with descriptors that may be other things.
void RunHandshake(Input input) {
  static const auto port = *link::GatewayPort::Create(1 << 20);
  static const link::Region region = *link::Region::Create("mindserve-replies", link::kReplyArenaBegin + kRawArena);
  static const link::Region small = *link::Region::Create("mindserve-worker", sizeof(link::SleepFlag));
  static const UniqueFd bell = *link::NewBell();
  static const link::StatsWriter stats = *link::StatsWriter::Create(std::vector{link::StageName{}});
  int fds[2];
  FUZZ_REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) == 0);
  const UniqueFd gateways(fds[0]);
  UniqueFd workers(fds[1]);
  const int kinds[] = {small.fd(), bell.get(), stats.fd(), region.fd(), gateways.get()};
  for (int message = 0; message < 2; ++message) {
    // A good message, but for what the input has other than zeros, and its size.
    link::HandshakeMessage good;
    good.step = message == 0 ? link::HandshakeStep::kHello : link::HandshakeStep::kAccept;
    std::array<std::byte, 2 * sizeof(good)> text{};
    std::memcpy(text.data(), &good, sizeof(good));
    const size_t longer = input.Byte();
    const auto sent = std::span(text).first((sizeof(good) + longer) % text.size());
    const auto changes = input.Bytes(input.Byte() % text.size());
    for (size_t i = 0; i < changes.size(); ++i) text[i] ^= changes[i];
    int given[4];
    const size_t count = input.Byte() % std::size(given);
    for (size_t i = 0; i < count; ++i) given[i] = kinds[input.Byte() % std::size(kinds)];
    iovec part{sent.data(), sent.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(given))] = {};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    if (count > 0) {
      header.msg_control = control;
      header.msg_controllen = CMSG_SPACE(count * sizeof(int));
      cmsghdr* const first = CMSG_FIRSTHDR(&header);
      first->cmsg_level = SOL_SOCKET;
      first->cmsg_type = SCM_RIGHTS;
      first->cmsg_len = CMSG_LEN(count * sizeof(int));
      std::memcpy(CMSG_DATA(first), given, count * sizeof(int));
    }
    FUZZ_REQUIRE(::sendmsg(workers.get(), &header, MSG_NOSIGNAL) >= 0);
  }
  ::shutdown(workers.get(), SHUT_WR);
  link::GatewayPort* ports[] = {port.get()};
  const auto shaken = link::GatewayHandshake::Run(gateways.get(), ports, kRawPatience);
  if (!shaken.ok()) {
    FUZZ_REQUIRE(!shaken.status().message().empty());
    return;
  }
  FUZZ_REQUIRE(shaken->lanes.size() == 1);
  link::WorkerFrame frame;
  FUZZ_REQUIRE(!shaken->lanes.front()->Receive(&frame));
  (void)shaken->stats.Read();
  (void)shaken->stats.Executing();
}

}  // namespace
}  // namespace mindserve::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace mindserve::fuzz;
  Input input(data, size);
  switch (input.Byte() % 3) {
    case 0:
      RunAtGateway(input);
      break;
    case 1:
      RunAtWorker(input);
      break;
    default:
      RunHandshake(input);
      break;
  }
  return 0;
}
