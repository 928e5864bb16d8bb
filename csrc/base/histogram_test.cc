#include "base/histogram.h"

#include <gtest/gtest.h>

#include <memory>

namespace mindserve {
namespace {

TEST(HistogramTest, EveryValueLiesInItsBucket) {
  uint64_t lower = 0;  // the smallest value of the bucket
  for (size_t bucket = 0; bucket < Histogram::kBuckets; ++bucket) {
    const uint64_t upper = Histogram::UpperOf(bucket);
    ASSERT_GE(upper, lower) << bucket;
    EXPECT_EQ(Histogram::BucketOf(lower), bucket);
    EXPECT_EQ(Histogram::BucketOf(upper), bucket);
    lower = upper + 1;  // 0 after the last
  }
  EXPECT_EQ(lower, 0u);
}

TEST(HistogramTest, BoundsAreAtMostAnEighthApart) {
  for (size_t bucket = 1; bucket + 1 < Histogram::kBuckets; ++bucket) {
    const uint64_t lower = Histogram::UpperOf(bucket - 1) + 1;
    EXPECT_LE((Histogram::UpperOf(bucket) - lower + 1) * 8, std::max<uint64_t>(lower, 8)) << bucket;
  }
}

TEST(HistogramTest, CountsAndSums) {
  const auto histogram = std::make_unique<Histogram>();
  for (const uint64_t value : {3, 3, 15, 1000}) histogram->Add(value);
  histogram->AddTime(std::chrono::nanoseconds(-5));
  const HistogramSnapshot snapshot = histogram->Read();
  EXPECT_EQ(snapshot.count, 5u);
  EXPECT_EQ(snapshot.sum, 1021u);
  ASSERT_EQ(snapshot.buckets.size(), 4u);
  EXPECT_EQ(snapshot.buckets[0].upper, 0u);
  EXPECT_EQ(snapshot.buckets[1].upper, 3u);
  EXPECT_EQ(snapshot.buckets[1].count, 2u);
  EXPECT_EQ(snapshot.buckets[3].upper, 1023u);
}

TEST(HistogramTest, WhatIsTooLargeIsCountedAllTheSame) {
  const auto histogram = std::make_unique<Histogram>();
  histogram->Add(UINT64_MAX);
  histogram->Add(uint64_t{1} << 40);
  EXPECT_EQ(histogram->Read().count, 2u);
  EXPECT_EQ(histogram->Read().buckets.size(), 1u);
}

TEST(HistogramTest, SnapshotsAddUp) {
  const auto one = std::make_unique<Histogram>();
  const auto two = std::make_unique<Histogram>();
  for (const uint64_t value : {1, 5, 100}) one->Add(value);
  for (const uint64_t value : {5, 7}) two->Add(value);
  HistogramSnapshot both = one->Read();
  both.Add(two->Read());
  EXPECT_EQ(both.count, 5u);
  EXPECT_EQ(both.sum, 118u);
  ASSERT_EQ(both.buckets.size(), 4u);
  EXPECT_EQ(both.buckets[1].upper, 5u);
  EXPECT_EQ(both.buckets[1].count, 2u);
}

}  // namespace
}  // namespace mindserve
