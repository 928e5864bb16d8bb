#include "wire/classifier.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "wire/test_messages.h"

namespace mindserve::wire {
namespace {

using test::Bytes;
using test::Field;
using test::Text;
using test::Varint;

constexpr std::string_view kUrl = "type.googleapis.com/iris.Flower";

std::string AnyOf(std::string_view url, std::string_view value) {
  return Field(1, url) + Field(2, value);
}
std::string Request(std::string_view puid, std::string_view url, std::string_view value) {
  return Field(1, Field(1, puid)) + Field(2, AnyOf(url, value));
}

std::string Double(uint32_t field, double value) {
  std::string bytes = test::Number(uint64_t{field} << 3 | 1);
  char eight[8];
  std::memcpy(eight, &value, 8);
  return bytes.append(eight, 8);
}
// An entry of `predictions`, as Google's protobuf writes it.
std::string Prediction(double prediction, std::string_view name, double confidence) {
  return Field(2, Double(1, prediction) + Field(2, name) + Double(3, confidence));
}

template <typename T>
Tensor Numbers(DType dtype, Shape shape, std::vector<T> values) {
  std::span<std::byte> bytes;
  auto tensor = Tensor::Allocate(dtype, std::move(shape), &bytes);
  EXPECT_EQ(bytes.size(), values.size() * sizeof(T));
  std::ranges::copy(std::as_bytes(std::span(values)), bytes.begin());
  return *std::move(tensor);
}
Tensor Doubles(std::vector<double> values) {
  const Shape shape{static_cast<int64_t>(values.size())};
  return Numbers(DType::kFloat64, shape, std::move(values));
}
Tensor Texts(std::vector<std::string_view> texts) {
  const Shape shape{static_cast<int64_t>(texts.size())};
  return *Tensor::TextView(DType::kString, shape, std::move(texts), nullptr);
}

const std::vector<std::string> kNames = {"p", "names", "conf", "custom"};

std::string Written(const ClassificationOutputs& map, const std::vector<Tensor>& outputs,
                    std::string_view model = "m") {
  const auto writer = ClassificationWriter::Create(map, kNames, outputs, model);
  EXPECT_TRUE(writer.ok()) << writer.status().ToString();
  if (!writer.ok()) return "";
  std::string out(writer->size(), '\x7f');
  writer->WriteTo(std::as_writable_bytes(std::span(out)));
  return out;
}
std::string Failure(const ClassificationOutputs& map, const std::vector<Tensor>& outputs) {
  const auto writer = ClassificationWriter::Create(map, kNames, outputs, "m");
  EXPECT_FALSE(writer.ok());
  EXPECT_EQ(writer.status().code(), Code::kInternal);
  return writer.status().message();
}

TEST(ClassifierTest, TheGatewayFindsPuidAndData) {
  const std::string request = test::UnknownFields() + Request("12345", kUrl, "abc") + test::UnknownFields();
  ClassificationRoute route;
  ASSERT_TRUE(ReadClassificationRoute(Bytes(request), &route).ok());
  EXPECT_EQ(route.puid, "12345");
  // By itself it is a request of the same data.
  const std::string data = request.substr(route.data.offset, route.data.length);
  EXPECT_EQ(data, Field(2, AnyOf(kUrl, "abc")));
}

TEST(ClassifierTest, WhatStandsSeveralTimesIsMerged) {
  const std::string request = Request("1", "x/a.B", "first") + Field(2, Field(2, "last")) + Field(1, Field(1, "2")) +
                              Field(1, "") + Field(2, Field(1, "y/c.D"));
  ClassificationRoute route;
  ASSERT_TRUE(ReadClassificationRoute(Bytes(request), &route).ok());
  EXPECT_EQ(route.puid, "2");
  const auto any = ReadClassificationData(Bytes(request).subspan(route.data.offset, route.data.length));
  ASSERT_TRUE(any.ok());
  EXPECT_EQ(any->type, "c.D");
  EXPECT_EQ(Text(any->value), "last");
}

TEST(ClassifierTest, ARequestWithoutDataHasNone) {
  for (const std::string& request : {std::string(), Field(1, Field(1, "12345")), test::UnknownFields()}) {
    ClassificationRoute route;
    ASSERT_TRUE(ReadClassificationRoute(Bytes(request), &route).ok());
    EXPECT_EQ(route.data.length, 0u);
  }
  for (const std::string& data :
       {Field(2, ""), Field(2, Field(2, "value")), Field(2, AnyOf("type.googleapis.com/", ""))}) {
    const auto any = ReadClassificationData(Bytes(data));
    ASSERT_FALSE(any.ok());
    EXPECT_EQ(any.status().code(), Code::kInvalidArgument);
    EXPECT_NE(any.status().message().find("has no data"), std::string::npos);
  }
}

TEST(ClassifierTest, ATypesNameStandsBehindTheLastSlash) {
  for (const auto& [url, type] : std::vector<std::pair<std::string, std::string>>{
           {"type.googleapis.com/a.B", "a.B"}, {"http://x/y/a.B", "a.B"}, {"/B", "B"}}) {
    const std::string data = Field(2, AnyOf(url, "v"));
    const auto any = ReadClassificationData(Bytes(data));
    ASSERT_TRUE(any.ok());
    EXPECT_EQ(any->type, type);
  }
}

TEST(ClassifierTest, ATypesNameAloneIsNoTypeUrl) {
  const std::string data = Field(2, AnyOf("a.B", "v"));
  const auto any = ReadClassificationData(Bytes(data));
  ASSERT_FALSE(any.ok());
  EXPECT_EQ(any.status().code(), Code::kInvalidArgument);
  EXPECT_EQ(
      any.status().message(),
      "the type_url of the ClassificationRequest's data has no '/': expected a prefix, as type.googleapis.com/a.B");
}

TEST(ClassifierTest, TextsThatAreNoUtf8AreRefused) {
  ClassificationRoute route;
  EXPECT_EQ(ReadClassificationRoute(Bytes(Request("\xff", kUrl, "")), &route).code(), Code::kInvalidArgument);
  const std::string data = Field(2, AnyOf("x/\xff", ""));
  EXPECT_EQ(ReadClassificationData(Bytes(data)).status().code(), Code::kInvalidArgument);
}

// Every beginning of a request either parses, as what it then is, or is refused with a place.
TEST(ClassifierTest, TruncatedRequestsAreRefused) {
  const std::string request = Request("12345", kUrl, "abcdef");
  const size_t meta = Field(1, Field(1, "12345")).size();
  for (size_t size = 0; size < request.size(); ++size) {
    const std::string cut = request.substr(0, size);
    ClassificationRoute route;
    const Status status = ReadClassificationRoute(Bytes(cut), &route);
    EXPECT_EQ(status.ok(), size == 0 || size == meta) << size;
    if (!status.ok()) {
      EXPECT_NE(status.message().find("doesn't parse at byte"), std::string::npos);
    }
    (void)ReadClassificationData(Bytes(cut));
  }
}

TEST(ClassifierTest, BitFlipsReadNothingOutside) {
  const std::string request = Request("12345", kUrl, "abcdef") + Field(2, AnyOf("x/y.Z", "q"));
  for (size_t bit = 0; bit < request.size() * 8; ++bit) {
    std::string flipped = request;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    ClassificationRoute route;
    if (!ReadClassificationRoute(Bytes(flipped), &route).ok()) continue;
    ASSERT_LE(route.data.offset + route.data.length, flipped.size());
    const auto any = ReadClassificationData(Bytes(flipped).subspan(route.data.offset, route.data.length));
    if (any.ok()) {
      EXPECT_FALSE(any->type.empty());
    }
  }
}

TEST(ClassifierTest, WritesPredictionsWithTheirClasses) {
  ClassificationOutputs map;
  map.classes = {"setosa", "versicolor"};
  EXPECT_EQ(Written(map, {Doubles({0.25, 0.75})}),
            Field(2, "m") + Prediction(0.25, "setosa", 0.25) + Prediction(0.75, "versicolor", 0.75) + Field(3, ""));
}

TEST(ClassifierTest, ClassesWithoutNamesAreNumbers) {
  EXPECT_EQ(Written({}, {Doubles(std::vector<double>(11, 0.5))}).substr(Field(2, "m").size()), [] {
    std::string all;
    for (int i = 0; i < 11; ++i) all += Prediction(0.5, std::to_string(i), 0.5);
    return all + Field(3, "");
  }());
}

TEST(ClassifierTest, ZerosAreLeftOutAsProto3Has) {
  const std::string written = Written({.classes = {"a", ""}}, {Doubles({0.0, -0.0})}, "");
  EXPECT_EQ(written,
            Field(2, "") + Field(2, Field(2, "a")) + Field(2, Double(1, -0.0) + Double(3, -0.0)) + Field(3, ""));
}

TEST(ClassifierTest, AllTypesOfNumbersBecomeDoubles) {
  const auto first = [](Tensor tensor) {
    const std::string written = Written({.classes = {"c"}}, {std::move(tensor)});
    double value = 0;
    std::memcpy(&value, written.data() + Field(2, "m").size() + 3, 8);
    return value;
  };
  EXPECT_EQ(first(Numbers<uint8_t>(DType::kBool, {1}, {1})), 1);
  EXPECT_EQ(first(Numbers<int8_t>(DType::kInt8, {1}, {-3})), -3);
  EXPECT_EQ(first(Numbers<uint8_t>(DType::kUint8, {1}, {200})), 200);
  EXPECT_EQ(first(Numbers<int16_t>(DType::kInt16, {}, {-300})), -300);
  EXPECT_EQ(first(Numbers<uint16_t>(DType::kUint16, {1, 1}, {60000})), 60000);
  EXPECT_EQ(first(Numbers<int32_t>(DType::kInt32, {1}, {-70000})), -70000);
  EXPECT_EQ(first(Numbers<uint32_t>(DType::kUint32, {1}, {4000000000})), 4000000000.0);
  EXPECT_EQ(first(Numbers<int64_t>(DType::kInt64, {1}, {-1})), -1);
  EXPECT_EQ(first(Numbers<uint64_t>(DType::kUint64, {1}, {1ull << 63})), std::ldexp(1, 63));
  EXPECT_EQ(first(Numbers<uint16_t>(DType::kFloat16, {1}, {0x3800})), 0.5);
  EXPECT_EQ(first(Numbers<float>(DType::kFloat32, {1}, {0.1f})), static_cast<double>(0.1f));
  EXPECT_TRUE(std::isnan(first(Doubles({std::numeric_limits<double>::quiet_NaN()}))));
  EXPECT_EQ(first(Doubles({-std::numeric_limits<double>::infinity()})), -std::numeric_limits<double>::infinity());
}

TEST(ClassifierTest, OutputsMayHaveEachPart) {
  const ClassificationOutputs map{.prediction = 0, .predicted_class = 1, .confidence = 2, .custom = 3};
  const std::string any = AnyOf("x/y.Z", "value");
  const std::vector<Tensor> outputs = {Doubles({1, 2}), Texts({"yes", "no"}), Doubles({3, 4}),
                                       Tensor::Text(DType::kBytes, any)};
  EXPECT_EQ(Written(map, outputs), Field(2, "m") + Prediction(1, "yes", 3) + Prediction(2, "no", 4) + Field(3, any));
}

TEST(ClassifierTest, CustomOfARegisteredTypeIsPacked) {
  const ClassificationOutputs map{.custom = 3, .custom_type = "iris.Note"};
  const auto custom = [&](std::string bytes) {
    const std::vector<Tensor> outputs = {Doubles({}), {}, {}, Tensor::Text(DType::kBytes, std::move(bytes))};
    return Written(map, outputs).substr(Field(2, "m").size());
  };
  EXPECT_EQ(custom("abc"), Field(3, AnyOf("type.googleapis.com/iris.Note", "abc")));
  EXPECT_EQ(custom(""), Field(3, Field(1, "type.googleapis.com/iris.Note")));
  const std::string large(300, 'x');
  EXPECT_EQ(custom(large), Field(3, AnyOf("type.googleapis.com/iris.Note", large)));
}

TEST(ClassifierTest, OutputsThatMakeNoReplyAreNamed) {
  const auto says = [](const std::string& text, std::initializer_list<const char*> parts) {
    for (const char* part : parts) EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  says(Failure({}, {Texts({"a"})}), {"output 'p'", "kMSI_String (1,)", "numbers in one dimension"});
  says(Failure({}, {Numbers<float>(DType::kFloat32, {2, 2}, {1, 2, 3, 4})}), {"output 'p'", "(2, 2)"});
  says(Failure({.classes = {"a"}}, {Doubles({1, 2})}), {"1 numbers, one for each of the classes"});
  says(Failure({.predicted_class = 1, .classes = {"a"}}, {Doubles({1, 2}), Texts({"a", "b"})}),
       {"output 'p'", "1 numbers, one for each of the classes"});
  says(Failure({.predicted_class = 1}, {Doubles({1, 2}), Texts({"a"})}), {"output 'names'", "2 texts"});
  says(Failure({.predicted_class = 1}, {Doubles({1}), Texts({"\xff"})}), {"output 'names'", "UTF-8"});
  says(Failure({.confidence = 2}, {Doubles({1, 2}), {}, Doubles({1})}), {"output 'conf'", "2 numbers"});
  says(Failure({.custom = 3}, {Doubles({1}), {}, {}, Doubles({1})}), {"output 'custom'", "one serialized message"});
  says(Failure({.custom = 3}, {Doubles({1}), {}, {}, Tensor::Text(DType::kBytes, "\x0a\x7f")}),
       {"output 'custom'", "google.protobuf.Any"});
}

TEST(ClassifierTest, MetaTakesTheModelsNameFromTheWorkersPart) {
  const std::string part = Written({}, {Doubles({0.5})}, "model_xgb");
  const auto meta = WriteClassificationMeta("12345", "default", Bytes(part));
  ASSERT_TRUE(meta.ok());
  EXPECT_EQ(*meta + part, Field(1, Field(1, "12345") + Field(3, "default") + Field(2, "model_xgb")) +
                              Prediction(0.5, "0", 0.5) + Field(3, ""));
}

TEST(ClassifierTest, APartThatBeginsOtherwiseIsBroken) {
  for (const std::string& part : {std::string(), Field(1, "x"), Varint(2, 1), std::string("\x12\x7fx"),
                                  std::string("\x12"), Field(3, "") + Field(2, "x")}) {
    const auto meta = WriteClassificationMeta("1", "default", Bytes(part));
    ASSERT_FALSE(meta.ok());
    EXPECT_EQ(meta.status().code(), Code::kInternal);
  }
}

}  // namespace
}  // namespace mindserve::wire
