#include "link/handshake.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>

namespace mindserve::link {
namespace {

constexpr size_t kMaxFds = 3;

Status SocketError(const char* what) {
  return {Code::kUnavailable, std::string("link handshake: ") + what + ": " + std::strerror(errno)};
}

Status Await(int socket, short events, Deadline deadline) {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Deadline::clock::now()).count();
    if (left <= 0) return {Code::kDeadlineExceeded, "link handshake: the other end did not answer in time"};
    pollfd waiting{socket, events, 0};
    const int ready = ::poll(&waiting, 1, static_cast<int>(std::min<int64_t>(left, 60'000)));
    if (ready > 0) return Status::Ok();
    if (ready < 0 && errno != EINTR) return SocketError("poll");
  }
}

}  // namespace

Status SendHandshake(int socket, const HandshakeMessage& message, std::span<const int> fds, Deadline deadline) {
  HandshakeMessage copy = message;
  iovec part{&copy, sizeof(copy)};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMaxFds * sizeof(int))> control{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = CMSG_SPACE(fds.size_bytes());
  cmsghdr* rights = CMSG_FIRSTHDR(&header);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(fds.size_bytes());
  std::memcpy(CMSG_DATA(rights), fds.data(), fds.size_bytes());
  while (true) {
    MS_RETURN_IF_ERROR(Await(socket, POLLOUT, deadline));
    const ssize_t sent = ::sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent == static_cast<ssize_t>(sizeof(copy))) return Status::Ok();
    if (sent >= 0) return {Code::kInternal, "link handshake: a message of 24 bytes was cut"};
    if (errno != EAGAIN && errno != EINTR) return SocketError("sendmsg");
  }
}

Result<HandshakeMessage> ReceiveHandshake(int socket, HandshakeStep step, std::span<UniqueFd> fds, Deadline deadline) {
  HandshakeMessage message;
  iovec part{&message, sizeof(message)};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMaxFds * sizeof(int))> control{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  ssize_t received = -1;
  while (received < 0) {
    MS_RETURN_IF_ERROR(Await(socket, POLLIN, deadline));
    received = ::recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (received < 0 && errno != EAGAIN && errno != EINTR) return SocketError("recvmsg");
  }
  // Whatever descriptors came are owned from here on, so that none leaks on a bad message.
  size_t count = 0;
  std::array<UniqueFd, kMaxFds> came;
  for (cmsghdr* rights = CMSG_FIRSTHDR(&header); rights != nullptr; rights = CMSG_NXTHDR(&header, rights)) {
    if (rights->cmsg_level != SOL_SOCKET || rights->cmsg_type != SCM_RIGHTS) continue;
    const size_t size = rights->cmsg_len - CMSG_LEN(0);
    for (size_t at = 0; at + sizeof(int) <= size; at += sizeof(int)) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(rights) + at, sizeof(fd));
      UniqueFd owned(fd);
      if (count < kMaxFds) came[count++] = std::move(owned);
    }
  }
  if (received == 0) return Status(Code::kUnavailable, "link handshake: the other end is gone");
  if (received != static_cast<ssize_t>(sizeof(message)) || message.magic != kLinkMagic) {
    return Status(Code::kInvalidArgument, "link handshake: the other end does not speak this protocol");
  }
  if (message.version != kLinkVersion || message.ring_frames != kRingFrames) {
    return Status(Code::kFailedPrecondition,
                  "link handshake: the other end has link version " + std::to_string(message.version) + ", this one " +
                      std::to_string(kLinkVersion) + ": they are of different installations");
  }
  if ((header.msg_flags & MSG_CTRUNC) != 0 && count < fds.size()) {
    // The kernel hands over what there is room for, and says nothing else.
    return Status(Code::kResourceExhausted,
                  std::string("link handshake: ") + std::strerror(EMFILE) +
                      " to take those that it passes on: raise RLIMIT_NOFILE (ulimit -n, LimitNOFILE=)");
  }
  if (message.step != step || count != fds.size()) {
    return Status(Code::kInvalidArgument,
                  "link handshake: step " + std::to_string(static_cast<uint32_t>(step)) + " with " +
                      std::to_string(fds.size()) + " descriptors expected, given step " +
                      std::to_string(static_cast<uint32_t>(message.step)) + " with " + std::to_string(count));
  }
  std::move(came.begin(), came.begin() + static_cast<ptrdiff_t>(count), fds.begin());
  return message;
}

Result<UniqueFd> NewBell() {
  UniqueFd bell(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!bell) return Status(Code::kResourceExhausted, std::string("eventfd: ") + std::strerror(errno));
  return bell;
}

Status CheckBell(int fd) {
  std::array<char, 64> target{};
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t length = ::readlink(path.c_str(), target.data(), target.size() - 1);
  if (length < 0 || std::string_view(target.data()) != "anon_inode:[eventfd]") {
    return {Code::kInvalidArgument, "link handshake: a descriptor given as a bell is no eventfd"};
  }
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) return SocketError("fcntl");
  return Status::Ok();
}

void EmptyBell(int fd) {
  eventfd_t count = 0;
  [[maybe_unused]] const int failed = ::eventfd_read(fd, &count);  // EAGAIN: it was empty
}

}  // namespace mindserve::link
