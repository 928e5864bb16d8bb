// Half precision, which has no type of its own in C++20.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace mindserve {

struct Half {
  uint16_t bits;
};

inline float ToFloat(Half half) {
  const uint32_t sign = uint32_t{half.bits} >> 15 << 31;
  const uint32_t exponent = half.bits >> 10 & 0x1f;
  const uint32_t fraction = half.bits & 0x3ff;
  if (exponent == 0) {
    const float small = std::ldexp(static_cast<float>(fraction), -24);
    return sign == 0 ? small : -small;
  }
  // The exponent's bias is 15 there and 127 here; 31 stands for the infinities and NaN.
  const uint32_t wide = exponent == 0x1f ? 0xff : exponent + 127 - 15;
  return std::bit_cast<float>(sign | wide << 23 | fraction << 13);
}

}  // namespace mindserve
