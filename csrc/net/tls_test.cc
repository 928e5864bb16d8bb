#include "net/tls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "net/test_support.h"
#include "net/test_tls_client.h"
#include "net/tls_context.h"
#include "net/transport.h"

namespace mindserve::net {
namespace {

using ::testing::AnyOf;
using testing::CertificateVersion;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Identity;
using testing::Issue;
using testing::IssueWithNames;
using testing::LoopThread;
using testing::MakeAuthority;
using ::testing::Pair;
using testing::Pattern;
using testing::Pumped;
using testing::ReadAll;
using testing::Serve;
using ::testing::StartsWith;
using testing::TcpPair;
using testing::TemporaryDirectory;
using testing::TlsClient;
using testing::TlsClientOptions;
using testing::Validity;

// Made once: keys take a while.
class TlsTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    authority_ = new Identity(MakeAuthority("Root"));
    server_ = new Identity(Issue(*authority_, "localhost"));
    client_ = new Identity(Issue(*authority_, "client"));
  }
  static void TearDownTestSuite() {
    delete authority_;
    delete server_;
    delete client_;
  }

  static TlsOptions OneWay() { return {server_->certificate, server_->key, "", false}; }
  static TlsOptions Mutual() { return {server_->certificate, server_->key, authority_->certificate, true}; }
  static TlsClientOptions Trusting() { return {.authority = authority_->certificate, .identity = {}}; }
  static TlsClientOptions Identified() { return {.authority = authority_->certificate, .identity = *client_}; }

  static std::shared_ptr<const TlsContext> Context(const TlsOptions& options) {
    auto context = TlsContext::Create(options);
    EXPECT_TRUE(context.ok()) << context.status().ToString();
    return context.ok() ? *context : nullptr;
  }

  // What the server says to a client, which writes what it hears of it to `heard`.
  static Pumped Meet(const TlsOptions& server_options, const TlsClientOptions& client_options,
                     std::string* heard = nullptr) {
    auto [client_socket, server_socket] = TcpPair();
    TlsClient client(std::move(client_socket), client_options);
    return Serve(std::move(server_socket), Context(server_options), "hello", 0, [&] {
      std::string greeting;
      std::string problem = client.Connect();
      if (problem.empty()) problem = client.ReadToEnd(&greeting);
      if (heard != nullptr) *heard = problem.empty() ? greeting : problem;
    });
  }

  static std::string Refusal(const TlsOptions& options) {
    const auto context = TlsContext::Create(options);
    if (context.ok()) return "";
    EXPECT_EQ(context.status().code(), Code::kInvalidArgument);
    return context.status().message();
  }

  static Identity* authority_;
  static Identity* server_;
  static Identity* client_;
};

Identity* TlsTest::authority_ = nullptr;
Identity* TlsTest::server_ = nullptr;
Identity* TlsTest::client_ = nullptr;

TEST_F(TlsTest, OneWayWithVersion1Certificates) {
  std::string heard;
  const Pumped pumped = Meet(OneWay(), Trusting(), &heard);
  EXPECT_TRUE(pumped.handshake.ok()) << pumped.handshake.ToString();
  EXPECT_TRUE(pumped.peer.tls);
  EXPECT_THAT(pumped.peer.address, StartsWith("ipv4:127.0.0.1:"));
  EXPECT_EQ(pumped.peer.subject, "");
  EXPECT_EQ(heard, "hello");
}

TEST_F(TlsTest, MutualTellsTheClientsName) {
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsClientOptions options = Identified();
    options.max_version = version;
    std::string heard;
    const Pumped pumped = Meet(Mutual(), options, &heard);
    EXPECT_TRUE(pumped.handshake.ok()) << pumped.handshake.ToString();
    EXPECT_EQ(pumped.peer.subject, "client");
    EXPECT_EQ(heard, "hello");
  }
}

TEST_F(TlsTest, AClientsCertificateIsToldAsGrpcDoes) {
  TlsClientOptions options = Identified();
  options.identity =
      IssueWithNames(*authority_, "client", "DNS:a.example,IP:127.0.0.1,IP:::1,URI:spiffe://x/y,email:a@b.c");
  const Pumped pumped = Meet(Mutual(), options);
  EXPECT_TRUE(pumped.handshake.ok()) << pumped.handshake.ToString();
  EXPECT_THAT(
      pumped.auth,
      ElementsAre(Pair("transport_security_type", "ssl"), Pair("x509_common_name", "client"),
                  Pair("x509_subject_alternative_name", "a.example"),
                  Pair("x509_subject_alternative_name", "127.0.0.1"), Pair("x509_subject_alternative_name", "::1"),
                  Pair("x509_subject_alternative_name", "spiffe://x/y"), Pair("x509_subject_alternative_name", "a@b.c"),
                  Pair("x509_pem_cert", options.identity.certificate)));
  EXPECT_THAT(Meet(OneWay(), Trusting()).auth, ElementsAre(Pair("transport_security_type", "ssl")));
  auto [ours, theirs] = TcpPair();
  EventLoop loop;
  EXPECT_TRUE(NewTransport(loop, std::move(theirs), nullptr)->auth().empty());
}

TEST_F(TlsTest, NamesThatNoLogLineCouldShowAreNone) {
  TlsClientOptions options = Identified();
  options.identity = Issue(*authority_, "evil\nclient");
  const Pumped pumped = Meet(Mutual(), options);
  EXPECT_TRUE(pumped.handshake.ok()) << pumped.handshake.ToString();
  EXPECT_EQ(pumped.peer.subject, "");
}

TEST_F(TlsTest, ClientCertificateWithoutVerificationIsNotAskedFor) {
  TlsOptions options = OneWay();
  options.client_ca = "is ignored";
  const Pumped pumped = Meet(options, Identified());
  EXPECT_TRUE(pumped.handshake.ok());
  EXPECT_EQ(pumped.peer.subject, "");
}

TEST_F(TlsTest, ResumedSessionStillTellsTheClientsName) {
  const auto context = Context(Mutual());
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    SSL_SESSION* session = nullptr;
    for (const bool resumed : {false, true}) {
      TlsClientOptions options = Identified();
      options.max_version = version;
      options.session = session;
      auto [client_socket, server_socket] = TcpPair();
      TlsClient client(std::move(client_socket), options);
      const Pumped pumped = Serve(std::move(server_socket), context, "hello", 0, [&] {
        std::string heard;
        ASSERT_EQ(client.Connect(), "");
        ASSERT_EQ(client.ReadToEnd(&heard), "");  // the tickets come before the text
      });
      EXPECT_EQ(SSL_session_reused(client.ssl()) == 1, resumed);
      EXPECT_EQ(pumped.peer.subject, "client");
      if (!resumed) session = SSL_get1_session(client.ssl());
      client.SayGoodbye();  // a session that was cut off is not resumed
    }
    SSL_SESSION_free(session);
  }
}

TEST_F(TlsTest, AuthorityOfVersion1Works) {
  const Identity authority = MakeAuthority("Old root", CertificateVersion::k1);
  const Identity server = Issue(authority, "localhost");
  std::string heard;
  const Pumped pumped = Meet({server.certificate, server.key, authority.certificate, true},
                             {.authority = authority.certificate, .identity = Issue(authority, "client")}, &heard);
  EXPECT_EQ(pumped.peer.subject, "client") << pumped.handshake.ToString();
  EXPECT_EQ(heard, "hello");
}

TEST_F(TlsTest, ClientWithoutCertificateIsRefused) {
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsClientOptions options = Trusting();
    options.max_version = version;
    std::string heard;
    const Pumped pumped = Meet(Mutual(), options, &heard);
    EXPECT_EQ(pumped.handshake,
              Status(Code::kUnauthenticated, "TLS handshake: the client sent no certificate, and one is required"));
    EXPECT_THAT(heard, HasSubstr("alert"));
  }
}

TEST_F(TlsTest, ClientOfAnotherAuthorityIsRefused) {
  const Identity other = MakeAuthority("Other");
  TlsClientOptions options = Identified();
  options.identity = Issue(other, "client");
  const Pumped pumped = Meet(Mutual(), options);
  EXPECT_EQ(pumped.handshake.code(), Code::kUnauthenticated);
  EXPECT_THAT(pumped.handshake.message(),
              HasSubstr("the client's certificate is refused: unable to get local issuer certificate"));
}

TEST_F(TlsTest, ExpiredClientCertificateIsRefused) {
  TlsClientOptions options = Identified();
  options.identity = Issue(*authority_, "client", Validity::kExpired);
  const Pumped pumped = Meet(Mutual(), options);
  EXPECT_THAT(pumped.handshake.message(), HasSubstr("the client's certificate is refused: certificate has expired"));
}

TEST_F(TlsTest, ServerThatTheClientDoesNotTrustHearsWhy) {
  TlsClientOptions options = Trusting();
  options.authority = MakeAuthority("Other").certificate;
  const Pumped pumped = Meet(OneWay(), options);
  EXPECT_EQ(pumped.handshake.code(), Code::kUnauthenticated);
  EXPECT_THAT(pumped.handshake.message(), HasSubstr("the client refused: "));
  EXPECT_THAT(pumped.handshake.message(), HasSubstr("unknown ca"));
}

TEST_F(TlsTest, ClientThatDoesNotOfferHttp2IsRefusedWithItsAlert) {
  for (const std::string& alpn : {std::string(), std::string("\x08http/1.1")}) {
    for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
      TlsClientOptions options = Trusting();
      options.alpn = alpn;
      options.max_version = version;
      std::string heard;
      const Pumped pumped = Meet(OneWay(), options, &heard);
      EXPECT_EQ(pumped.handshake,
                Status(Code::kUnauthenticated, "TLS handshake: the client does not offer HTTP/2 (ALPN \"h2\")"));
      EXPECT_THAT(heard, HasSubstr("no application protocol"));
    }
  }
}

TEST_F(TlsTest, OldProtocolsAreRefused) {
  TlsClientOptions options = Trusting();
  options.max_version = TLS1_1_VERSION;
  const Pumped pumped = Meet(OneWay(), options);
  EXPECT_EQ(pumped.handshake.code(), Code::kUnauthenticated);
}

TEST_F(TlsTest, PlaintextClientIsToldApart) {
  struct Case {
    std::string said;
    std::string message;
  };
  for (const Case& c :
       {Case{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
             "TLS handshake: a plaintext HTTP/2 client connected to a TLS port; it has to use TLS"},
        Case{"GET / HTTP/1.1\r\n\r\n",
             "TLS handshake: a client that does not speak TLS connected to a TLS port; it has to use TLS"}}) {
    auto [client, server] = TcpPair();
    const Pumped pumped = Serve(std::move(server), Context(OneWay()), "", 0, [&, fd = client.get()] {
      ASSERT_EQ(::send(fd, c.said.data(), c.said.size(), MSG_NOSIGNAL), static_cast<ssize_t>(c.said.size()));
      ReadAll(fd);
    });
    EXPECT_EQ(pumped.handshake, Status(Code::kUnauthenticated, c.message));
  }
}

TEST_F(TlsTest, ClientThatLeavesDuringTheHandshake) {
  auto [client, server] = TcpPair();
  const Pumped pumped = Serve(std::move(server), Context(OneWay()), "", 0, [&client = client] { client.reset(); });
  EXPECT_EQ(pumped.handshake, Status(Code::kUnavailable, "TLS handshake: the client closed the connection"));
}

TEST_F(TlsTest, CarriesMuchBothWaysThroughSmallBuffersAndKeyChanges) {
  const std::string request = Pattern(600'000);
  const std::string reply = Pattern(500'003);
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    auto [client_socket, server_socket] = TcpPair(/*small_buffers=*/true);
    TlsClientOptions options = Trusting();
    options.max_version = version;
    TlsClient client(std::move(client_socket), options);
    std::string received;
    const Pumped pumped = Serve(std::move(server_socket), Context(OneWay()), reply, request.size(), [&] {
      ASSERT_EQ(client.Connect(), "");
      received = client.Exchange(request);
    });
    EXPECT_EQ(pumped.error, "");
    EXPECT_TRUE(pumped.received == request);
    EXPECT_EQ(received.size(), reply.size()) << received.substr(0, 200);
    EXPECT_TRUE(received == reply);
  }
}

TEST_F(TlsTest, KeyChangesAreAnsweredWhileARecordWaits) {
  const std::string reply = Pattern(1'000'003);
  auto [client_socket, server_socket] = TcpPair(/*small_buffers=*/true);
  TlsClient client(std::move(client_socket), Trusting());
  std::string received;
  const Pumped pumped = Serve(std::move(server_socket), Context(OneWay()), reply, 3, [&] {
    // All comes with the end of the handshake, after which the server sends until it has to wait, and then reads.
    const int one = 1;
    ::setsockopt(client.fd(), IPPROTO_TCP, TCP_CORK, &one, sizeof one);
    ASSERT_EQ(client.Connect(), "");
    for (const char* text : {"a", "b", "c"}) ASSERT_TRUE(client.WriteWithNewKey(text));
    const int zero = 0;
    ::setsockopt(client.fd(), IPPROTO_TCP, TCP_CORK, &zero, sizeof zero);
    client.ReadToEnd(&received);  // a goodbye that finds the socket full is lost
  });
  EXPECT_EQ(pumped.error, "");
  EXPECT_EQ(pumped.received, "abc");
  EXPECT_TRUE(received == reply);
}

TEST_F(TlsTest, AnswersToKeyChangesWaitForAClientThatDoesNotRead) {
  constexpr int kChanges = 99;
  const std::string reply = Pattern(200'003);
  auto [client_socket, server_socket] = TcpPair(/*small_buffers=*/true);
  // Has room for all that the client sends, whether the server reads or not.
  const int large = 200'000;
  ::setsockopt(client_socket.get(), SOL_SOCKET, SO_SNDBUF, &large, sizeof large);
  TlsClient client(std::move(client_socket), Trusting());
  std::string received;
  const Pumped pumped = Serve(std::move(server_socket), Context(OneWay()), reply, kChanges, [&] {
    ASSERT_EQ(client.Connect(), "");
    for (int i = 0; i < kChanges; ++i) ASSERT_TRUE(client.WriteWithNewKey("x"));
    client.ReadToEnd(&received);  // a goodbye that finds the socket full is lost
  });
  EXPECT_EQ(pumped.error, "");
  EXPECT_EQ(pumped.received, std::string(kChanges, 'x'));
  EXPECT_TRUE(received == reply);
}

TEST_F(TlsTest, ChangesOfKeysWithoutEndAreRefused) {
  auto [client_socket, server_socket] = TcpPair();
  TlsClient client(std::move(client_socket), Trusting());
  const Pumped pumped = Serve(std::move(server_socket), Context(OneWay()), "", 1, [&] {
    ASSERT_EQ(client.Connect(), "");
    // With no data between them OpenSSL reads on by itself.
    for (int i = 0; i < 100'000 && client.ChangeKey(); ++i) continue;
    std::string nothing;
    client.ReadToEnd(&nothing);
  });
  EXPECT_EQ(pumped.error, "TLS: more than 100 changes of keys, alerts and the like came within a second");
  EXPECT_TRUE(pumped.refused);
}

TEST_F(TlsTest, ReadsOfSmallRecordsLeaveTurnsToOthers) {
  constexpr int kRecords = 2000;
  auto [client_socket, server_socket] = TcpPair();
  TlsClient client(std::move(client_socket), Trusting());
  const Pumped pumped = Serve(std::move(server_socket), Context(OneWay()), "", kRecords, [&] {
    ASSERT_EQ(client.Connect(), "");
    for (int i = 0; i < kRecords; ++i) ASSERT_TRUE(client.Write("x"));
    std::string nothing;
    client.ReadToEnd(&nothing);
  });
  EXPECT_EQ(pumped.received, std::string(kRecords, 'x'));
  EXPECT_LE(pumped.largest_read, 64u);
}

TEST_F(TlsTest, WhatCameWithTheHandshakeIsReadable) {
  // The client's last handshake message and its first bytes go out together.
  auto [client_socket, server_socket] = TcpPair();
  TlsClient client(std::move(client_socket), Trusting());
  const Pumped pumped = Serve(std::move(server_socket), Context(OneWay()), "", 5, [&] {
    const int one = 1;
    ::setsockopt(client.fd(), IPPROTO_TCP, TCP_CORK, &one, sizeof one);
    ASSERT_EQ(client.Connect(), "");
    ASSERT_TRUE(client.Write("hello"));
    const int zero = 0;
    ::setsockopt(client.fd(), IPPROTO_TCP, TCP_CORK, &zero, sizeof zero);
    std::string nothing;
    client.ReadToEnd(&nothing);
  });
  EXPECT_EQ(pumped.received, "hello");
}

TEST_F(TlsTest, GoodbyeAndAbruptEndAreBothTheEnd) {
  for (const bool polite : {true, false}) {
    auto [client_socket, server_socket] = TcpPair();
    TlsClient client(std::move(client_socket), Trusting());
    const Pumped pumped = Serve(std::move(server_socket), Context(OneWay()), "", 1000, [&] {
      ASSERT_EQ(client.Connect(), "");
      ASSERT_TRUE(client.Write("hello"));
      if (polite) client.SayGoodbye();
      ::shutdown(client.fd(), SHUT_WR);
      std::string nothing;
      client.ReadToEnd(&nothing);
    });
    EXPECT_EQ(pumped.received, "hello");
    EXPECT_TRUE(pumped.end_of_file) << pumped.error;
  }
}

TEST_F(TlsTest, DamagedRecordIsAnError) {
  auto [client_socket, server_socket] = TcpPair();
  TlsClient client(std::move(client_socket), Trusting());
  const Pumped pumped = Serve(std::move(server_socket), Context(OneWay()), "", 1000, [&] {
    ASSERT_EQ(client.Connect(), "");
    const std::string record = std::string("\x17\x03\x03\x00\x20", 5) + std::string(32, 'x');
    ASSERT_EQ(::send(client.fd(), record.data(), record.size(), MSG_NOSIGNAL), static_cast<ssize_t>(record.size()));
    std::string nothing;
    client.ReadToEnd(&nothing);
  });
  EXPECT_THAT(pumped.error, StartsWith("TLS: "));
}

TEST_F(TlsTest, SmallPartsGoInOneRecord) {
  auto sockets = TcpPair();
  TlsClient client(std::move(sockets.first), Trusting());
  LoopThread server;
  std::unique_ptr<Transport> transport;
  const std::string text = Pattern(300);
  server.Call([&] { transport = NewTransport(server.loop(), std::move(sockets.second), Context(OneWay())); });
  server.loop().Post([&] {
    transport->Start([&](const Status& status) {
      ASSERT_TRUE(status.ok());
      std::vector<iovec> parts;
      for (size_t i = 0; i < 300; i += 10) parts.push_back({const_cast<char*>(text.data()) + i, 10});
      EXPECT_EQ(transport->Write(parts).bytes, text.size());
    });
  });
  ASSERT_EQ(client.Connect(), "");
  char buffer[1000];
  // SSL_read gives at most one record.
  EXPECT_EQ(SSL_read(client.ssl(), buffer, sizeof buffer), 300);
  EXPECT_EQ(std::string(buffer, 300), text);
  server.Call([&] { transport.reset(); });
}

TEST_F(TlsTest, UnsentRecordMustBeOfferedAgain) {
  auto sockets = TcpPair(/*small_buffers=*/true);
  TlsClient client(std::move(sockets.first), Trusting());
  LoopThread server;
  std::unique_ptr<Transport> transport;
  std::promise<std::string> error;
  const std::string text = Pattern(16384);
  server.Call([&] { transport = NewTransport(server.loop(), std::move(sockets.second), Context(OneWay())); });
  server.loop().Post([&] {
    transport->Start([&](const Status& status) {
      ASSERT_TRUE(status.ok());
      const iovec whole{const_cast<char*>(text.data()), text.size()};
      while (transport->Write({&whole, 1}).kind == IoResult::Kind::kDone) {
      }
      const iovec part{const_cast<char*>(text.data()), 10};
      error.set_value(transport->Write({&part, 1}).error);
    });
  });
  ASSERT_EQ(client.Connect(), "");
  EXPECT_EQ(error.get_future().get(), "a write of 16384 bytes was begun, and only 10 were offered again");
  server.Call([&] { transport.reset(); });
}

TEST_F(TlsTest, TransportMayBeDestroyedWhenTheHandshakeEnds) {
  for (const bool well : {true, false}) {
    auto sockets = TcpPair();
    TlsClientOptions options = Trusting();
    if (!well) options.alpn.clear();
    TlsClient client(std::move(sockets.first), options);
    LoopThread server;
    std::unique_ptr<Transport> transport;
    std::promise<bool> done;
    server.Call([&] { transport = NewTransport(server.loop(), std::move(sockets.second), Context(OneWay())); });
    server.loop().Post([&] {
      transport->Start([&](const Status& status) {
        transport.reset();
        done.set_value(status.ok());
      });
    });
    EXPECT_EQ(client.Connect().empty(), well);
    EXPECT_EQ(done.get_future().get(), well);
  }
}

TEST_F(TlsTest, RefusesWhatIsWrongWithTheConfiguration) {
  TlsOptions options = OneWay();
  options.certificate = "nothing";
  EXPECT_EQ(Refusal(options), "certificate: the text holds no PEM certificate");
  options.certificate = server_->certificate.substr(0, 300) + "\n-----END CERTIFICATE-----\n";
  EXPECT_THAT(Refusal(options), StartsWith("certificate: certificate 1 of the PEM text is damaged: "));
  options.certificate = server_->certificate + server_->certificate.substr(0, 300);
  EXPECT_THAT(Refusal(options), StartsWith("certificate: certificate 2 of the PEM text is damaged: "));

  options = OneWay();
  options.private_key = "";
  EXPECT_EQ(Refusal(options), "private_key: the text holds no PEM private key that can be read");
  options.private_key = client_->key;
  EXPECT_THAT(Refusal(options), StartsWith("private_key: it is not the key of the certificate: "));

  options = Mutual();
  options.client_ca = "";
  EXPECT_EQ(Refusal(options), "client_ca: the text holds no PEM certificate");
}

TEST_F(TlsTest, EncryptedKeyIsRefusedWithoutAsking) {
  const SslPtr<BIO> in(BIO_new_mem_buf(server_->key.data(), -1));
  const SslPtr<EVP_PKEY> key(PEM_read_bio_PrivateKey(in.get(), nullptr, nullptr, nullptr));
  const SslPtr<BIO> out(BIO_new(BIO_s_mem()));
  const unsigned char pass[] = "secret";
  ASSERT_EQ(PEM_write_bio_PrivateKey(out.get(), key.get(), EVP_aes_128_cbc(), pass, 6, nullptr, nullptr), 1);
  char* text = nullptr;
  const long size = BIO_get_mem_data(out.get(), &text);
  TlsOptions options = OneWay();
  options.private_key.assign(text, static_cast<size_t>(size));
  EXPECT_EQ(Refusal(options), "private_key: the key is encrypted with a passphrase; one without is needed");
}

TEST_F(TlsTest, AcceptsAChain) {
  TlsOptions options = OneWay();
  options.certificate += authority_->certificate;
  std::string heard;
  EXPECT_TRUE(Meet(options, Trusting(), &heard).handshake.ok());
  EXPECT_EQ(heard, "hello");
}

std::string ReadFile(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// The commands that MindSpore Serving tells its users to make certificates with.
TEST_F(TlsTest, CertificatesOfTheDocumentedCommandsWork) {
  if (std::system("openssl version > /dev/null 2>&1") != 0) GTEST_SKIP() << "no openssl command here";
  const TemporaryDirectory directory;
  const std::string commands =
      "cd " + directory.path().string() +
      " && exec 2> log"
      " && openssl req -x509 -nodes -days 365 -newkey rsa:2048 -keyout ca.key -out ca.crt"
      " -subj /C=CN/ST=xx/L=xx/OU=gRPC/CN=Root"
      " && for who in server client; do"
      " openssl genrsa -out $who.key 2048;"
      " name=$who; [ $who = server ] && name=localhost;"
      " openssl req -new -key $who.key -out $who.csr -subj /C=XX/ST=MyST/L=XX/O=HW/OU=gRPC/CN=$name;"
      " openssl x509 -req -in $who.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out $who.crt -days 365 -sha256;"
      " done";
  ASSERT_EQ(std::system(commands.c_str()), 0) << ReadFile(directory.path() / "log");
  const auto file = [&](const char* name) { return ReadFile(directory.path() / name); };
  std::string heard;
  const Pumped pumped =
      Meet({file("server.crt"), file("server.key"), file("ca.crt"), true},
           {.authority = file("ca.crt"), .identity = {file("client.crt"), file("client.key")}}, &heard);
  EXPECT_TRUE(pumped.handshake.ok()) << pumped.handshake.ToString();
  EXPECT_EQ(pumped.peer.subject, "client");
  EXPECT_EQ(heard, "hello");
}

}  // namespace
}  // namespace mindserve::net
