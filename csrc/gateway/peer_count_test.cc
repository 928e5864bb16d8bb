#include "gateway/peer_count.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/rate_limit.h"

namespace mindserve::gateway {
namespace {

TEST(PeerCountTest, InAllAndByHost) {
  PeerCount count;
  std::vector<PeerCount::Place> places;
  const auto enter = [&](const char* address) {
    auto place = count.Enter(address, 4, 2);
    if (place) places.push_back(*std::move(place));
    return place.has_value();
  };
  EXPECT_TRUE(enter("ipv4:10.0.0.1:1"));
  EXPECT_TRUE(enter("ipv4:10.0.0.1:2"));
  EXPECT_FALSE(enter("ipv4:10.0.0.1:3"));
  EXPECT_TRUE(enter("ipv6:[::1]:3"));
  EXPECT_TRUE(enter("unix:"));
  EXPECT_FALSE(enter("ipv4:10.0.0.2:1"));
  places.erase(places.begin());
  EXPECT_TRUE(enter("ipv4:10.0.0.1:4"));
  places.clear();
  EXPECT_EQ(count.size(), 0u);
}

TEST(RateLimitTest, ABurstThenTheRate) {
  TimePoint now;
  RateLimit limit(10, now);
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(limit.Take(now));
  EXPECT_FALSE(limit.Take(now));
  now += std::chrono::milliseconds(100);
  EXPECT_TRUE(limit.Take(now));
  EXPECT_FALSE(limit.Take(now));
  now += std::chrono::hours(1);
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(limit.Take(now));
  EXPECT_FALSE(limit.Take(now));
}

}  // namespace
}  // namespace mindserve::gateway
