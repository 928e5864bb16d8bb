#include "wire/json_number.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <limits>
#include <system_error>

namespace mindserve::wire {
namespace {

bool IsDigit(char c) {
  return c >= '0' && c <= '9';
}

// Reads digits into `value`, which is right as long as there are at most 19 in all. How many there are.
ptrdiff_t ScanDigits(const char** at, uint64_t* value) {
  const char* const begin = *at;
  const char* p = begin;
  for (; IsDigit(*p); ++p) *value = *value * 10 + static_cast<uint64_t>(*p - '0');
  *at = p;
  return p - begin;
}

// The digits before a point: at least one, and none after a zero.
ptrdiff_t ScanWhole(const char** at, uint64_t* value) {
  const char first = **at;
  const ptrdiff_t count = ScanDigits(at, value);
  return first == '0' && count > 1 ? 0 : count;
}

// What follows an e. Beyond what any double has it is cut off.
bool ScanExponent(const char** at, int64_t* exponent) {
  constexpr uint64_t kMost = 1'000'000;
  const bool negative = **at == '-';
  if (negative || **at == '+') ++*at;
  const char* const begin = *at;
  uint64_t value = 0;
  for (; IsDigit(**at); ++*at) value = std::min(value * 10 + static_cast<uint64_t>(**at - '0'), kMost);
  *exponent = negative ? -static_cast<int64_t>(value) : static_cast<int64_t>(value);
  return *at != begin;
}

// The powers of ten that a double has exactly.
constexpr double kPowers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                              1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
constexpr int64_t kLargestPower = std::size(kPowers) - 1;

// Of what is too large or too small for a double, or has digits that need care. `magnitude`: the power of ten of the
// first digit that counts, about.
double ReadDouble(const char* begin, const char* end, int64_t magnitude) {
  double value = 0;
  if (std::from_chars(begin, end, value).ec != std::errc::result_out_of_range) return value;
  return magnitude < 0 ? 0 : std::numeric_limits<double>::infinity();
}

}  // namespace

bool ScanInt32(const char** at, int32_t* number) {
  const bool negative = **at == '-';
  if (negative) ++*at;
  uint64_t value = 0;
  const ptrdiff_t digits = ScanWhole(at, &value);
  if (digits == 0 || digits > 10 || **at == '.' || (**at | 0x20) == 'e') return false;
  constexpr uint64_t kMost = std::numeric_limits<int32_t>::max();
  if (value > kMost + (negative ? 1 : 0)) return false;
  *number = static_cast<int32_t>(negative ? -static_cast<int64_t>(value) : static_cast<int64_t>(value));
  return true;
}

bool ScanFloat32(const char** at, float* number) {
  const char* const begin = *at;
  const bool negative = *begin == '-';
  if (negative) ++*at;
  const char* const first = *at;
  uint64_t digits = 0;
  const ptrdiff_t whole = ScanWhole(at, &digits);
  if (whole == 0) return false;
  ptrdiff_t fraction = 0;
  const bool has_fraction = **at == '.';
  if (has_fraction) {
    ++*at;
    fraction = ScanDigits(at, &digits);
    if (fraction == 0) return false;
  }
  int64_t exponent = 0;
  const bool has_exponent = (**at | 0x20) == 'e';
  if (has_exponent) {
    ++*at;
    if (!ScanExponent(at, &exponent)) return false;
  }
  if (!has_fraction && !has_exponent) return false;

  const int64_t power = exponent - fraction;
  double value = 0;
  if (whole + fraction <= 19 && digits <= uint64_t{1} << 53 && power >= -kLargestPower && power <= kLargestPower) {
    // Two doubles that are exact: one operation rounds once.
    value = static_cast<double>(digits);
    value = power < 0 ? value / kPowers[-power] : value * kPowers[power];
  } else {
    const char* const count = std::find_if(first, *at, [](char c) { return c != '0' && c != '.'; });
    const int64_t magnitude = whole - (count - first) + exponent;
    value = std::abs(ReadDouble(begin, *at, magnitude));
  }
  *number = static_cast<float>(negative ? -value : value);
  return std::isfinite(*number);
}

}  // namespace mindserve::wire
