#include "gateway/quarantine.h"

#include <gtest/gtest.h>

namespace mindserve::gateway {
namespace {

using std::chrono::seconds;

std::span<const std::byte> Bytes(std::string_view text) {
  return std::as_bytes(std::span(text));
}

TEST(QuarantineTest, AnAttackLastsFromTheLastConviction) {
  Quarantine quarantine;
  TimePoint now = Clock::now();
  EXPECT_FALSE(quarantine.UnderAttack(now));
  quarantine.Convict("m", Bytes("1"), "one", now);
  const uint64_t attack = quarantine.attack();
  now += seconds(59);
  EXPECT_TRUE(quarantine.UnderAttack(now));
  quarantine.Convict("m", Bytes("2"), "two", now);
  EXPECT_EQ(quarantine.attack(), attack);
  now += seconds(59);
  EXPECT_TRUE(quarantine.UnderAttack(now));
  EXPECT_FALSE(quarantine.VerdictOn("m", Bytes("1"), now)) << "each verdict has its own time";
  EXPECT_EQ(quarantine.VerdictOn("m", Bytes("2"), now), "two");
  now += seconds(1);
  EXPECT_FALSE(quarantine.UnderAttack(now));
  EXPECT_FALSE(quarantine.VerdictOn("m", Bytes("2"), now));
  quarantine.Accuse(now);
  EXPECT_TRUE(quarantine.UnderAttack(now));
  EXPECT_NE(quarantine.attack(), attack);
}

TEST(QuarantineTest, AVerdictIsOnTheMethodAndTheBytes) {
  Quarantine quarantine;
  const TimePoint now = Clock::now();
  quarantine.Convict("method", Bytes("payload"), "text", now);
  EXPECT_EQ(quarantine.VerdictOn("method", Bytes("payload"), now), "text");
  EXPECT_FALSE(quarantine.VerdictOn("method", Bytes("payloae"), now));
  EXPECT_FALSE(quarantine.VerdictOn("methoe", Bytes("payload"), now));
  EXPECT_FALSE(quarantine.VerdictOn("methodp", Bytes("ayload"), now));
  quarantine.Convict("method", Bytes("payload"), "another text", now);
  EXPECT_EQ(quarantine.VerdictOn("method", Bytes("payload"), now), "another text");
}

TEST(QuarantineTest, VerdictsAreBounded) {
  Quarantine quarantine;
  const TimePoint now = Clock::now();
  const auto payload = [](size_t i) { return std::to_string(10'000 + i); };
  for (size_t i = 0; i <= Quarantine::kMostVerdicts; ++i) quarantine.Convict("m", Bytes(payload(i)), "text", now);
  EXPECT_FALSE(quarantine.VerdictOn("m", Bytes(payload(0)), now));
  EXPECT_TRUE(quarantine.VerdictOn("m", Bytes(payload(1)), now));
  EXPECT_TRUE(quarantine.VerdictOn("m", Bytes(payload(Quarantine::kMostVerdicts)), now));
}

TEST(QuarantineTest, ItIsKnownForAWhileThatThereWereSeveralWorkers) {
  Quarantine quarantine;
  const TimePoint now = Clock::now();
  quarantine.OnAttached();
  EXPECT_FALSE(quarantine.HadSeveral(now));
  quarantine.OnGone(now);
  EXPECT_FALSE(quarantine.HadSeveral(now));
  quarantine.OnAttached();
  quarantine.OnAttached();
  EXPECT_TRUE(quarantine.HadSeveral(now));
  quarantine.OnGone(now);
  quarantine.OnGone(now);
  EXPECT_TRUE(quarantine.HadSeveral(now + seconds(59)));
  EXPECT_FALSE(quarantine.HadSeveral(now + seconds(60)));
}

TEST(QuarantineTest, OneThatTakesThePlaceOfAnotherIsNotOneOfSeveral) {
  Quarantine quarantine;
  const TimePoint now = Clock::now();
  quarantine.OnAttached();
  quarantine.OnAttached();
  quarantine.OnDraining();
  EXPECT_FALSE(quarantine.HadSeveral(now));
  quarantine.OnGone(now);
  EXPECT_FALSE(quarantine.HadSeveral(now));
}

TEST(ClientTrustTest, AnAnswerEarnsTrustAndAKillerLosesItForTheAttack) {
  constexpr uint64_t kVersion = 7;
  constexpr uint64_t kOther = 8;
  using Standing = ClientTrust::Standing;
  ClientTrust trust;
  EXPECT_EQ(trust.StandingIn(kVersion, 1), Standing::kUnknown);
  trust.OnAnswer(kVersion);
  EXPECT_EQ(trust.StandingIn(kVersion, 1), Standing::kKnown);
  EXPECT_EQ(trust.StandingIn(kOther, 1), Standing::kUnknown);
  trust.OnAnswer(kOther);
  trust.Distrust(kVersion, 1);
  trust.OnAnswer(kVersion);
  EXPECT_EQ(trust.StandingIn(kVersion, 1), Standing::kDistrusted);
  EXPECT_EQ(trust.StandingIn(kOther, 1), Standing::kKnown);
  EXPECT_EQ(trust.StandingIn(kVersion, 2), Standing::kKnown);
  trust.Forget(kVersion);
  EXPECT_EQ(trust.StandingIn(kVersion, 2), Standing::kUnknown);
  trust.OnAnswer(kVersion);
  EXPECT_EQ(trust.StandingIn(kVersion, 2), Standing::kKnown);
}

TEST(ClientTrustTest, WhatIsKnownIsBounded) {
  using Standing = ClientTrust::Standing;
  ClientTrust trust;
  for (uint64_t version = 1; version <= ClientTrust::kMostVersions + 1; ++version) trust.OnAnswer(version);
  EXPECT_EQ(trust.StandingIn(1, 1), Standing::kUnknown);
  EXPECT_EQ(trust.StandingIn(2, 1), Standing::kKnown);
  EXPECT_EQ(trust.StandingIn(ClientTrust::kMostVersions + 1, 1), Standing::kKnown);
}

}  // namespace
}  // namespace mindserve::gateway
