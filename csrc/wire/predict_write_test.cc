#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <limits>

#include "wire/predict.h"
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
using testing::IsEmpty;
using testing::SizeIs;

// The instances and error_msg fields of a reply.
std::string Result(std::string_view items) {
  return Field(3, items);
}
std::string Error(uint64_t code, std::string_view message) {
  return Field(4, Varint(1, code) + Field(2, message));
}
std::string NoError() {
  return Field(4, "");
}

Tensor Numeric(DType dtype, const Dims& dims, std::string_view data) {
  auto tensor = Tensor::View(dtype, Shape(std::span<const int64_t>(dims)), Bytes(data), nullptr);
  EXPECT_TRUE(tensor.ok()) << tensor.status().ToString();
  return *std::move(tensor);
}

Tensor Texts(DType dtype, const Dims& dims, std::vector<std::string_view> elements) {
  auto tensor = Tensor::TextView(dtype, Shape(std::span<const int64_t>(dims)), std::move(elements), nullptr);
  EXPECT_TRUE(tensor.ok()) << tensor.status().ToString();
  return *std::move(tensor);
}

InstanceReply Good(std::vector<Tensor> outputs) {
  return {std::move(outputs), ErrorCode::kSuccess, {}};
}
InstanceReply Bad(ErrorCode code, std::string error) {
  return {{}, code, std::move(error)};
}

// Writes between guards, which must stay as they were.
std::string Write(const std::vector<std::string>& names, const std::vector<InstanceReply>& replies) {
  const ReplyWriter writer(names, replies);
  constexpr size_t kGuard = 16;
  std::string bytes(writer.size() + 2 * kGuard, '#');
  writer.WriteTo(std::as_writable_bytes(std::span(bytes)).subspan(kGuard, writer.size()));
  EXPECT_EQ(bytes.substr(0, kGuard), std::string(kGuard, '#'));
  EXPECT_EQ(bytes.substr(bytes.size() - kGuard), std::string(kGuard, '#'));
  return bytes.substr(kGuard, writer.size());
}

TEST(ReplyWriter, WritesWhatProtobufWrites) {
  const std::array<int32_t, 2> y = {1, -2};
  const double z = 0.5;
  const std::string_view y_bytes(reinterpret_cast<const char*>(y.data()), sizeof y);
  const std::string_view z_bytes(reinterpret_cast<const char*>(&z), sizeof z);
  const std::vector<InstanceReply> replies = {
      Good({Numeric(DType::kInt32, {1, 2}, y_bytes), Numeric(DType::kFloat64, {}, z_bytes)}),
      Bad(ErrorCode::kInvalidInput, "bad"),
      Good({Numeric(DType::kInt32, {0}, ""), Texts(DType::kBytes, {2}, {"a", ""})}),
  };
  EXPECT_EQ(Write({"y", "z"}, replies), test::GoldenReply());
}

TEST(ReplyWriter, WritesNothingForNoInstances) {
  const ReplyWriter writer({}, {});
  EXPECT_EQ(writer.size(), 0u);
  EXPECT_FALSE(writer.has_errors());
  writer.WriteTo({});
}

TEST(ReplyWriter, WritesAnInstanceWithoutOutputs) {
  EXPECT_EQ(Write({}, {Good({})}), Result(""));
}

TEST(ReplyWriter, WritesEveryNumericType) {
  for (const DTypeInfo& info : kDTypes) {
    if (info.size == 0) continue;
    std::string data(6 * info.size, '\0');
    for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 41 + 3);
    for (const Dims& dims : {Dims{6}, Dims{3, 2}, Dims{1, 1, 1, 1, 1, 1, 1, 6}}) {
      EXPECT_EQ(Write({"y"}, {Good({Numeric(info.dtype, dims, data)})}),
                Result(Item("y", NumericTensor(dims, static_cast<uint64_t>(info.dtype), data))));
    }
  }
}

TEST(ReplyWriter, AScalarHasAnEmptyShapeMessage) {
  EXPECT_EQ(Write({"y"}, {Good({Numeric(DType::kInt8, {}, "a")})}),
            Result(Field(1, Field(1, "y") + Field(2, std::string("\x0a\x00\x10\x02\x1a\x01"
                                                                 "a",
                                                                 7)))));
}

TEST(ReplyWriter, WritesStringsAndBytes) {
  const std::string nul("\0\xff", 2);
  const std::string big(300, 'b');
  for (DType dtype : {DType::kString, DType::kBytes}) {
    EXPECT_EQ(Write({"y"}, {Good({Texts(dtype, {3, 1}, {"", nul, big})})}),
              Result(Item("y", TextTensor({3, 1}, static_cast<uint64_t>(dtype), {"", nul, big}))));
    EXPECT_EQ(Write({"y"}, {Good({Texts(dtype, {0}, {})})}),
              Result(Item("y", TextTensor({0}, static_cast<uint64_t>(dtype), {}))));
  }
}

// Lengths on both sides of each border at which a varint grows, for every nesting level.
TEST(ReplyWriter, SizesAreRightWhereVarintsGrow) {
  for (size_t border : {size_t{128}, size_t{16384}}) {
    for (size_t size = border - 40; size <= border + 1; ++size) {
      const std::string data(size, 'd');
      const auto n = static_cast<int64_t>(size);
      ASSERT_EQ(Write({"y"}, {Good({Numeric(DType::kUint8, {n}, data)})}),
                Result(Item("y", NumericTensor({n}, 3, data))));
      ASSERT_EQ(Write({data}, {Good({Numeric(DType::kUint8, {}, "x")})}),
                Result(Item(data, NumericTensor({}, 3, "x"))));
      ASSERT_EQ(Write({"y"}, {Bad(ErrorCode::kFailed, data)}), Result("") + Error(1, data));
      ASSERT_EQ(Write({"y"}, {Good({Texts(DType::kString, {1}, {data})})}),
                Result(Item("y", TextTensor({1}, 13, {data}))));
    }
  }
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  for (const Dims& dims : {Dims{0, 127, 128, 16384}, Dims{0, kMax}, Dims(20, 0)}) {
    EXPECT_EQ(Write({"y"}, {Good({Numeric(DType::kInt8, dims, "")})}), Result(Item("y", NumericTensor(dims, 2, ""))));
  }
}

TEST(ReplyWriter, WritesAnErrorForEachInstanceOnceOneFailed) {
  const InstanceReply good = Good({Numeric(DType::kInt8, {1}, "a")});
  const std::string result = Result(Item("y", NumericTensor({1}, 2, "a")));
  EXPECT_EQ(Write({"y"}, {good, good}), result + result);
  EXPECT_EQ(Write({"y"}, {good, Bad(ErrorCode::kFailed, "no"), good, Bad(ErrorCode::kSystemError, "")}),
            result + Result("") + result + Result("") + NoError() + Error(1, "no") + NoError() + Error(3, ""));
  EXPECT_EQ(Write({"y"}, {Bad(ErrorCode::kInvalidInput, "no")}), Result("") + Error(2, "no"));
}

TEST(ReplyWriter, SaysWhetherThereAreErrors) {
  const std::vector<std::string> names = {"y"};
  const std::vector<InstanceReply> good = {Good({Numeric(DType::kInt8, {1}, "a")})};
  const std::vector<InstanceReply> bad = {good[0], Bad(ErrorCode::kWorkerUnavailable, "gone")};
  EXPECT_FALSE(ReplyWriter(names, good).has_errors());
  EXPECT_TRUE(ReplyWriter(names, bad).has_errors());
}

TEST(ReplyWriter, AFailedInstancesOutputsAreNotWritten) {
  InstanceReply reply = Bad(ErrorCode::kFailed, "late");
  reply.outputs.push_back(Numeric(DType::kInt8, {1}, "a"));
  EXPECT_EQ(Write({"y"}, {reply}), Result("") + Error(1, "late"));
}

TEST(ReplyWriter, ReadsBackWhatItWrote) {
  const std::vector<std::string> names = {"a", "b", "c"};
  std::vector<InstanceReply> replies;
  std::vector<std::string> data;
  data.reserve(300);
  for (size_t i = 0; i < 100; ++i) {
    std::vector<Tensor> outputs;
    for (size_t k = 0; k < 3; ++k) {
      const std::string& bytes = data.emplace_back((i + 1) * (k + 1) * 4, static_cast<char>(i + k));
      outputs.push_back(Numeric(DType::kFloat32, {static_cast<int64_t>(i + 1), static_cast<int64_t>(k + 1)}, bytes));
    }
    replies.push_back(Good(std::move(outputs)));
  }
  // A reply's instances are a request's but for the field number.
  std::string bytes = Write(names, replies);
  std::string request;
  for (size_t at = 0; at < bytes.size();) {
    ASSERT_EQ(bytes[at], '\x1a');
    size_t length = 0;
    size_t head = at + 1;
    for (unsigned shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(bytes[head++]);
      length |= static_cast<size_t>(byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    request += test::Instance(std::string_view(bytes).substr(head, length));
    at = head + length;
  }
  InstanceReader reader(Bytes(request), names, nullptr);
  std::vector<Tensor> slots;
  for (const InstanceReply& reply : replies) {
    ASSERT_TRUE(reader.Next());
    ASSERT_TRUE(reader.Read(&slots).ok());
    for (size_t k = 0; k < 3; ++k) {
      EXPECT_EQ(slots[k].dtype(), reply.outputs[k].dtype());
      EXPECT_EQ(slots[k].shape(), reply.outputs[k].shape());
      EXPECT_EQ(test::Text(slots[k].data()), test::Text(reply.outputs[k].data()));
    }
  }
  EXPECT_FALSE(reader.Next());
}

TEST(ReplyWriter, WritesManyInstances) {
  constexpr size_t kMany = 100'000;
  std::vector<InstanceReply> replies(kMany, Good({Numeric(DType::kInt8, {1}, "a")}));
  replies.back() = Bad(ErrorCode::kFailed, "last");
  const std::string one = Result(Item("y", NumericTensor({1}, 2, "a")));
  const std::string bytes = Write({"y"}, replies);
  EXPECT_THAT(bytes, SizeIs((kMany - 1) * (one.size() + 2) + 2 + Error(1, "last").size()));
  EXPECT_TRUE(bytes.starts_with(one + one));
  EXPECT_TRUE(bytes.ends_with(NoError() + NoError() + Error(1, "last")));
}

TEST(ErrorReply, HoldsSpecAndError) {
  const std::string spec = test::Spec("add", "run", 3);
  EXPECT_EQ(ErrorReply(spec, ErrorCode::kServableUnavailable, "gone"), Field(1, spec) + Error(5, "gone"));
  EXPECT_EQ(ErrorReply("", ErrorCode::kFailed, "gone"), Error(1, "gone"));
  const std::string big(20'000, 'e');
  EXPECT_EQ(ErrorReply(spec, ErrorCode::kFailed, big), Field(1, spec) + Error(1, big));
}

TEST(SpecField, IsTheFieldOrNothing) {
  EXPECT_EQ(SpecField(std::string_view(test::GoldenSpec()).substr(2)), test::GoldenSpec());
  EXPECT_THAT(SpecField(""), IsEmpty());
  const std::string big(200, 's');
  EXPECT_EQ(SpecField(big), Field(1, big));
}

TEST(SuccessErrors, AreEmptyErrorMessages) {
  EXPECT_THAT(SuccessErrors(0), IsEmpty());
  EXPECT_EQ(SuccessErrors(1), NoError());
  EXPECT_EQ(SuccessErrors(3), NoError() + NoError() + NoError());
}

TEST(CountErrorCodes, AddsUpWhatTheReplyHas) {
  std::array<uint64_t, kErrorCodes> counts{};
  const auto error = [](uint64_t code) { return test::Field(4, test::Varint(1, code) + test::Field(2, "text")); };
  const std::string reply = test::Field(3, "instance") + error(2) + error(0) + error(1) + error(2) + error(77);
  CountErrorCodes(test::Bytes(reply), counts);
  EXPECT_EQ(counts, (std::array<uint64_t, kErrorCodes>{1, 2, 2, 0, 0, 0}));
  // As far as it parses.
  for (size_t size = 0; size < reply.size(); ++size) CountErrorCodes(test::Bytes(reply).first(size), counts);
  CountErrorCodes(test::Bytes(error(UINT64_MAX)), counts);
  EXPECT_EQ(counts[5], 0u);
}

}  // namespace
}  // namespace mindserve::wire
