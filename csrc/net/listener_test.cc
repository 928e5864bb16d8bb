#include "net/listener.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "net/socket.h"
#include "net/test_support.h"

namespace mindserve::net {
namespace {

using ::testing::AnyOf;
using testing::Connect;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::LogCapture;
using ::testing::SizeIs;
using ::testing::StartsWith;
using testing::TemporaryDirectory;
using ::testing::UnorderedElementsAre;

namespace fs = std::filesystem;

Address Host(const std::string& host, uint16_t port = 0) {
  Address address;
  address.host = host;
  address.port = port;
  return address;
}

Address Path(const fs::path& path) {
  Address address;
  address.unix_socket = true;
  address.path = path;
  return address;
}

std::unique_ptr<Listener> MustListen(const Address& address, const ListenOptions& options = {}) {
  auto listener = Listen(address, options);
  EXPECT_TRUE(listener.ok()) << listener.status().ToString();
  return listener.ok() ? std::move(*listener) : nullptr;
}

// Connects and hands out what was accepted.
UniqueFd AcceptOne(EventLoop& loop, Listener& listener) {
  UniqueFd accepted;
  const UniqueFd client = Connect(listener.address());
  EXPECT_TRUE(client) << std::strerror(errno);
  listener.Start(loop, [&](UniqueFd connection) {
    accepted = std::move(connection);
    loop.Stop();
  });
  loop.Run(nullptr);
  return accepted;
}

// A socket file that nobody listens on any more.
void LeaveStaleSocket(const fs::path& path) {
  const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, path.c_str());
  ASSERT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
}

std::vector<std::string> FilesIn(const fs::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) names.push_back(entry.path().filename());
  return names;
}

mode_t ModeOf(const fs::path& path) {
  struct stat found;
  EXPECT_EQ(::stat(path.c_str(), &found), 0);
  return found.st_mode & 07777;
}

TEST(ListenerTest, AcceptsOverIpv4AndNames) {
  EventLoop loop;
  for (const std::string& host : std::vector<std::string>{"127.0.0.1", "0.0.0.0", "localhost"}) {
    const auto listener = MustListen(Host(host));
    ASSERT_NE(listener, nullptr);
    EXPECT_EQ(listener->address().host, host);
    EXPECT_NE(listener->address().port, 0);
    const UniqueFd accepted = AcceptOne(loop, *listener);
    EXPECT_TRUE(::fcntl(accepted.get(), F_GETFL) & O_NONBLOCK);
    EXPECT_TRUE(::fcntl(accepted.get(), F_GETFD) & FD_CLOEXEC);
  }
}

TEST(ListenerTest, AcceptsOverIpv6) {
  EventLoop loop;
  for (const std::string& host : std::vector<std::string>{"::1", "::"}) {
    auto listener = Listen(Host(host), {});
    if (!listener.ok()) GTEST_SKIP() << listener.status().ToString();
    EXPECT_TRUE(AcceptOne(loop, **listener));
  }
}

// Whether this machine has ::1, and localhost is a name of it.
bool LocalhostHasIpv6() {
  if (!Listen(Host("::1"), {}).ok()) return false;
  addrinfo hints{};
  hints.ai_family = AF_INET6;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  if (::getaddrinfo("localhost", nullptr, &hints, &list) != 0) return false;
  bool found = false;
  for (const addrinfo* info = list; info != nullptr; info = info->ai_next) {
    sockaddr_in6 address;
    std::memcpy(&address, info->ai_addr, sizeof address);
    found = found || IN6_IS_ADDR_LOOPBACK(&address.sin6_addr);
  }
  ::freeaddrinfo(list);
  return found;
}

TEST(ListenerTest, NameListensOnAllItsAddresses) {
  if (!LocalhostHasIpv6()) GTEST_SKIP() << "localhost has no IPv6 address here";
  EventLoop loop;
  auto listener = MustListen(Host("localhost"));
  ASSERT_NE(listener, nullptr);
  const Address address = listener->address();
  EXPECT_EQ(address.host, "localhost");
  std::vector<std::string> peers;
  listener->Start(loop, [&](UniqueFd connection) {
    peers.push_back(PeerAddress(connection.get()));
    if (peers.size() == 2) loop.Stop();
  });
  const UniqueFd over_ipv4 = Connect(Host("127.0.0.1", address.port));
  const UniqueFd over_ipv6 = Connect(Host("::1", address.port));
  ASSERT_TRUE(over_ipv4 && over_ipv6);
  loop.Run(nullptr);
  EXPECT_THAT(peers, UnorderedElementsAre(StartsWith("ipv4:127.0.0.1:"), StartsWith("ipv6:[::1]:")));
  listener.reset();
  EXPECT_FALSE(Connect(Host("127.0.0.1", address.port)));
  EXPECT_FALSE(Connect(Host("::1", address.port)));
}

TEST(ListenerTest, PortInUseOnOneAddressOfANameIsAnError) {
  if (!LocalhostHasIpv6()) GTEST_SKIP() << "localhost has no IPv6 address here";
  const auto other = MustListen(Host("::1"));
  const Address taken = Host("localhost", other->address().port);
  const auto listener = Listen(taken, {});
  EXPECT_EQ(listener.status().code(), Code::kUnavailable);
  // Somebody else may have the port on 127.0.0.1 by chance.
  const std::string message = "address '" + taken.ToString() + "': Address already in use";
  EXPECT_THAT(listener.status().message(), AnyOf(message + " (at ::1)", message));
}

TEST(ListenerTest, PortInUseIsAnError) {
  const auto listener = MustListen(Host("127.0.0.1"));
  const uint16_t port = listener->address().port;
  for (const std::string& host : std::vector<std::string>{"127.0.0.1", "localhost", "0.0.0.0"}) {
    const auto second = Listen(Host(host, port), {});
    ASSERT_FALSE(second.ok()) << host;
    EXPECT_EQ(second.status().code(), Code::kUnavailable);
    EXPECT_EQ(second.status().message(), "address '" + host + ":" + std::to_string(port) + "': Address already in use");
  }
}

TEST(ListenerTest, PortIsFreeAgainAfterConnectionsWereServed) {
  EventLoop loop;
  auto listener = MustListen(Host("127.0.0.1"));
  const Address address = listener->address();
  AcceptOne(loop, *listener).reset();  // the server closes first: its side waits in TIME_WAIT
  listener.reset();
  EXPECT_TRUE(Listen(address, {}).ok());
}

TEST(ListenerTest, AddressesOfOthersAndUnknownNamesAreErrors) {
  const auto foreign = Listen(Host("192.0.2.1"), {});
  EXPECT_EQ(foreign.status().message(), "address '192.0.2.1:0': Cannot assign requested address");
  const auto unknown = Listen(Host("no-such-host.invalid"), {});
  EXPECT_THAT(unknown.status().message(), HasSubstr("looking up 'no-such-host.invalid': "));
}

TEST(ListenerTest, UnixSocketHasItsModeAndGoesWithTheListener) {
  EventLoop loop;
  const TemporaryDirectory directory;
  const fs::path path = directory.path() / "s";
  const mode_t umask_before = ::umask(0);
  for (const int mode : {0600, 0660, 0666}) {
    auto listener = MustListen(Path(path), {.unix_mode = mode});
    EXPECT_EQ(ModeOf(path), static_cast<mode_t>(mode));
    EXPECT_TRUE(AcceptOne(loop, *listener));
    EXPECT_THAT(FilesIn(directory.path()), SizeIs(1));
    listener.reset();
    EXPECT_THAT(FilesIn(directory.path()), IsEmpty());
  }
  ::umask(0077);
  const auto listener = MustListen(Path(path), {.unix_mode = 0666});
  EXPECT_EQ(ModeOf(path), 0666u);
  ::umask(umask_before);
}

TEST(ListenerTest, StaleUnixSocketIsReplaced) {
  EventLoop loop;
  const TemporaryDirectory directory;
  const fs::path path = directory.path() / "s";
  LeaveStaleSocket(path);
  const auto listener = MustListen(Path(path));
  ASSERT_NE(listener, nullptr);
  EXPECT_TRUE(AcceptOne(loop, *listener));
  EXPECT_THAT(FilesIn(directory.path()), SizeIs(1));
}

TEST(ListenerTest, LiveUnixSocketIsRefusedAndLeftAlone) {
  const TemporaryDirectory directory;
  const fs::path path = directory.path() / "s";
  const auto first = MustListen(Path(path));
  const auto second = Listen(Path(path), {});
  EXPECT_EQ(second.status().code(), Code::kUnavailable);
  EXPECT_EQ(second.status().message(),
            "address 'unix:" + path.string() + "': Address already in use (a server is listening on it)");
  EXPECT_THAT(FilesIn(directory.path()), SizeIs(1));
  EXPECT_TRUE(Connect(Path(path)));
}

TEST(ListenerTest, UnixSocketWithAFullBacklogIsLive) {
  const TemporaryDirectory directory;
  const fs::path path = directory.path() / "s";
  const auto first = MustListen(Path(path), {.backlog = 0});
  const UniqueFd waiting = Connect(Path(path));
  EXPECT_EQ(Listen(Path(path), {}).status().code(), Code::kUnavailable);
}

TEST(ListenerTest, FileThatIsNoSocketIsRefused) {
  const TemporaryDirectory directory;
  const fs::path file = directory.path() / "file";
  std::ofstream(file) << "precious";
  const fs::path link = directory.path() / "link";
  fs::create_symlink("elsewhere", link);
  const fs::path subdirectory = directory.path() / "directory";
  fs::create_directory(subdirectory);
  for (const fs::path& path : {file, link, subdirectory}) {
    const auto listener = Listen(Path(path), {});
    EXPECT_EQ(listener.status().code(), Code::kFailedPrecondition);
    EXPECT_EQ(listener.status().message(),
              "address 'unix:" + path.string() +
                  "': there is a file of this name that is no socket: move it away, or give another path");
  }
  EXPECT_THAT(FilesIn(directory.path()), SizeIs(3));
}

TEST(ListenerTest, MissingDirectoryAndLongPathsAreErrors) {
  const TemporaryDirectory directory;
  const auto missing = Listen(Path(directory.path() / "none" / "s"), {});
  EXPECT_EQ(missing.status().code(), Code::kNotFound);
  EXPECT_THAT(missing.status().message(), HasSubstr("none': No such file or directory"));
  const auto too_long = Listen(Path(std::string(200, 'a')), {});
  EXPECT_THAT(too_long.status().message(), HasSubstr("has 200 bytes, at most 107 are possible"));
}

TEST(ListenerTest, LongestPathWorks) {
  EventLoop loop;
  const TemporaryDirectory directory;
  // The name for a moment is longer than this one.
  const std::string base = directory.path() / "";
  const fs::path path = base + std::string(105 - base.size() - 2, 'd') + "/s";
  fs::create_directory(path.parent_path());
  const auto listener = MustListen(Path(path));
  ASSERT_NE(listener, nullptr);
  EXPECT_TRUE(AcceptOne(loop, *listener));
}

TEST(ListenerTest, RelativePathIsRemovedWhereverTheWorkingDirectoryIsThen) {
  const TemporaryDirectory directory;
  const fs::path before = fs::current_path();
  fs::current_path(directory.path());
  auto listener = MustListen(Path("s"));
  fs::current_path(before);
  EXPECT_THAT(FilesIn(directory.path()), SizeIs(1));
  listener.reset();
  EXPECT_THAT(FilesIn(directory.path()), IsEmpty());
}

TEST(ListenerTest, SocketFileOfASuccessorIsLeftAlone) {
  const TemporaryDirectory directory;
  const fs::path path = directory.path() / "s";
  auto first = MustListen(Path(path));
  fs::remove(path);
  const auto second = MustListen(Path(path));
  first.reset();
  EXPECT_TRUE(Connect(Path(path)));
}

// What another process would get.
SharedSockets MustShare(const Listener& listener) {
  auto shared = listener.Share();
  EXPECT_TRUE(shared.ok()) << shared.status().ToString();
  return shared.ok() ? std::move(*shared) : SharedSockets{};
}

TEST(ListenerTest, SharedSocketsAreAdopted) {
  EventLoop loop;
  const TemporaryDirectory directory;
  for (const Address& address : {Host("127.0.0.1"), Host("localhost"), Path(directory.path() / "s")}) {
    auto first = MustListen(address);
    const Address bound = first->address();
    auto adopted = Adopt(address, {}, MustShare(*first));
    ASSERT_TRUE(adopted.ok()) << adopted.status().ToString();
    EXPECT_EQ((*adopted)->address().ToString(), bound.ToString());
    // What came before is waiting in the queue that they have in common.
    const UniqueFd early = Connect(bound);
    first->Disown();
    first.reset();
    EXPECT_TRUE(AcceptOne(loop, **adopted)) << bound.ToString();
  }
}

TEST(ListenerTest, AUnixSocketsFilePassesOnWhenItsNewOwnerStarts) {
  EventLoop loop;
  const TemporaryDirectory directory;
  const Address address = Path(directory.path() / "s");
  auto first = MustListen(address, {.unix_mode = 0600});
  {
    const auto never_started = Adopt(address, {.unix_mode = 0660}, MustShare(*first));
    ASSERT_TRUE(never_started.ok());
    EXPECT_EQ(ModeOf(address.path), 0600u);
  }
  EXPECT_TRUE(Connect(address)) << "the file is still its first owner's";
  auto second = Adopt(address, {.unix_mode = 0660}, MustShare(*first));
  ASSERT_TRUE(second.ok());
  EXPECT_TRUE(AcceptOne(loop, **second));
  EXPECT_EQ(ModeOf(address.path), 0660u);
  first->Disown();
  first.reset();
  EXPECT_TRUE(Connect(address));
  second->reset();
  EXPECT_THAT(FilesIn(directory.path()), IsEmpty());
}

TEST(ListenerTest, AnAdoptedUnixSocketWithoutItsFileIsMadeAnew) {
  EventLoop loop;
  const TemporaryDirectory directory;
  const Address address = Path(directory.path() / "s");
  auto first = MustListen(address);
  fs::remove(address.path);
  auto second = Adopt(address, {}, MustShare(*first));
  ASSERT_TRUE(second.ok()) << second.status().ToString();
  first.reset();
  EXPECT_TRUE(AcceptOne(loop, **second));
}

TEST(ListenerTest, OnlyListeningSocketsOfTheKindAreAdopted) {
  const TemporaryDirectory directory;
  const auto path = MustListen(Path(directory.path() / "s"));
  const auto port = MustListen(Host("127.0.0.1"));
  SharedSockets connection;
  connection.sockets.push_back(Connect(port->address()));
  SharedSockets closed;
  closed.sockets.emplace_back();
  for (auto& [address, wrong] : std::vector<std::pair<Address, SharedSockets*>>{{Host("127.0.0.1"), &connection},
                                                                                {Host("127.0.0.1"), &closed}}) {
    EXPECT_EQ(Adopt(address, {}, std::move(*wrong)).status().code(), Code::kInvalidArgument);
  }
  EXPECT_EQ(Adopt(Host("127.0.0.1"), {}, MustShare(*path)).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(Adopt(Path(directory.path() / "s"), {}, MustShare(*port)).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(Adopt(Host("127.0.0.1"), {}, {}).status().code(), Code::kInvalidArgument);
}

// Closing one's own descriptor of a socket that another process has too does not by itself end the watch over it.
TEST(ListenerTest, NothingIsAcceptedAfterTheEndWhileAnotherListens) {
  EventLoop loop;
  auto first = MustListen(Host("127.0.0.1"));
  auto second = Adopt(first->address(), {}, MustShare(*first));
  ASSERT_TRUE(second.ok());
  first->Start(loop, [](UniqueFd) { ADD_FAILURE() << "it has gone"; });
  const Address address = first->address();
  first.reset();
  const UniqueFd client = Connect(address);
  const auto timer = loop.NewTimer();
  timer->Start(Clock::now(), [&] { loop.Stop(); });
  loop.Run(nullptr);
  EXPECT_TRUE(AcceptOne(loop, **second));
}

TEST(ListenerTest, HandlerMayDestroyTheListener) {
  EventLoop loop;
  auto listener = MustListen(Host("127.0.0.1"));
  const UniqueFd client1 = Connect(listener->address());
  const UniqueFd client2 = Connect(listener->address());
  int accepted = 0;
  listener->Start(loop, [&](UniqueFd /*connection*/) {
    ++accepted;
    listener.reset();
    loop.Post([&] { loop.Stop(); });
  });
  loop.Run(nullptr);
  EXPECT_EQ(accepted, 1);
}

TEST(ListenerTest, TakesABurstOfConnections) {
  constexpr int kClients = 200;
  EventLoop loop;
  const auto listener = MustListen(Host("127.0.0.1"));
  std::vector<UniqueFd> clients;
  for (int i = 0; i < kClients; ++i) clients.push_back(Connect(listener->address()));
  int accepted = 0;
  listener->Start(loop, [&](UniqueFd /*connection*/) {
    if (++accepted == kClients) loop.Stop();
  });
  loop.Run(nullptr);
  EXPECT_EQ(accepted, kClients);
}

// Calls a function at the end of each round.
class EachRound final : public RoundHooks {
 public:
  explicit EachRound(std::function<void()> call) : call_(std::move(call)) {}
  void RoundEnd() override { call_(); }
  bool PrepareSleep() override { return true; }
  void Awake() override {}

 private:
  std::function<void()> call_;
};

TEST(ListenerTest, WaitsWhileNothingCanBeAcceptedAndSaysSoOnce) {
  const LogCapture log;
  EventLoop loop;
  const auto listener = MustListen(Host("127.0.0.1"));
  // Accepting fails now, as it does without descriptors (which the sanitizers need themselves), though the socket is
  // ready.
  ASSERT_EQ(::shutdown(listener->fd(), SHUT_RD), 0);
  bool accepted = false;
  listener->Start(loop, [&](UniqueFd connection) {
    accepted = static_cast<bool>(connection);
    loop.Stop();
  });
  UniqueFd client;
  int rounds = 0;
  // Each round is a failed try, since nothing else is going on; after three it works again.
  EachRound hooks([&] {
    if (++rounds == 3) {
      EXPECT_EQ(::listen(listener->fd(), 10), 0);
      sockaddr_in now{};  // the port that nobody asked for has changed
      socklen_t size = sizeof now;
      EXPECT_EQ(::getsockname(listener->fd(), reinterpret_cast<sockaddr*>(&now), &size), 0);
      client = Connect(Host("127.0.0.1", ntohs(now.sin_port)));
      if (!client) loop.Stop();
    }
  });
  loop.Run(&hooks);
  EXPECT_TRUE(accepted);
  EXPECT_LE(rounds, 5);
  EXPECT_THAT(log.lines(), ElementsAre("connections to " + listener->address().ToString() +
                                       " have to wait: accept: Invalid argument"));
}

}  // namespace
}  // namespace mindserve::net
