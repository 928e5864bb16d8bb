#include "base/histogram.h"

#include <algorithm>

namespace mindserve {

HistogramSnapshot Histogram::Read() const {
  HistogramSnapshot snapshot;
  snapshot.sum = sum_.value();
  for (size_t i = 0; i < kBuckets; ++i) {
    const uint64_t count = buckets_[i].value();
    if (count == 0) continue;
    snapshot.count += count;
    snapshot.buckets.push_back({UpperOf(i), count});
  }
  return snapshot;
}

void HistogramSnapshot::Add(const HistogramSnapshot& other) {
  count += other.count;
  sum += other.sum;
  std::vector<Bucket> both;
  both.reserve(buckets.size() + other.buckets.size());
  std::ranges::merge(buckets, other.buckets, std::back_inserter(both), {}, &Bucket::upper, &Bucket::upper);
  buckets.clear();
  for (const Bucket& bucket : both) {
    if (!buckets.empty() && buckets.back().upper == bucket.upper) {
      buckets.back().count += bucket.count;
    } else {
      buckets.push_back(bucket);
    }
  }
}

}  // namespace mindserve
