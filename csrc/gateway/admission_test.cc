#include "gateway/admission.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace mindserve::gateway {
namespace {

using StreamPlace = Admission::StreamPlace;

// How many a client gets until it is refused, and by what.
std::pair<size_t, StreamPlace> Fill(Admission& admission, uint64_t client, std::vector<StreamTicket>* tickets) {
  for (size_t n = 0;; ++n) {
    StreamTicket ticket(admission, client);
    if (ticket.place() != StreamPlace::kGiven) return {n, ticket.place()};
    tickets->push_back(std::move(ticket));
  }
}

TEST(AdmissionTest, OfTheLastQuarterAClientGetsNoMoreThanItLeaves) {
  Admission admission;
  admission.SetMaxRequests(40);
  std::vector<StreamTicket> tickets;
  EXPECT_EQ(Fill(admission, 1, &tickets), std::pair(size_t{23}, StreamPlace::kOverShare));
  EXPECT_EQ(Fill(admission, 2, &tickets), std::pair(size_t{4}, StreamPlace::kOverShare));
  EXPECT_EQ(Fill(admission, 3, &tickets), std::pair(size_t{2}, StreamPlace::kOverShare));
  EXPECT_EQ(Fill(admission, 4, &tickets), std::pair(size_t{1}, StreamPlace::kNone));
  tickets.erase(tickets.begin(), tickets.begin() + 10);  // of the first
  EXPECT_EQ(Fill(admission, 2, &tickets), std::pair(size_t{4}, StreamPlace::kOverShare));
  tickets.clear();
  EXPECT_EQ(Fill(admission, 5, &tickets).first, 23u);
}

TEST(AdmissionTest, FewAreForWhoComesFirst) {
  for (const size_t max : {1, 2, 3}) {
    Admission admission;
    admission.SetMaxRequests(max);
    std::vector<StreamTicket> tickets;
    EXPECT_EQ(Fill(admission, 1, &tickets), std::pair(max, StreamPlace::kNone));
  }
  Admission admission;
  admission.SetMaxRequests(4);
  std::vector<StreamTicket> tickets;
  EXPECT_EQ(Fill(admission, 1, &tickets), std::pair(size_t{3}, StreamPlace::kNone));
}

TEST(AdmissionTest, MessagesThatAreNotWholeLeaveRoom) {
  Admission admission;
  admission.SetMaxBytes(1000);
  UnfinishedTicket one(admission);
  EXPECT_TRUE(one.Claim(900)) << "a single one may be larger";
  UnfinishedTicket two(admission);
  EXPECT_FALSE(two.Claim(1));
  EXPECT_FALSE(two.GrowTo(1));
  EXPECT_TRUE(one.GrowTo(950));
  one.Release();
  EXPECT_TRUE(two.Claim(500));
  EXPECT_FALSE(one.Claim(1));
  EXPECT_TRUE(one.GrowTo(250));
  EXPECT_FALSE(one.GrowTo(251));
  two.Release();
  EXPECT_TRUE(one.GrowTo(999));
}

}  // namespace
}  // namespace mindserve::gateway
