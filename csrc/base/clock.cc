#include "base/clock.h"

namespace mindserve {

TimePoint SystemTime::Now() const {
  return Clock::now();
}

}  // namespace mindserve
