// So many a second, and as many at once. Belongs to one thread.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>

#include "base/clock.h"

namespace mindserve {

class RateLimit {
 public:
  RateLimit(size_t per_second, TimePoint now)
      : per_second_(static_cast<double>(per_second)), left_(per_second_), since_(now) {}

  // False if that is one too many.
  bool Take(TimePoint now) {
    const std::chrono::duration<double> passed = now - since_;
    since_ = now;
    left_ = std::min(per_second_, left_ + passed.count() * per_second_);
    if (left_ < 1) return false;
    left_ -= 1;
    return true;
  }

 private:
  double per_second_;
  double left_;
  TimePoint since_;
};

}  // namespace mindserve
