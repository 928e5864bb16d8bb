#include "gateway/admission.h"

#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "gateway/admit.h"

namespace mindserve::gateway {
namespace {

using Kind = Admission::Kind;
using Place = Admission::Place;

// How many a client gets until it is refused, and by what.
std::pair<size_t, Place> Fill(Admission& admission, uint64_t client, std::vector<ShareTicket>* tickets) {
  for (size_t n = 0;; ++n) {
    ShareTicket ticket(admission, client, Kind::kStream, TimePoint());
    if (ticket.place() != Place::kGiven) return {n, ticket.place()};
    tickets->push_back(std::move(ticket));
  }
}

TEST(AdmissionTest, OfTheLastQuarterAClientGetsNoMoreThanItLeaves) {
  Admission admission;
  admission.SetMaxRequests(40);
  std::vector<ShareTicket> tickets;
  EXPECT_EQ(Fill(admission, 1, &tickets), std::pair(size_t{23}, Place::kOverShare));
  EXPECT_EQ(Fill(admission, 2, &tickets), std::pair(size_t{1}, Place::kOverShare));
  for (uint64_t client = 3; client < 8; ++client) {
    EXPECT_EQ(Fill(admission, client, &tickets), std::pair(size_t{1}, Place::kOverShare));
  }
  EXPECT_EQ(Fill(admission, 8, &tickets), std::pair(size_t{1}, Place::kNone));
  tickets.erase(tickets.begin(), tickets.begin() + 10);  // of the first
  EXPECT_EQ(Fill(admission, 2, &tickets), std::pair(size_t{3}, Place::kOverShare));
  tickets.clear();
  EXPECT_EQ(Fill(admission, 5, &tickets).first, 23u);
}

TEST(AdmissionTest, FewAreForWhoComesFirst) {
  for (const size_t max : {1, 2, 3}) {
    Admission admission;
    admission.SetMaxRequests(max);
    std::vector<ShareTicket> tickets;
    EXPECT_EQ(Fill(admission, 1, &tickets), std::pair(max, Place::kNone));
  }
  Admission admission;
  admission.SetMaxRequests(4);
  std::vector<ShareTicket> tickets;
  EXPECT_EQ(Fill(admission, 1, &tickets), std::pair(size_t{3}, Place::kNone));
}

class CrowdTest : public testing::Test {
 protected:
  // How many requests a client gets until it is refused.
  size_t Fill(uint64_t client) {
    for (size_t n = 0;; ++n) {
      Admitted admitted;
      const auto refused = Admit(all_, of_servable_, "s", 0, {.client = client}, now_, stats_, &admitted);
      if (refused) {
        why_ = refused->status.message();
        return n;
      }
      admitted_.emplace(client, std::move(admitted));
    }
  }
  void End(uint64_t client, size_t count) {
    for (size_t i = 0; i < count; ++i) admitted_.erase(admitted_.find(client));
  }

  CrowdTest() {
    all_.SetMaxRequests(40);
    of_servable_.SetMaxRequests(0);
    of_servable_.SetMaxBytes(0);
  }

  Admission all_, of_servable_;
  CallStats stats_;
  TimePoint now_{std::chrono::hours(1)};
  std::multimap<uint64_t, Admitted> admitted_;
  std::string why_;
};

TEST_F(CrowdTest, AClientAloneHasAll) {
  EXPECT_EQ(Fill(1), 40u);
  EXPECT_EQ(why_, "enqueued requests count exceeds the limit 40 (max_enqueued_requests)");
  End(1, 30);
  EXPECT_EQ(Fill(1), 30u);
}

TEST_F(CrowdTest, CallsForManyClientsHaveNoShare) {
  EXPECT_EQ(Fill(1), 40u);
  EXPECT_EQ(Fill(2), 0u);
  End(1, 40);
  EXPECT_EQ(Fill(kNobody), 40u);
}

TEST_F(CrowdTest, WhereOneWithFewFoundNoPlaceOthersLeaveSome) {
  EXPECT_EQ(Fill(1), 40u);
  EXPECT_EQ(Fill(2), 0u);
  End(1, 20);
  EXPECT_EQ(Fill(1), 10u) << "not of the last quarter";
  EXPECT_EQ(
      why_,
      "this connection has its share of requests, of which few are left under the limit 40 (max_enqueued_requests)");
  EXPECT_EQ(Fill(2), 2u);
  EXPECT_EQ(Fill(3), 1u);
  // Later, or where the others have gone, it is as before.
  End(2, 2);
  End(3, 1);
  now_ += std::chrono::minutes(1);
  EXPECT_EQ(Fill(1), 10u);
  admitted_.clear();
  EXPECT_EQ(all_.requests(), 0u);
}

TEST(AdmissionTest, ManyInstancesCountBesidesTheirBytes) {
  Admission admission;
  admission.SetMaxBytes(1000 * kInstanceBytes);
  CallStats stats;
  const TimePoint now(std::chrono::hours(1));
  Admitted few, many, more;
  EXPECT_EQ(AdmitInstances(admission, kFewInstances, now, stats, &few), nullptr);
  EXPECT_EQ(admission.bytes(), 0u);
  EXPECT_EQ(AdmitInstances(admission, 600, now, stats, &many), nullptr);
  EXPECT_EQ(admission.bytes(), 600 * kInstanceBytes);
  EXPECT_FALSE(admission.BytesLacked(now));
  const auto refused = AdmitInstances(admission, 401, now, stats, &more);
  ASSERT_NE(refused, nullptr);
  EXPECT_EQ(refused->status,
            Status(Code::kResourceExhausted,
                   "with the 401 instances of this request, each of which counts as 1024 bytes besides its own, "
                   "enqueued bytes exceeds the limit 1024000 (max_enqueued_bytes)"));
  EXPECT_EQ(refused->trailing, TryLater());
  EXPECT_TRUE(admission.BytesLacked(now));
  EXPECT_EQ(stats.refused[static_cast<size_t>(Refusal::kMaxEnqueuedBytes)], 1u);
  many.Release();
  EXPECT_EQ(admission.bytes(), 0u);
  const TimePoint later = now + std::chrono::seconds(1);
  EXPECT_EQ(AdmitInstances(admission, 1001, later, stats, &more)->trailing, TryNever()) << "they never find room";
  EXPECT_FALSE(admission.BytesLacked(later)) << "others need not make room for them";
}

TEST(AdmissionTest, MessagesThatAreNotWholeLeaveRoom) {
  Admission admission;
  admission.SetMaxBytes(1000);
  UnfinishedTicket one(admission);
  EXPECT_FALSE(one.Claim(251));
  EXPECT_TRUE(one.GrowTo(900)) << "a single one may be larger";
  UnfinishedTicket two(admission);
  EXPECT_FALSE(two.Claim(1));
  EXPECT_FALSE(two.GrowTo(1));
  EXPECT_TRUE(one.GrowTo(950));
  one.Release();
  EXPECT_TRUE(two.Claim(250));
  EXPECT_FALSE(one.Claim(1));
  EXPECT_TRUE(one.GrowTo(500));
  EXPECT_FALSE(one.GrowTo(501));
  two.Release();
  EXPECT_TRUE(one.GrowTo(999));
}

}  // namespace
}  // namespace mindserve::gateway
