#include "wire/field_map.h"

#include <gtest/gtest.h>

#include <cstring>

#include "wire/test_messages.h"

namespace mindserve::wire {
namespace {

using test::Bytes;
using test::Field;
using test::Number;
using test::Varint;

template <typename T>
std::string Raw(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}
template <typename T>
std::string Fixed(uint32_t field, T value) {
  return Number(uint64_t{field} << 3 | (sizeof(T) == 8 ? 1 : 5)) + Raw(value);
}

FieldMap Map(std::vector<MappedInput> inputs, std::vector<MappedField> fields) {
  auto map = FieldMap::Create(std::move(inputs), std::move(fields));
  EXPECT_TRUE(map.ok()) << map.status().ToString();
  return *std::move(map);
}
// The Iris message: four floats as one vector.
FieldMap Vector() {
  std::vector<MappedField> fields;
  for (uint32_t i = 0; i < 4; ++i) fields.push_back({"f" + std::to_string(i + 1), i + 1, FieldType::kFloat, 0, i});
  return Map({{DType::kFloat32, {4}}}, std::move(fields));
}

template <typename T>
std::vector<T> Elements(const Tensor& tensor) {
  std::vector<T> values(tensor.data().size() / sizeof(T));
  std::memcpy(values.data(), tensor.data().data(), tensor.data().size());
  return values;
}
// The only element of a message with this one field.
template <typename T>
T One(FieldType type, DType dtype, const std::string& message) {
  std::vector<Tensor> inputs;
  const Status status = Map({{dtype, {}}}, {{"f", 1, type, 0, 0}}).Read(Bytes(message), nullptr, &inputs);
  EXPECT_TRUE(status.ok()) << status.ToString();
  if (!status.ok()) return {};
  EXPECT_EQ(inputs[0].shape(), Shape{});
  return Elements<T>(inputs[0]).at(0);
}

TEST(FieldMapTest, FieldsBecomeAVector) {
  // In any order; the last of several counts, others are skipped.
  const std::string message = Fixed(4, 4.0f) + test::UnknownFields() + Fixed(1, 7.0f) + Fixed(2, 2.0f) + Fixed(1, 1.0f);
  std::vector<Tensor> inputs;
  ASSERT_TRUE(Vector().Read(Bytes(message), nullptr, &inputs).ok());
  ASSERT_EQ(inputs.size(), 1u);
  EXPECT_EQ(inputs[0].shape(), Shape{4});
  EXPECT_EQ(Elements<float>(inputs[0]), (std::vector<float>{1, 2, 0, 4}));
}

TEST(FieldMapTest, ReadsEveryType) {
  EXPECT_EQ(One<double>(FieldType::kDouble, DType::kFloat64, Fixed(1, 0.1)), 0.1);
  EXPECT_EQ(One<float>(FieldType::kFloat, DType::kFloat32, Fixed(1, 0.1f)), 0.1f);
  EXPECT_EQ(One<int64_t>(FieldType::kInt64, DType::kInt64, Varint(1, static_cast<uint64_t>(-5))), -5);
  EXPECT_EQ(One<uint64_t>(FieldType::kUint64, DType::kUint64, Varint(1, UINT64_MAX)), UINT64_MAX);
  EXPECT_EQ(One<int32_t>(FieldType::kInt32, DType::kInt32, Varint(1, static_cast<uint64_t>(-5))), -5);
  EXPECT_EQ(One<uint64_t>(FieldType::kFixed64, DType::kUint64, Fixed(1, uint64_t{7})), 7u);
  EXPECT_EQ(One<uint32_t>(FieldType::kFixed32, DType::kUint32, Fixed(1, uint32_t{7})), 7u);
  EXPECT_EQ(One<uint8_t>(FieldType::kBool, DType::kBool, Varint(1, 300)), 1);
  EXPECT_EQ(One<uint32_t>(FieldType::kUint32, DType::kUint32, Varint(1, UINT32_MAX)), UINT32_MAX);
  EXPECT_EQ(One<int32_t>(FieldType::kEnum, DType::kInt32, Varint(1, 3)), 3);
  EXPECT_EQ(One<int32_t>(FieldType::kSfixed32, DType::kInt32, Fixed(1, int32_t{-7})), -7);
  EXPECT_EQ(One<int64_t>(FieldType::kSfixed64, DType::kInt64, Fixed(1, int64_t{-7})), -7);
  EXPECT_EQ(One<int32_t>(FieldType::kSint32, DType::kInt32, Varint(1, 5)), -3);
  EXPECT_EQ(One<int64_t>(FieldType::kSint64, DType::kInt64, Varint(1, 5)), -3);
}

TEST(FieldMapTest, NumbersBecomeTheInputsType) {
  EXPECT_EQ(One<float>(FieldType::kInt32, DType::kFloat32, Varint(1, 5)), 5.0f);
  EXPECT_EQ(One<float>(FieldType::kDouble, DType::kFloat32, Fixed(1, 0.1)), 0.1f);
  EXPECT_EQ(One<int8_t>(FieldType::kInt64, DType::kInt8, Varint(1, 127)), 127);
  std::vector<Tensor> inputs;
  const auto map = Map({{DType::kInt8, {}}}, {{"age", 1, FieldType::kInt64, 0, 0}});
  const Status status = map.Read(Bytes(Varint(1, 128)), nullptr, &inputs);
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_EQ(status.message(), "its field 'age' has 128, which is out of the range of int8");
  EXPECT_FALSE(inputs[0]);
}

TEST(FieldMapTest, TextsAreViews) {
  const auto map = Map({{DType::kString, {1}}, {DType::kBytes, {1}}},
                       {{"name", 1, FieldType::kString, 0, 0}, {"raw", 2, FieldType::kBytes, 1, 0}});
  const std::string message = Field(1, "h\xc3\xa9") + Field(2, "\xff");
  const auto owner = std::make_shared<int>(1);
  std::vector<Tensor> inputs;
  ASSERT_TRUE(map.Read(Bytes(message), owner, &inputs).ok());
  EXPECT_EQ(inputs[0].elements().front(), "h\xc3\xa9");
  EXPECT_EQ(inputs[1].elements().front(), "\xff");
  EXPECT_EQ(owner.use_count(), 3);
  ASSERT_TRUE(map.Read({}, owner, &inputs).ok());
  EXPECT_EQ(inputs[0].elements().front(), "");
  const Status status = map.Read(Bytes(Field(1, "\xff")), owner, &inputs);
  EXPECT_EQ(status.message(), "its field 'name' is not valid UTF-8");
}

TEST(FieldMapTest, BytesAreNoStringsUnlessTheyAreUtf8) {
  const auto map = Map({{DType::kString, {1}}}, {{"raw", 1, FieldType::kBytes, 0, 0}});
  std::vector<Tensor> inputs;
  const std::string text = Field(1, "h\xc3\xa9");
  ASSERT_TRUE(map.Read(Bytes(text), nullptr, &inputs).ok());
  EXPECT_EQ(inputs[0].elements().front(), "h\xc3\xa9");
  EXPECT_EQ(map.Read(Bytes(Field(1, "\xff")), nullptr, &inputs).message(), "its field 'raw' is not valid UTF-8");
}

TEST(FieldMapTest, RepeatedFieldsAreVectorsPackedOrNot) {
  const auto map =
      Map({{DType::kInt64, {}, true}, {DType::kFloat64, {}, true}, {DType::kString, {}, true}},
          {{"n", 1, FieldType::kSint64, 0, 0}, {"d", 2, FieldType::kDouble, 1, 0}, {"s", 3, FieldType::kString, 2, 0}});
  const std::string message = Field(1, Number(1) + Number(600)) + Varint(1, 5) + Fixed(2, 0.5) +
                              Field(2, Raw(1.5) + Raw(2.5)) + Field(3, "a") + Field(3, "");
  std::vector<Tensor> inputs;
  ASSERT_TRUE(map.Read(Bytes(message), nullptr, &inputs).ok());
  EXPECT_EQ(Elements<int64_t>(inputs[0]), (std::vector<int64_t>{-1, 300, -3}));
  EXPECT_EQ(Elements<double>(inputs[1]), (std::vector<double>{0.5, 1.5, 2.5}));
  EXPECT_EQ(inputs[2].shape(), Shape{2});
  EXPECT_EQ(inputs[2].elements()[0], "a");
  ASSERT_TRUE(map.Read({}, nullptr, &inputs).ok());
  EXPECT_EQ(inputs[0].shape(), Shape{0});
  for (const std::string& broken : {Field(1, "\x80"), Field(2, "1234567"), Field(1, std::string(11, '\xff'))}) {
    EXPECT_EQ(map.Read(Bytes(broken), nullptr, &inputs).code(), Code::kInvalidArgument);
  }
}

TEST(FieldMapTest, TruncatedMessagesAreRefused) {
  const std::string message = Fixed(1, 1.0f) + Fixed(2, 2.0f) + Field(102, "unknown");
  const FieldMap map = Vector();
  std::vector<Tensor> inputs;
  for (size_t size = 0; size < message.size(); ++size) {
    const Status status = map.Read(Bytes(message.substr(0, size)), nullptr, &inputs);
    EXPECT_EQ(status.ok(), size == 0 || size == 5 || size == 10) << size;
    if (!status.ok()) {
      EXPECT_NE(status.message().find("doesn't parse at byte"), std::string::npos);
    }
  }
}

TEST(FieldMapTest, BitFlipsReadNothingOutside) {
  const auto map = Map({{DType::kInt32, {}, true}, {DType::kFloat32, {2}}, {DType::kString, {1}}},
                       {{"n", 1, FieldType::kInt32, 0, 0},
                        {"a", 2, FieldType::kFloat, 1, 0},
                        {"b", 3, FieldType::kFloat, 1, 1},
                        {"s", 4, FieldType::kString, 2, 0}});
  const std::string message =
      Field(1, Number(1) + Number(300) + Number(5)) + Fixed(2, 1.0f) + Fixed(3, 2.0f) + Field(4, "text") + Varint(1, 4);
  for (size_t bit = 0; bit < message.size() * 8; ++bit) {
    std::string flipped = message;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    std::vector<Tensor> inputs;
    const Status status = map.Read(Bytes(flipped), nullptr, &inputs);
    EXPECT_EQ(status.ok(), static_cast<bool>(inputs.front())) << bit;
  }
}

TEST(FieldMapTest, WhatDoesNotFitIsRefusedWhenItIsMade) {
  const auto refused = [](std::vector<MappedInput> inputs, std::vector<MappedField> fields) {
    return FieldMap::Create(std::move(inputs), std::move(fields)).status().code();
  };
  const MappedField number{"f", 1, FieldType::kFloat, 0, 0};
  EXPECT_EQ(refused({{DType::kString, {1}}}, {number}), Code::kInvalidArgument);
  EXPECT_EQ(refused({{DType::kFloat16, {1}}}, {number}), Code::kInvalidArgument);
  EXPECT_EQ(refused({{DType::kFloat32, {2}}}, {number}), Code::kInvalidArgument);
  EXPECT_EQ(refused({}, {number}), Code::kInvalidArgument);
  EXPECT_EQ(refused({{DType::kFloat32, {}}}, {number, {"g", 2, FieldType::kFloat, 0, 0}}), Code::kInvalidArgument);
  EXPECT_EQ(refused({{DType::kFloat32, {2}}}, {number, {"g", 1, FieldType::kFloat, 0, 1}}), Code::kInvalidArgument);
  EXPECT_EQ(refused({{DType::kFloat32, {1}}}, {{"t", 1, FieldType::kString, 0, 0}}), Code::kInvalidArgument);
}

}  // namespace
}  // namespace mindserve::wire
