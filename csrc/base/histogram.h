// How often values of which size came.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "base/counter.h"

namespace mindserve {

// What a histogram held when it was read. Histograms of several threads are added up.
struct HistogramSnapshot {
  struct Bucket {
    uint64_t upper = 0;  // the largest value that it counts
    uint64_t count = 0;
  };
  uint64_t count = 0;
  uint64_t sum = 0;
  std::vector<Bucket> buckets;  // those that count something, the smallest first

  void Add(const HistogramSnapshot& other);
};

// Values up to 15 have buckets of their own; above, each power of two has eight, so that a bucket's bounds are at most
// an eighth apart. What is 2^40 or more counts as that. Counted by one thread at a time, read by any, also in another
// process; adding costs two additions and touches two cache lines.
class Histogram {
 public:
  void Add(uint64_t value) {
    buckets_[BucketOf(value)].Add();
    sum_.Add(value);
  }
  // In nanoseconds; what is negative, which clocks of two threads can make of nothing, counts as none.
  void AddTime(Duration time) { Add(time.count() < 0 ? 0 : static_cast<uint64_t>(time.count())); }

  // What the other has counted counts here too.
  void Add(const Histogram& other) {
    for (size_t i = 0; i < kBuckets; ++i) buckets_[i].Add(other.buckets_[i].value());
    sum_.Add(other.sum_.value());
  }

  HistogramSnapshot Read() const;

  static constexpr size_t kSteps = 8;  // to a power of two
  static constexpr int kPowers = 40;
  static constexpr size_t kBuckets = kSteps * (kPowers - 2) + 1;

  static constexpr size_t BucketOf(uint64_t value) {
    if (value < 2 * kSteps) return value;
    if (value >> kPowers != 0) return kBuckets - 1;
    const int power = std::bit_width(value) - 1;  // at least 4
    return kSteps * static_cast<size_t>(power - 3) + (value >> (power - 3));
  }
  // The largest value of a bucket.
  static constexpr uint64_t UpperOf(size_t bucket) {
    if (bucket < 2 * kSteps) return bucket;
    if (bucket == kBuckets - 1) return UINT64_MAX;
    const size_t power = bucket / kSteps + 2;
    return ((kSteps + bucket % kSteps + 1) << (power - 3)) - 1;
  }

 private:
  Counter sum_;
  std::array<Counter, kBuckets> buckets_;
};

}  // namespace mindserve
