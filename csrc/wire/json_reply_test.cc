#include "wire/json_reply.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "wire/json_text.h"
#include "wire/test_messages.h"

namespace mindserve::wire {
namespace {

using test::Bytes;
using test::Dims;
using test::Field;
using test::Item;
using test::NumericTensor;
using test::TextTensor;
using test::Varint;

std::string ReplyInstance(std::string_view items) {
  return Field(3, items);
}

std::string ReplyError(uint64_t code, std::string_view text) {
  return Field(4, code == 0 ? "" : Varint(1, code) + Field(2, text));
}

std::string Json(std::string_view reply) {
  const Result<std::string> json = PredictReplyToJson(Bytes(reply));
  EXPECT_TRUE(json.ok()) << json.status().message();
  return json.ok() ? *json : "";
}

// What a tensor is written as.
std::string Value(std::string_view tensor) {
  const std::string json = Json(ReplyInstance(Item("y", tensor)));
  constexpr std::string_view kBegin = R"({"instances":[{"y":)";
  constexpr std::string_view kEnd = "}]}";
  EXPECT_TRUE(json.starts_with(kBegin) && json.ends_with(kEnd)) << json;
  return json.substr(kBegin.size(), json.size() - kBegin.size() - kEnd.size());
}

template <typename T>
std::string Numbers(const Dims& dims, DType dtype, std::vector<T> values) {
  const std::string_view data(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  return Value(NumericTensor(dims, static_cast<uint64_t>(dtype), data));
}

TEST(JsonReply, Integers) {
  EXPECT_EQ(Numbers<int8_t>({2}, DType::kInt8, {-128, 127}), "[-128,127]");
  EXPECT_EQ(Numbers<uint8_t>({2}, DType::kUint8, {0, 255}), "[0,255]");
  EXPECT_EQ(Numbers<int16_t>({2}, DType::kInt16, {-32768, 32767}), "[-32768,32767]");
  EXPECT_EQ(Numbers<uint16_t>({1}, DType::kUint16, {65535}), "[65535]");
  EXPECT_EQ(Numbers<int32_t>({}, DType::kInt32, {-2147483647 - 1}), "-2147483648");
  EXPECT_EQ(Numbers<uint32_t>({}, DType::kUint32, {4294967295}), "4294967295");
  EXPECT_EQ(
      Numbers<int64_t>({2}, DType::kInt64, {std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()}),
      "[-9223372036854775808,9223372036854775807]");
  EXPECT_EQ(Numbers<uint64_t>({}, DType::kUint64, {std::numeric_limits<uint64_t>::max()}), "18446744073709551615");
  EXPECT_EQ(Numbers<uint8_t>({3}, DType::kBool, {0, 1, 2}), "[false,true,true]");
  EXPECT_EQ(Numbers<uint8_t>({}, DType::kBool, {1}), "true");
}

TEST(JsonReply, Floats) {
  EXPECT_EQ(Numbers<float>({5}, DType::kFloat32, {1.0f, 2.2f, -0.0f, 1e20f, 16777216.0f}),
            "[1.0,2.2,-0.0,1e+20,16777216.0]");
  EXPECT_EQ(Numbers<double>({3}, DType::kFloat64, {0.1, 1e300, 5e-324}), "[0.1,1e+300,5e-324]");
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(Numbers<float>({3}, DType::kFloat32, {inf, -inf, std::nanf("")}), "[null,null,null]");
  EXPECT_EQ(Numbers<double>({}, DType::kFloat64, {std::nan("")}), "null");
  // 1, -2, the largest, the smallest, infinity, NaN, -0.
  EXPECT_EQ(Numbers<uint16_t>({7}, DType::kFloat16, {0x3c00, 0xc000, 0x7bff, 0x0001, 0x7c00, 0x7e00, 0x8000}),
            "[1.0,-2.0,65504.0,5.9604645e-08,null,null,-0.0]");
}

TEST(JsonReply, Shapes) {
  EXPECT_EQ(Numbers<uint8_t>({1}, DType::kUint8, {5}), "[5]");
  EXPECT_EQ(Numbers<uint8_t>({2, 1, 2}, DType::kUint8, {1, 2, 3, 4}), "[[[1,2]],[[3,4]]]");
  EXPECT_EQ(Numbers<uint8_t>({0}, DType::kUint8, {}), "[]");
  EXPECT_EQ(Numbers<uint8_t>({2, 0, 3}, DType::kUint8, {}), "[[],[]]");
  EXPECT_EQ(Numbers<uint8_t>({0, 1000000000, 1000000000}, DType::kUint8, {}), "[]");
}

// A few bytes in the reply must not become very many in JSON.
TEST(JsonReply, VeryManyEmptyArrays) {
  for (const Dims& dims : {Dims{1'000'000'000'000, 0}, Dims{300, 300, 0}, Dims{1, 1'000'000'000'000'000'000, 0}}) {
    const std::string json = Json(ReplyInstance(Item("y", NumericTensor(dims, 3, ""))));
    EXPECT_THAT(json,
                testing::StartsWith(
                    R"({"instances":[{"error_msg":"Failed to construct the response: output y: a result of shape ()"));
    EXPECT_LT(json.size(), 300u);
  }
}

TEST(JsonReply, Texts) {
  EXPECT_EQ(Value(TextTensor({1}, 13, {"ABC123"})), "\"ABC123\"");
  EXPECT_EQ(Value(TextTensor({}, 13, {""})), "\"\"");
  EXPECT_EQ(Value(TextTensor({1}, 13, {std::string("\"\\/\b\f\n\r\t\0\x1f\x7f", 11)})),
            "\"\\\"\\\\/\\u0008\\u000c\\n\\r\\t\\u0000\\u001f\x7f\"");
  EXPECT_EQ(Value(TextTensor({1}, 13, {"h\xc3\xa9 \xf0\x9f\x98\x80"})), "\"h\xc3\xa9 \xf0\x9f\x98\x80\"");
  EXPECT_EQ(Value(TextTensor({2}, 13, {"a", "b"})), R"(["a","b"])");
  EXPECT_EQ(Value(TextTensor({2, 1}, 13, {"a", "b"})), R"([["a"],["b"]])");
  EXPECT_EQ(Value(TextTensor({0}, 13, {})), "[]");
  EXPECT_EQ(Value(TextTensor({1}, 14, {"ut_test"})), R"({"b64":"dXRfdGVzdA=="})");
  EXPECT_EQ(Value(TextTensor({2}, 14, {"", "\xff"})), R"([{"b64":""},{"b64":"/w=="}])");
  // A string that is none.
  EXPECT_EQ(Value(TextTensor({1}, 13, {"\xff"})), R"({"b64":"/w=="})");
}

TEST(JsonReply, InstancesAndErrors) {
  const std::string one = Item("y", NumericTensor({}, 3, "\x07"));
  EXPECT_EQ(Json(""), R"({"instances":[]})");
  EXPECT_EQ(Json(Field(1, test::Spec("s", "m", 1)) + ReplyInstance(one) + ReplyInstance("")),
            R"({"instances":[{"y":7},{}]})");
  EXPECT_EQ(Json(ReplyInstance(one + Item("z\"", TextTensor({1}, 13, {"t"})))), R"({"instances":[{"y":7,"z\"":"t"}]})");
  EXPECT_EQ(Json(ReplyInstance("") + ReplyInstance(one) + ReplyError(2, "bad \"x\"") + ReplyError(0, "")),
            R"({"instances":[{"error_msg":"bad \"x\""},{"y":7}]})");
  EXPECT_EQ(Json(ReplyInstance("") + ReplyError(2, "bad")), R"({"instances":[{"error_msg":"bad"}]})");
  EXPECT_EQ(Json(ReplyError(1, "all is bad")), R"({"error_msg":"all is bad"})");
  EXPECT_EQ(Json(ReplyError(1, "a\xff\xc3\xa9\xe2\x82z")),
            "{\"error_msg\":\"a\xef\xbf\xbd\xc3\xa9\xef\xbf\xbd\xef\xbf\xbdz\"}");
  EXPECT_EQ(Json(test::GoldenReply()),
            R"({"instances":[{"y":[[1,-2]],"z":0.5},{"error_msg":"bad"},{"y":[],"z":[{"b64":"YQ=="},{"b64":""}]}]})");
}

TEST(JsonReply, TensorsThatAreNone) {
  const std::string begin = R"({"instances":[{"error_msg":"Failed to construct the response: output y: )";
  EXPECT_THAT(Json(ReplyInstance(Item("y", NumericTensor({2}, 3, "a")))), testing::StartsWith(begin));
  EXPECT_THAT(Json(ReplyInstance(Item("y", NumericTensor({1}, 99, "a")))),
              testing::StartsWith(begin + "unknown data type 99"));
}

TEST(JsonReply, WhatIsNoReply) {
  const std::string one = ReplyInstance(Item("y", NumericTensor({}, 3, "\x07")));
  for (const std::string& reply :
       {std::string("\x1a\x05"), std::string("\xff"), ReplyInstance("\x0a\x05"), one + one + ReplyError(1, "a"),
        one + ReplyError(1, "a") + ReplyError(1, "b"), ReplyError(1, "a") + ReplyError(1, "b")}) {
    const Result<std::string> json = PredictReplyToJson(Bytes(reply));
    ASSERT_FALSE(json.ok());
    EXPECT_EQ(json.status().code(), Code::kInternal);
    EXPECT_THAT(json.status().message(), testing::StartsWith("the PredictReply "));
  }
}

}  // namespace
}  // namespace mindserve::wire
