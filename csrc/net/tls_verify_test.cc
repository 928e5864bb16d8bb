// Which clients are let in: revocation lists, and what becomes of sessions when it changes who is.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <string>
#include <thread>
#include <vector>

#include "net/test_support.h"
#include "net/test_tls_client.h"
#include "net/tls.h"
#include "net/tls_context.h"

namespace mindserve::net {
namespace {

using std::chrono::seconds;
using testing::Identity;
using testing::Issue;
using testing::IssueAuthority;
using testing::IssueFor;
using testing::MakeAuthority;
using testing::MakeCrl;
using testing::Pumped;
using testing::Reissue;
using testing::Serve;
using ::testing::StartsWith;
using testing::TcpPair;
using testing::TlsClient;
using testing::TlsClientOptions;

constexpr int kVersions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

// What became of a connection.
struct Met {
  Status handshake;
  std::string subject;
  bool resumed = false;
  SslPtr<SSL_SESSION> session;  // null if the handshake failed
};

class TlsVerifyTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    root_ = new Identity(MakeAuthority("Root"));
    between_ = new Identity(IssueAuthority(*root_, "Between"));
    server_ = new Identity(Issue(*root_, "localhost"));
    alice_ = new Identity(Issue(*root_, "alice"));
    bob_ = new Identity(Issue(*root_, "bob"));
    carol_ = new Identity(Issue(*between_, "carol"));
  }
  static void TearDownTestSuite() {
    for (Identity* identity : {root_, between_, server_, alice_, bob_, carol_}) delete identity;
  }

  static std::shared_ptr<const TlsContext> Context(const std::string& crl = "",
                                                   const std::string& more_authorities = "") {
    auto context = TlsContext::Create(
        {server_->certificate, server_->key, root_->certificate + between_->certificate + more_authorities, true, crl});
    EXPECT_TRUE(context.ok()) << context.status().ToString();
    return context.ok() ? *context : nullptr;
  }

  static Met Meet(const std::shared_ptr<const TlsContext>& context, const Identity& client_identity, int version,
                  SSL_SESSION* session = nullptr) {
    TlsClientOptions options{.authority = root_->certificate, .identity = client_identity};
    options.max_version = version;
    options.session = session;
    auto [client_socket, server_socket] = TcpPair();
    TlsClient client(std::move(client_socket), options);
    Met met;
    const Pumped pumped = Serve(std::move(server_socket), context, "hello", 0, [&] {
      std::string heard;
      if (!client.Connect().empty()) return;
      if (!client.ReadToEnd(&heard).empty()) return;  // the tickets come before the text
      met.resumed = SSL_session_reused(client.ssl()) == 1;
      met.session.reset(SSL_get1_session(client.ssl()));
      client.SayGoodbye();  // a session that was cut off is not resumed
    });
    met.handshake = pumped.handshake;
    met.subject = pumped.peer.subject;
    return met;
  }

  static std::string Refusal(const std::shared_ptr<const TlsContext>& context, const Identity& client, int version,
                             SSL_SESSION* session = nullptr) {
    const Met met = Meet(context, client, version, session);
    EXPECT_EQ(met.handshake.code(), Code::kUnauthenticated);
    const std::string begin = "TLS handshake: the client's certificate is refused: ";
    EXPECT_THAT(met.handshake.message(), StartsWith(begin));
    return met.handshake.message().substr(std::min(begin.size(), met.handshake.message().size()));
  }

  static Identity* root_;
  static Identity* between_;
  static Identity* server_;
  static Identity* alice_;
  static Identity* bob_;
  static Identity* carol_;  // by `between_`
};

Identity* TlsVerifyTest::root_ = nullptr;
Identity* TlsVerifyTest::between_ = nullptr;
Identity* TlsVerifyTest::server_ = nullptr;
Identity* TlsVerifyTest::alice_ = nullptr;
Identity* TlsVerifyTest::bob_ = nullptr;
Identity* TlsVerifyTest::carol_ = nullptr;

TEST_F(TlsVerifyTest, RevokedClientIsRefusedAndOthersAreNot) {
  const auto context = Context(MakeCrl(*root_, {*alice_}));
  for (const int version : kVersions) {
    EXPECT_EQ(Refusal(context, *alice_, version), "certificate revoked");
    const Met met = Meet(context, *bob_, version);
    EXPECT_TRUE(met.handshake.ok()) << met.handshake.ToString();
    EXPECT_EQ(met.subject, "bob");
  }
}

TEST_F(TlsVerifyTest, ClientWhoseIssuerHasNoListIsRefused) {
  const auto context = Context(MakeCrl(*root_, {}));
  EXPECT_TRUE(Meet(context, *bob_, TLS1_3_VERSION).handshake.ok());
  EXPECT_EQ(Refusal(context, *carol_, TLS1_3_VERSION), "unable to get certificate CRL");
}

TEST_F(TlsVerifyTest, AuthoritiesAreHeldAgainstTheListsThatThereAre) {
  const std::string of_between = MakeCrl(*between_, {});
  const Met met = Meet(Context(of_between), *carol_, TLS1_3_VERSION);
  EXPECT_TRUE(met.handshake.ok()) << met.handshake.ToString();
  EXPECT_EQ(met.subject, "carol");
  EXPECT_EQ(Meet(Context(of_between + MakeCrl(*root_, {*alice_})), *carol_, TLS1_3_VERSION).subject, "carol");
  EXPECT_EQ(Refusal(Context(of_between + MakeCrl(*root_, {*between_})), *carol_, TLS1_3_VERSION),
            "certificate revoked");
  EXPECT_EQ(Refusal(Context(MakeCrl(*between_, {*carol_})), *carol_, TLS1_3_VERSION), "certificate revoked");
}

TEST_F(TlsVerifyTest, ListOutOfItsTimeRefusesAll) {
  EXPECT_EQ(Refusal(Context(MakeCrl(*root_, {}, seconds(-1))), *bob_, TLS1_3_VERSION), "CRL has expired");
}

TEST_F(TlsVerifyTest, ListOfAnImpostorRefusesAll) {
  const Identity impostor = MakeAuthority("Root");
  EXPECT_EQ(Refusal(Context(MakeCrl(impostor, {})), *bob_, TLS1_3_VERSION), "CRL signature failure");
}

TEST_F(TlsVerifyTest, RefusesWhatIsNoList) {
  const std::string list = MakeCrl(*root_, {*alice_});
  for (const auto& [text, reason] : std::vector<std::pair<std::string, std::string>>{
           {"nothing", "client_crl: the text holds no PEM X509 CRL"},
           {server_->certificate, "client_crl: the text holds no PEM X509 CRL"},
           {list + list.substr(0, 200), "client_crl: X509 CRL 2 of the PEM text is damaged: "}}) {
    const auto context = TlsContext::Create({server_->certificate, server_->key, root_->certificate, true, text});
    ASSERT_FALSE(context.ok());
    EXPECT_EQ(context.status().code(), Code::kInvalidArgument);
    EXPECT_THAT(context.status().message(), StartsWith(reason));
  }
}

TEST_F(TlsVerifyTest, SessionIsResumedUnderItsContextOnly) {
  for (const int version : kVersions) {
    const auto first = Context();
    const Met begun = Meet(first, *alice_, version);
    ASSERT_NE(begun.session, nullptr);
    const Met again = Meet(first, *alice_, version, begun.session.get());
    EXPECT_TRUE(again.resumed);
    EXPECT_EQ(again.subject, "alice");
    // What a listener gets when its files have changed.
    const Met elsewhere = Meet(Context(), *alice_, version, again.session.get());
    EXPECT_TRUE(elsewhere.handshake.ok()) << elsewhere.handshake.ToString();
    EXPECT_FALSE(elsewhere.resumed);
    EXPECT_EQ(elsewhere.subject, "alice");
  }
}

TEST_F(TlsVerifyTest, SessionOfARevokedClientIsNotResumed) {
  for (const int version : kVersions) {
    const auto before = Context(MakeCrl(*root_, {}));
    const Met alice = Meet(before, *alice_, version);
    const Met bob = Meet(before, *bob_, version);
    ASSERT_TRUE(alice.session && bob.session);
    EXPECT_TRUE(Meet(before, *alice_, version, alice.session.get()).resumed);
    const auto after = Context(MakeCrl(*root_, {*alice_}));
    EXPECT_EQ(Refusal(after, *alice_, version, alice.session.get()), "certificate revoked");
    EXPECT_EQ(Meet(after, *bob_, version, bob.session.get()).subject, "bob");
  }
}

TEST_F(TlsVerifyTest, SessionEndsWithWhatItWasVerifiedBy) {
  constexpr auto kShort = seconds(4);
  const Identity client = IssueFor(*root_, "client", kShort);
  const auto plain = Context();
  const auto listed = Context(MakeCrl(*root_, {}, kShort));
  const Identity dying = Reissue(MakeAuthority("Dying"), kShort);
  const Identity dave = Issue(dying, "dave");
  const auto authorised = Context("", dying.certificate);
  std::vector<Met> by_client;
  std::vector<Met> by_list;
  std::vector<Met> by_authority;
  for (const int version : kVersions) {
    by_client.push_back(Meet(plain, client, version));
    by_list.push_back(Meet(listed, *bob_, version));
    by_authority.push_back(Meet(authorised, dave, version));
    ASSERT_TRUE(by_client.back().session && by_list.back().session && by_authority.back().session);
  }
  // OpenSSL's clock can't be turned.
  const time_t end = std::time(nullptr) + kShort.count();
  while (std::time(nullptr) <= end) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  for (size_t i = 0; i < std::size(kVersions); ++i) {
    EXPECT_EQ(Refusal(plain, client, kVersions[i], by_client[i].session.get()), "certificate has expired");
    EXPECT_EQ(Refusal(listed, *bob_, kVersions[i], by_list[i].session.get()), "CRL has expired");
    EXPECT_EQ(Refusal(authorised, dave, kVersions[i], by_authority[i].session.get()), "certificate has expired");
  }
}

}  // namespace
}  // namespace mindserve::net
