#include "wire/json_number.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <optional>
#include <random>
#include <string>

#include "wire/json_fixture.h"
#include "wire/json_number_array.h"

namespace mindserve::wire {
namespace {

using namespace std::string_literals;

// The number, if it is all of the text.
template <typename T>
std::optional<T> Scanned(bool (*scan)(const char**, T*), const std::string& text) {
  const char* at = text.c_str();
  T number;
  if (!scan(&at, &number) || at != text.c_str() + text.size()) return std::nullopt;
  return number;
}
std::optional<int32_t> Int32(const std::string& text) {
  return Scanned(ScanInt32, text);
}
std::optional<float> Float32(const std::string& text) {
  return Scanned(ScanFloat32, text);
}

TEST(JsonNumber, Integers) {
  for (int32_t number : {0, 1, -1, 9, 10, 255, -300, 2147483647, -2147483647 - 1}) {
    EXPECT_EQ(Int32(std::to_string(number)), number);
  }
  EXPECT_EQ(Int32("-0"), 0);
  for (const char* text : {"", "-", "+1", "00", "01", "-01", "1.0", "1e1", "1E1", "1.", "a", "--1", "2147483648",
                           "-2147483649", "18446744073709551617", "99999999999999999999999999", "0x1"}) {
    EXPECT_EQ(Int32(text), std::nullopt) << text;
  }
}

TEST(JsonNumber, Floats) {
  for (const char* text : {"0.0",
                           "-0.0",
                           "1.0",
                           "0.1",
                           "1e0",
                           "1E5",
                           "1e+5",
                           "1e-5",
                           "1.5e-3",
                           "123456789.125",
                           "0.30000001192092896",
                           "3.4028234663852886e38",
                           "-3.4028234663852886e+38",
                           "1e-45",
                           "7e-46",
                           "9007199254740993.0",
                           "9007199254740992e1",
                           "1.7976931348623157e-300",
                           "0.10000000149011611938476562500",
                           "0.1000000014901161193847656250000000000000000000001",
                           "340282346638528859811704183484516925440.0",
                           "0.000000000000000000000000000000000001",
                           "100000000000000000000000000000000000.0e-30",
                           "4.35e-40",
                           "16777217.0",
                           "16777216.9999999999"}) {
    const auto number = Float32(text);
    ASSERT_TRUE(number.has_value()) << text;
    const auto expected = static_cast<float>(std::strtod(text, nullptr));
    EXPECT_EQ(std::memcmp(&*number, &expected, sizeof(expected)), 0) << text << " " << *number << " " << expected;
  }
  // Less than any double, in all the ways to write that.
  for (const std::string& text : {std::string("1e-400"), std::string("0.0e999999999999"),
                                  "0." + std::string(500, '0') + "1", "0." + std::string(500, '0') + "1e10",
                                  std::string("1e-99999999999999999999"), "0.0e-" + std::string(500, '9')}) {
    EXPECT_EQ(Float32(text), 0.0f) << text;
    EXPECT_TRUE(std::signbit(Float32("-" + text).value_or(1))) << text;
  }
  EXPECT_EQ(Float32("0." + std::string(500, '0') + "1e501"), 1.0f);
  EXPECT_EQ(Float32("1" + std::string(500, '0') + "e-500"), 1.0f);
  for (const char* text : {"3.5e38", "-3.5e38", "1e39", "1e308", "1e309", "1e400", "1e99999999999999999999",
                           "340282356779733661637539395458142568448.0"}) {
    EXPECT_EQ(Float32(text), std::nullopt) << text;
  }
  EXPECT_EQ(Float32("1" + std::string(400, '0') + ".0"), std::nullopt);
  for (const char* text :
       {"",    "-",    "1",     "-1",   ".5",  "-.5", "1.",   "1.e5", "01.5",  "00.5",  "1e",   "1e+",
        "1e-", "1ee5", "1.5.5", "+1.5", "inf", "nan", "1.5f", "1,5",  "0x1p3", "1e5.5", "- 1.5"}) {
    EXPECT_EQ(Float32(text), std::nullopt) << text;
  }
}

// As the C library reads them: floats in their shortest form, in as many digits as Python writes, and in very many.
TEST(JsonNumber, RandomFloats) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 50'000; ++i) {
    const auto bits = static_cast<uint32_t>(random());
    float number;
    std::memcpy(&number, &bits, sizeof(number));
    if (!std::isfinite(number)) continue;
    char text[128];
    const auto check = [&](const char* end) {
      const std::string written(text, static_cast<size_t>(end - text));
      // Who has neither point nor exponent is an integer.
      if (written.find_first_of(".e") == std::string::npos) return;
      EXPECT_EQ(Float32(written), static_cast<float>(std::strtod(written.c_str(), nullptr))) << written;
    };
    check(std::to_chars(std::begin(text), std::end(text), number).ptr);
    check(std::to_chars(std::begin(text), std::end(text), static_cast<double>(number)).ptr);
    check(std::to_chars(std::begin(text), std::end(text), number, std::chars_format::scientific, 40).ptr);
    check(std::to_chars(std::begin(text), std::end(text), std::ldexp(number, static_cast<int>(random() % 60) - 30),
                        std::chars_format::scientific, static_cast<int>(random() % 22))
              .ptr);
  }
}

TEST(JsonNumber, RegularArrays) {
  JsonTensor tensor;
  for (const auto& [text, dtype, shape] : std::vector<std::tuple<std::string, DType, Shape>>{
           {"[1]", DType::kInt32, {1}},
           {"[1,2]  ,", DType::kInt32, {2}},
           {" [ [ 1 , 2 , 3 ] ,\n\t\r[ 4 , 5 , 6 ] ] "s.substr(1), DType::kInt32, {2, 3}},
           {"[[[0.5]]]", DType::kFloat32, {1, 1, 1}},
           {"[[1e0,2.0],[3.0,4.0]]", DType::kFloat32, {2, 2}},
       }) {
    ASSERT_TRUE(ReadNumberArray(text.c_str(), &tensor)) << text;
    EXPECT_EQ(tensor.dtype, dtype);
    EXPECT_EQ(tensor.shape, shape);
    EXPECT_EQ(tensor.bytes.size(), *shape.Elements() * 4);
  }
  for (const char* text : {"",
                           "[",
                           "[]",
                           "[[]]",
                           "[1",
                           "[1,",
                           "[1,]",
                           "[,1]",
                           "[1 2]",
                           "[1}",
                           "[[1],2]",
                           "[1,[2]]",
                           "[[1],[2,3]]",
                           "[[1],[]]",
                           "[1,2.0]",
                           "[1.0,2]",
                           "[1,true]",
                           "[true]",
                           "[\"a\"]",
                           "[null]",
                           "[NaN]",
                           "[{}]",
                           "[[[1]],[[2],[3]]]",
                           "[1,2147483648]",
                           "[1e39]",
                           "1"}) {
    EXPECT_FALSE(ReadNumberArray(text, &tensor)) << text;
  }
  EXPECT_TRUE(ReadNumberArray((std::string(32, '[') + "1" + std::string(32, ']')).c_str(), &tensor));
  EXPECT_FALSE(ReadNumberArray((std::string(33, '[') + "1" + std::string(33, ']')).c_str(), &tensor));
  EXPECT_FALSE(ReadNumberArray(std::string(1'000'000, '[').c_str(), &tensor));
}

}  // namespace
}  // namespace mindserve::wire
