#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <memory>

#include "wire/predict.h"
#include "wire/test_messages.h"

namespace mindserve::wire {
namespace {

using test::Bytes;
using test::Dims;
using test::Field;
using test::Instance;
using test::Item;
using test::NumericTensor;
using test::PackedShape;
using test::Spec;
using test::TextTensor;
using test::UnknownFields;
using test::UnpackedShape;
using test::Varint;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

constexpr size_t kMany = 100'000;
constexpr uint64_t kFloat32 = 11;
constexpr uint64_t kInt8 = 2;
constexpr uint64_t kString = 13;
constexpr uint64_t kBytes = 14;

// Reads a request of one instance with these items.
Status ReadOne(const std::string& items, const std::vector<std::string>& names, std::vector<Tensor>* slots) {
  const auto request = std::make_shared<const std::string>(Instance(items));
  InstanceReader reader(Bytes(*request), names, request);
  EXPECT_TRUE(reader.Next());
  Status status = reader.Read(slots);
  EXPECT_FALSE(reader.Next());
  EXPECT_TRUE(reader.status().ok());
  return status;
}

// Whether a tensor, as the one input "x", is read; the text of what is wrong with it otherwise.
Status ReadX(const std::string& tensor) {
  std::vector<Tensor> slots;
  return ReadOne(Item("x", tensor), {"x"}, &slots);
}

TEST(InstanceReader, ReadsWhatProtobufWrites) {
  const auto request = std::make_shared<const std::string>(test::GoldenRequest());
  const std::vector<std::string> names = {"x1"};
  InstanceReader reader(Bytes(*request), names, request);
  std::vector<Tensor> slots;
  for (float last : {4.0f, 5.0f}) {
    ASSERT_TRUE(reader.Next());
    ASSERT_TRUE(reader.Read(&slots).ok());
    ASSERT_THAT(slots, SizeIs(1));
    EXPECT_EQ(slots[0].dtype(), DType::kFloat32);
    EXPECT_EQ(slots[0].shape(), (Shape{2, 2}));
    std::array<float, 4> values{};
    std::memcpy(values.data(), slots[0].data().data(), sizeof values);
    EXPECT_THAT(values, ElementsAre(1, 2, 3, last));
  }
  EXPECT_FALSE(reader.Next());
  EXPECT_FALSE(reader.Next());
  EXPECT_TRUE(reader.status().ok());
}

TEST(InstanceReader, GivesViewsThatHoldTheOwner) {
  const auto request = std::make_shared<const std::string>(test::GoldenRequest());
  const std::vector<std::string> names = {"x1", "s"};
  std::vector<Tensor> slots;
  {
    InstanceReader reader(Bytes(*request), names, request);
    ASSERT_TRUE(reader.Next());
    EXPECT_FALSE(reader.Read(&slots).ok());
    ASSERT_TRUE(reader.Next());
    ASSERT_TRUE(reader.Read(&slots).ok());
  }
  const char* const data = reinterpret_cast<const char*>(slots[0].data().data());
  EXPECT_EQ(data, request->data() + request->size() - 16);
  EXPECT_THAT(slots[1].elements(), ElementsAre("h\xc3\xa9"));
  EXPECT_EQ(slots[1].elements()[0].data(), request->data() + request->find("h\xc3\xa9"));
  EXPECT_EQ(request.use_count(), 3);
  slots.clear();
  EXPECT_EQ(request.use_count(), 1);
}

TEST(InstanceReader, ReadsEveryNumericType) {
  for (const DTypeInfo& info : kDTypes) {
    if (info.size == 0) continue;
    std::string data(6 * info.size, '\0');
    for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 37 + 1);
    for (const Dims& dims : {Dims{6}, Dims{2, 3}, Dims{1, 6, 1}, Dims{1, 1, 1, 1, 1, 1, 2, 3}}) {
      std::vector<Tensor> slots;
      const std::string request = Instance(Item("x", NumericTensor(dims, static_cast<uint64_t>(info.dtype), data)));
      const std::vector<std::string> names = {"x"};
      InstanceReader reader(Bytes(request), names, nullptr);
      ASSERT_TRUE(reader.Next());
      ASSERT_TRUE(reader.Read(&slots).ok()) << info.name;
      EXPECT_EQ(slots[0].dtype(), info.dtype);
      EXPECT_EQ(slots[0].shape(), Shape(std::span<const int64_t>(dims)));
      EXPECT_EQ(test::Text(slots[0].data()), data);
    }
  }
}

TEST(InstanceReader, ReadsScalarsHoweverTheyAreWritten) {
  const std::string data(4, 'x');
  const std::vector<std::string> tensors = {
      Field(1, "") + Varint(2, kFloat32) + Field(3, data),            // an empty TensorShape
      Varint(2, kFloat32) + Field(3, data),                           // none
      Field(1, Field(1, "")) + Varint(2, kFloat32) + Field(3, data),  // empty packed dims
  };
  for (const std::string& tensor : tensors) {
    std::vector<Tensor> slots;
    ASSERT_TRUE(ReadOne(Item("x", tensor), {"x"}, &slots).ok());
    EXPECT_EQ(slots[0].shape(), Shape{});
    EXPECT_EQ(slots[0].data().size(), 4u);
  }
  std::vector<Tensor> slots;
  ASSERT_TRUE(ReadOne(Item("x", TextTensor({}, kString, {"one"})), {"x"}, &slots).ok());
  EXPECT_EQ(slots[0].shape(), Shape{});
}

TEST(InstanceReader, ReadsShapesWithoutElements) {
  for (const Dims& dims : {Dims{0}, Dims{3, 0}, Dims{0, 0, 5}}) {
    std::vector<Tensor> slots;
    ASSERT_TRUE(ReadOne(Item("x", NumericTensor(dims, kFloat32, "")), {"x"}, &slots).ok());
    EXPECT_EQ(slots[0].shape(), Shape(std::span<const int64_t>(dims)));
    EXPECT_TRUE(slots[0].data().empty());
    ASSERT_TRUE(ReadOne(Item("x", TextTensor(dims, kBytes, {})), {"x"}, &slots).ok());
    EXPECT_TRUE(slots[0].elements().empty());
  }
  EXPECT_TRUE(ReadX(Field(1, PackedShape({0})) + Varint(2, kFloat32)).ok()) << "data may be left out";
}

TEST(InstanceReader, ReadsPackedAndUnpackedDims) {
  const std::string rest = Varint(2, kInt8) + Field(3, std::string(600, 'x'));
  const std::vector<std::string> shapes = {
      Field(1, PackedShape({2, 300})),
      Field(1, UnpackedShape({2, 300})),
      Field(1, UnpackedShape({2}) + UnknownFields() + PackedShape({300})),
      Field(1, PackedShape({2}) + PackedShape({300})),
      Field(1, PackedShape({2})) + Field(1, UnpackedShape({300})),  // the shape itself in two parts
  };
  for (const std::string& shape : shapes) {
    std::vector<Tensor> slots;
    const Status status = ReadOne(Item("x", shape + rest), {"x"}, &slots);
    ASSERT_TRUE(status.ok()) << status.ToString();
    EXPECT_EQ(slots[0].shape(), (Shape{2, 300}));
  }
}

TEST(InstanceReader, ReadsFieldsInAnyOrder) {
  std::vector<Tensor> slots;
  const std::string tensor = Field(3, "ab") + UnknownFields() + Varint(2, kInt8) + Field(1, PackedShape({2}));
  const std::string item = Field(1, Field(2, tensor) + UnknownFields() + Field(1, "x"));
  ASSERT_TRUE(ReadOne(UnknownFields() + item, {"x"}, &slots).ok());
  EXPECT_EQ(test::Text(slots[0].data()), "ab");
  const std::string text = Field(4, "a") + Field(4, "bc") + Varint(2, kBytes) + Field(1, PackedShape({2}));
  ASSERT_TRUE(ReadOne(Item("x", text), {"x"}, &slots).ok());
  EXPECT_THAT(slots[0].elements(), ElementsAre("a", "bc"));
}

TEST(InstanceReader, TheLastOfRepeatedScalarFieldsCounts) {
  std::vector<Tensor> slots;
  const std::string tensor = Varint(2, 99) + NumericTensor({2}, kFloat32, "wrong") + Varint(2, kInt8) + Field(3, "ab");
  ASSERT_TRUE(ReadOne(Item("x", tensor), {"x"}, &slots).ok());
  EXPECT_EQ(slots[0].dtype(), DType::kInt8);
  EXPECT_EQ(test::Text(slots[0].data()), "ab");
}

TEST(InstanceReader, ReadsStringsAndBytesAsTheyAre) {
  const std::vector<std::string> elements = {"", "text", std::string("\0nul", 4), "\xff\xfe no UTF-8",
                                             std::string(300, 'l')};
  for (uint64_t dtype : {kString, kBytes}) {
    const std::string request = Instance(Item("x", TextTensor({5, 1}, dtype, elements)));
    const std::vector<std::string> names = {"x"};
    InstanceReader reader(Bytes(request), names, nullptr);
    std::vector<Tensor> slots;
    ASSERT_TRUE(reader.Next());
    ASSERT_TRUE(reader.Read(&slots).ok());
    EXPECT_EQ(static_cast<uint64_t>(slots[0].dtype()), dtype);
    EXPECT_EQ(slots[0].shape(), (Shape{5, 1}));
    EXPECT_THAT(slots[0].elements(), testing::ElementsAreArray(elements));
  }
}

// The same tensor at each alignment.
TEST(InstanceReader, ReadsUnalignedData) {
  std::array<double, 3> values = {1.5, -2.5, 3.5};
  const std::string data(reinterpret_cast<const char*>(values.data()), sizeof values);
  const std::vector<std::string> names = {"x"};
  size_t aligned = 0;
  for (size_t shift = 0; shift < 8; ++shift) {
    const std::string request = Field(100, std::string(shift, '-')) + Instance(Item("x", NumericTensor({3}, 12, data)));
    alignas(8) std::array<std::byte, 128> buffer{};
    std::memcpy(buffer.data(), request.data(), request.size());
    const std::span<const std::byte> bytes(buffer.data(), request.size());
    InstanceReader reader(bytes, names, nullptr);
    std::vector<Tensor> slots;
    ASSERT_TRUE(reader.Next());
    ASSERT_TRUE(reader.Read(&slots).ok());
    aligned += slots[0].aligned() ? 1 : 0;
    const Tensor tensor = slots[0].Aligned();
    EXPECT_EQ(std::memcmp(tensor.data().data(), values.data(), sizeof values), 0);
  }
  EXPECT_EQ(aligned, 1u);
}

TEST(InstanceReader, PutsInputsIntoTheirSlotsWhateverTheirOrder) {
  std::vector<std::string> names = {"a", "b", "c", "d"};
  std::vector<std::string> order = names;
  do {
    std::string items;
    for (const std::string& name : order) {
      items += Item(name + "_", "") + Item(name, TextTensor({1}, kString, {name + "!"}));
    }
    const std::string request = Instance(items);
    InstanceReader reader(Bytes(request), names, nullptr);
    ASSERT_TRUE(reader.Next());
    std::vector<Tensor> slots;
    ASSERT_TRUE(reader.Read(&slots).ok());
    for (size_t i = 0; i < names.size(); ++i) EXPECT_THAT(slots[i].elements(), ElementsAre(names[i] + "!"));
  } while (std::ranges::next_permutation(order).found);
}

TEST(InstanceReader, TakesTheLastOfInputsOfOneName) {
  std::vector<Tensor> slots;
  const std::string items = Item("x", NumericTensor({1}, 99, "bad")) + Item("y", NumericTensor({1}, kInt8, "y")) +
                            Item("x", NumericTensor({1}, kInt8, "x"));
  ASSERT_TRUE(ReadOne(items, {"x", "y"}, &slots).ok());
  EXPECT_EQ(slots[0].shape(), Shape{1});
}

TEST(InstanceReader, IgnoresWhatIsNoInputWhateverItHolds) {
  std::vector<Tensor> slots;
  EXPECT_TRUE(ReadOne(Item("y", "\xff\xff") + Item("x", NumericTensor({1}, kInt8, "x")), {"x"}, &slots).ok());
  EXPECT_TRUE(ReadOne(Item("y", "\xff\xff"), {}, &slots).ok());
  EXPECT_TRUE(slots.empty());
}

TEST(InstanceReader, SaysWhichInputIsMissing) {
  std::vector<Tensor> slots;
  const std::string x2 = Item("x2", NumericTensor({1}, kInt8, "x"));
  EXPECT_EQ(ReadOne(x2, {"x1", "x2"}, &slots),
            Status(Code::kInvalidArgument, "Cannot find input x1 in instance input"));
  EXPECT_EQ(ReadOne(x2, {"x2", "x3"}, &slots).message(), "Cannot find input x3 in instance input");
  EXPECT_EQ(ReadOne("", {"x1"}, &slots).message(), "Cannot find input x1 in instance input");
}

TEST(InstanceReader, AMapEntryWithoutKeyHasTheEmptyKey) {
  std::vector<Tensor> slots;
  const std::string item = Field(1, Field(2, NumericTensor({1}, kInt8, "x")));
  EXPECT_EQ(ReadOne(item, {"x"}, &slots).message(), "Cannot find input x in instance input");
  EXPECT_TRUE(ReadOne(item, {""}, &slots).ok());
}

TEST(InstanceReader, AMapEntryWithoutValueIsATensorWithoutType) {
  std::vector<Tensor> slots;
  EXPECT_EQ(ReadOne(Field(1, Field(1, "x")), {"x"}, &slots),
            Status(Code::kInvalidArgument, "input x: unknown data type 0"));
  EXPECT_EQ(ReadOne(Field(1, ""), {""}, &slots), Status(Code::kInvalidArgument, "input : unknown data type 0"));
}

TEST(InstanceReader, RefusesUnknownTypes) {
  for (uint64_t dtype : {uint64_t{0}, uint64_t{15}, uint64_t{100}, uint64_t{1} << 31, ~uint64_t{0}}) {
    const Status status = ReadX(NumericTensor({1}, dtype, "x"));
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr("input x: unknown data type"));
  }
  EXPECT_THAT(ReadX(NumericTensor({1}, ~uint64_t{0}, "x")).message(), HasSubstr("-1"));
}

TEST(InstanceReader, SaysBothSizesWhenDataDoesNotFitTheShape) {
  EXPECT_EQ(ReadX(NumericTensor({2, 2}, kFloat32, "12345678")),
            Status(Code::kInvalidArgument, "input x: a kMSI_Float32 tensor of shape (2, 2) needs 16 bytes, given 8"));
  for (const DTypeInfo& info : kDTypes) {
    if (info.size == 0) continue;
    const auto dtype = static_cast<uint64_t>(info.dtype);
    EXPECT_TRUE(ReadX(NumericTensor({3}, dtype, std::string(3 * info.size, 'x'))).ok());
    EXPECT_FALSE(ReadX(NumericTensor({3}, dtype, std::string(3 * info.size - 1, 'x'))).ok());
    EXPECT_FALSE(ReadX(NumericTensor({3}, dtype, std::string(3 * info.size + 1, 'x'))).ok());
    EXPECT_FALSE(ReadX(NumericTensor({3}, dtype, "")).ok());
    EXPECT_FALSE(ReadX(TextTensor({3}, dtype, {"a", "b", "c"})).ok()) << "bytes_val is for text";
  }
}

TEST(InstanceReader, SaysBothCountsWhenElementsDoNotFitTheShape) {
  EXPECT_EQ(ReadX(TextTensor({3}, kString, {"a", "b"})),
            Status(Code::kInvalidArgument, "input x: a kMSI_String tensor of shape (3,) needs 3 elements, given 2"));
  EXPECT_FALSE(ReadX(TextTensor({1}, kBytes, {})).ok());
  EXPECT_FALSE(ReadX(TextTensor({0}, kBytes, {"a"})).ok());
  EXPECT_FALSE(ReadX(NumericTensor({1}, kString, "a")).ok()) << "text stands in bytes_val";
}

TEST(InstanceReader, RefusesShapesThatNoTensorHas) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  for (const Dims& dims : {Dims{-1}, Dims{-1, -1}, Dims{0, -1}, Dims{kMax, kMax}, Dims{kMax}, Dims{kMax, 2, 0},
                           Dims{std::numeric_limits<int64_t>::min()}, Dims{1LL << 31, 1LL << 31, 1LL << 2}}) {
    for (const std::string& tensor : {NumericTensor(dims, kFloat32, "1234"), TextTensor(dims, kString, {"a"}),
                                      Field(1, UnpackedShape(dims)) + Varint(2, kFloat32) + Field(3, "1234")}) {
      const Status status = ReadX(tensor);
      EXPECT_EQ(status.code(), Code::kInvalidArgument) << Shape(std::span<const int64_t>(dims)).ToString();
      EXPECT_THAT(status.message(), HasSubstr("input x: "));
    }
  }
}

TEST(InstanceReader, BoundsTheRank) {
  EXPECT_TRUE(ReadX(NumericTensor(Dims(32, 1), kInt8, "x")).ok());
  EXPECT_THAT(ReadX(NumericTensor(Dims(33, 1), kInt8, "x")).message(), HasSubstr("more than 32 dimensions"));
  EXPECT_THAT(ReadX(Field(1, UnpackedShape(Dims(33, 1))) + Varint(2, kInt8) + Field(3, "x")).message(),
              HasSubstr("more than 32 dimensions"));
}

TEST(InstanceReader, AShapeThatLiesAboutItsElementsCostsNoMemory) {
  EXPECT_FALSE(ReadX(TextTensor({1LL << 60}, kString, {"a"})).ok());
}

TEST(InstanceReader, AFailedInstanceLeavesTheOthersAlone) {
  const auto instance = [](const std::string& tensor) { return Instance(Item("x", tensor)); };
  const auto request = std::make_shared<const std::string>(
      instance(NumericTensor({1}, kInt8, "a")) + instance(NumericTensor({2}, kInt8, "b")) + Instance("") +
      instance("\xff") + Instance("\x0a\x7f") + instance(NumericTensor({1}, kInt8, "f")));
  const std::vector<std::string> names = {"x"};
  InstanceReader reader(Bytes(*request), names, request);
  std::vector<Tensor> slots;
  std::string outcome;
  while (reader.Next()) {
    const Status status = reader.Read(&slots);
    ASSERT_THAT(slots, SizeIs(1));
    EXPECT_EQ(status.ok(), static_cast<bool>(slots[0]));
    // The reader holds the request itself; a failed instance's slots must not.
    EXPECT_EQ(request.use_count(), status.ok() ? 3 : 2);
    EXPECT_TRUE(status.ok() || status.code() == Code::kInvalidArgument || status.code() == Code::kDataLoss);
    outcome += status.ok() ? test::Text(slots[0].data()) : "-";
  }
  EXPECT_TRUE(reader.status().ok());
  EXPECT_EQ(outcome, "a----f");
}

TEST(InstanceReader, ReadsTheSameInstanceAgain) {
  const std::string request = Instance(Item("x", NumericTensor({1}, kInt8, "a")));
  const std::vector<std::string> names = {"x"};
  InstanceReader reader(Bytes(request), names, nullptr);
  std::vector<Tensor> slots;
  EXPECT_FALSE(reader.Read(&slots).ok()) << "before Next() there is none";
  ASSERT_TRUE(reader.Next());
  EXPECT_TRUE(reader.Read(&slots).ok());
  EXPECT_TRUE(reader.Read(&slots).ok());
}

TEST(InstanceReader, StopsAtWhatDoesNotParse) {
  const std::string request = Instance("") + "\x12\x05" + "ab";
  const std::vector<std::string> names;
  InstanceReader reader(Bytes(request), names, nullptr);
  EXPECT_TRUE(reader.Next());
  EXPECT_FALSE(reader.Next());
  EXPECT_EQ(reader.status().code(), Code::kInvalidArgument);
  EXPECT_THAT(reader.status().message(), HasSubstr("of 6"));
  EXPECT_FALSE(reader.Next()) << "and stays there";
  EXPECT_FALSE(reader.status().ok());
}

TEST(InstanceReader, ReadsManyInstances) {
  std::string request = Field(1, Spec("add", "run", 0));
  for (size_t i = 0; i < kMany; ++i) {
    const auto value = static_cast<uint32_t>(i);
    std::string data(4, '\0');
    std::memcpy(data.data(), &value, sizeof value);
    request += Instance(Item("x", NumericTensor({1}, 7, data)));
  }
  const std::vector<std::string> names = {"x"};
  InstanceReader reader(Bytes(request), names, nullptr);
  std::vector<Tensor> slots;
  size_t count = 0;
  size_t right = 0;
  for (; reader.Next(); ++count) {
    ASSERT_TRUE(reader.Read(&slots).ok());
    uint32_t value = 0;
    std::memcpy(&value, slots[0].data().data(), sizeof value);
    right += value == count ? 1 : 0;
  }
  EXPECT_TRUE(reader.status().ok());
  EXPECT_EQ(count, kMany);
  EXPECT_EQ(right, kMany);
}

}  // namespace
}  // namespace mindserve::wire
