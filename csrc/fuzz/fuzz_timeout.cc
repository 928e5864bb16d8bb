// A grpc-timeout, against what the specification says.
#include <chrono>
#include <cstdint>

#include "fuzz/input.h"
#include "gateway/grpc_text.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace mindserve;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto timeout = gateway::ParseTimeout(text);

  constexpr std::string_view kUnits = "HMSmun";
  constexpr int64_t kNanoseconds[] = {3'600'000'000'000, 60'000'000'000, 1'000'000'000, 1'000'000, 1'000, 1};
  constexpr size_t kMostDigits = 8;
  const size_t unit = size == 0 ? std::string_view::npos : kUnits.find(text.back());
  bool good = unit != std::string_view::npos && size >= 2 && size <= kMostDigits + 1;
  int64_t number = 0;
  for (size_t i = 0; good && i + 1 < size; ++i) {
    good = text[i] >= '0' && text[i] <= '9';
    number = number * 10 + (text[i] - '0');
  }
  FUZZ_REQUIRE(timeout.has_value() == good);
  if (good) {
    // Eight digits of hours are more than a clock of 64 bits has.
    int64_t expected;
    if (__builtin_mul_overflow(number, kNanoseconds[unit], &expected)) expected = INT64_MAX;
    constexpr int64_t kCentury = 876'600 * kNanoseconds[0];  // or more: nobody will tell the difference
    FUZZ_REQUIRE(timeout->count() == expected || (expected > kCentury && timeout->count() > kCentury));
  }
  return 0;
}
