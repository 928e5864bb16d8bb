// Whose share of what is bounded a call takes.
#pragma once

#include <cstdint>

namespace mindserve {

// No client has that number. Nobody has no share, and so no bound but the whole's.
inline constexpr uint64_t kNobody = 0;

// A client is a connection. What a servable calls is for many clients, and so for none: `depth` is how many calls
// within calls it is.
inline uint64_t SharerOf(uint64_t client, uint32_t depth) {
  return depth == 0 ? client : kNobody;
}

}  // namespace mindserve
