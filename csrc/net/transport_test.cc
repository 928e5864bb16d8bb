#include "net/transport.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <array>
#include <string>
#include <thread>
#include <vector>

#include "net/listener.h"
#include "net/test_support.h"

namespace mindserve::net {
namespace {

using testing::Connect;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using testing::Pattern;
using testing::Pumped;
using testing::ReadAll;
using testing::Serve;
using testing::SocketPair;
using testing::TcpPair;

void SendAll(int fd, const std::string& bytes) {
  for (size_t sent = 0; sent < bytes.size();) {
    const ssize_t n = ::send(fd, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    ASSERT_GT(n, 0);
    sent += static_cast<size_t>(n);
  }
}

iovec Part(const std::string& text) {
  return {const_cast<char*>(text.data()), text.size()};
}

TEST(PlainTransportTest, CarriesMuchBothWaysThroughSmallBuffers) {
  const std::string request = Pattern(3'000'000);
  const std::string reply = Pattern(2'000'003);
  auto [client, server] = TcpPair(/*small_buffers=*/true);
  std::string received;
  const Pumped pumped = Serve(std::move(server), nullptr, reply, request.size(), [&, fd = client.get()] {
    std::thread sender([&] { SendAll(fd, request); });
    received = ReadAll(fd);
    sender.join();
  });
  EXPECT_TRUE(pumped.handshake.ok());
  EXPECT_EQ(pumped.error, "");
  EXPECT_TRUE(pumped.received == request);
  EXPECT_TRUE(received == reply);
  EXPECT_FALSE(pumped.peer.tls);
}

TEST(PlainTransportTest, ReadTellsNothingNowDataAndTheEnd) {
  EventLoop loop;
  auto [client, server] = SocketPair();
  const auto transport = NewTransport(loop, std::move(server), nullptr);
  std::array<std::byte, 16> buffer;
  EXPECT_EQ(transport->Read(buffer).kind, IoResult::Kind::kAgain);
  SendAll(client.get(), "hello");
  const IoResult empty = transport->Read({});
  EXPECT_EQ(empty.kind, IoResult::Kind::kDone);
  EXPECT_EQ(empty.bytes, 0u);
  const IoResult data = transport->Read(buffer);
  EXPECT_EQ(data.kind, IoResult::Kind::kDone);
  EXPECT_EQ(data.bytes, 5u);
  client.reset();
  EXPECT_EQ(transport->Read(buffer).kind, IoResult::Kind::kEof);
}

TEST(PlainTransportTest, WriteToAClosedConnectionIsAnErrorAndNoSignal) {
  EventLoop loop;
  auto [client, server] = SocketPair();
  const auto transport = NewTransport(loop, std::move(server), nullptr);
  client.reset();
  const std::string text = "hello";
  const iovec part = Part(text);
  const IoResult result = transport->Write({&part, 1});
  EXPECT_EQ(result.kind, IoResult::Kind::kError);
  EXPECT_EQ(result.error, "writing: Broken pipe");
}

TEST(PlainTransportTest, ResetIsAnError) {
  EventLoop loop;
  auto [client, server] = TcpPair();
  const auto transport = NewTransport(loop, std::move(server), nullptr);
  const linger at_once{1, 0};
  ::setsockopt(client.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  client.reset();
  std::array<std::byte, 16> buffer;
  IoResult result;
  transport->AwaitReadable([&] {
    result = transport->Read(buffer);
    loop.Stop();
  });
  loop.Run(nullptr);
  EXPECT_EQ(result.kind, IoResult::Kind::kError);
  EXPECT_EQ(result.error, "reading: Connection reset by peer");
}

TEST(PlainTransportTest, WritesMorePartsThanOneSystemCallTakes) {
  EventLoop loop;
  auto [client, server] = SocketPair();
  const auto transport = NewTransport(loop, std::move(server), nullptr);
  const std::string text = Pattern(3000);
  std::vector<iovec> parts;
  for (size_t i = 0; i < text.size(); ++i) parts.push_back({const_cast<char*>(text.data()) + i, 1});
  for (size_t sent = 0; sent < text.size();) {
    const IoResult result = transport->Write(std::span(parts).subspan(sent));
    ASSERT_EQ(result.kind, IoResult::Kind::kDone);
    sent += result.bytes;
  }
  transport->Shutdown();
  EXPECT_EQ(ReadAll(client.get()), text);
}

TEST(TransportTest, NamesThePeerAsGrpcDoes) {
  EventLoop loop;
  auto [client, server] = TcpPair();
  sockaddr_in own{};
  socklen_t size = sizeof own;
  ASSERT_EQ(::getsockname(client.get(), reinterpret_cast<sockaddr*>(&own), &size), 0);
  const auto transport = NewTransport(loop, std::move(server), nullptr);
  EXPECT_EQ(transport->peer().address, "ipv4:127.0.0.1:" + std::to_string(ntohs(own.sin_port)));

  auto [unix_client, unix_server] = SocketPair();
  EXPECT_EQ(NewTransport(loop, std::move(unix_server), nullptr)->peer().address, "unix:");
}

int Option(int fd, int level, int name) {
  int value = -1;
  socklen_t size = sizeof value;
  EXPECT_EQ(::getsockopt(fd, level, name, &value, &size), 0);
  return value;
}

TEST(TransportTest, TcpDoesNotDelayAndNoticesAPeerThatIsGone) {
  EventLoop loop;
  auto [client, server] = TcpPair();
  const int fd = server.get();
  const auto transport = NewTransport(loop, std::move(server), nullptr);
  EXPECT_NE(Option(fd, IPPROTO_TCP, TCP_NODELAY), 0);
  EXPECT_NE(Option(fd, SOL_SOCKET, SO_KEEPALIVE), 0);
  EXPECT_EQ(Option(fd, IPPROTO_TCP, TCP_KEEPIDLE), 60);
  EXPECT_EQ(Option(fd, IPPROTO_TCP, TCP_KEEPINTVL), 15);
  EXPECT_EQ(Option(fd, IPPROTO_TCP, TCP_KEEPCNT), 4);
  EXPECT_EQ(Option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 120'000);
}

// The peer as a listener on `host` sees a client that connects to `from`.
std::string PeerOf(const std::string& host, const std::string& from) {
  Address address;
  address.host = host;
  auto listener = Listen(address, {});
  if (!listener.ok()) return "";
  EventLoop loop;
  std::string peer;
  Address to = (*listener)->address();
  to.host = from;
  const UniqueFd client = Connect(to);
  (*listener)->Start(loop, [&](UniqueFd connection) {
    peer = NewTransport(loop, std::move(connection), nullptr)->peer().address;
    loop.Stop();
  });
  if (client) loop.Run(nullptr);
  return peer;
}

TEST(TransportTest, NamesIpv6Peers) {
  const std::string peer = PeerOf("::1", "::1");
  if (peer.empty()) GTEST_SKIP() << "no IPv6 here";
  EXPECT_THAT(peer, MatchesRegex("ipv6:\\[::1\\]:[0-9]+"));
  EXPECT_THAT(PeerOf("::", "127.0.0.1"), MatchesRegex("ipv4:127\\.0\\.0\\.1:[0-9]+"));
}

}  // namespace
}  // namespace mindserve::net
