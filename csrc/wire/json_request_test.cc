#include "wire/json_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "wire/json_fixture.h"
#include "wire/test_messages.h"

namespace mindserve::wire {
namespace {

using test::Converted;
using test::ConvertedValue;
using test::Elements;
using test::OneInput;
using test::Refusal;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

void ExpectTensor(const Tensor& tensor, DType dtype, const Shape& shape) {
  EXPECT_EQ(tensor.dtype(), dtype) << tensor.Describe();
  EXPECT_EQ(tensor.shape(), shape) << tensor.Describe();
}

TEST(JsonRequest, Numbers) {
  Tensor tensor = ConvertedValue("7");
  ExpectTensor(tensor, DType::kInt32, {});
  EXPECT_THAT(Elements<int32_t>(tensor), ElementsAre(7));
  EXPECT_THAT(Elements<int32_t>(ConvertedValue("-0")), ElementsAre(0));
  EXPECT_THAT(Elements<int32_t>(ConvertedValue("2147483647")), ElementsAre(std::numeric_limits<int32_t>::max()));
  EXPECT_THAT(Elements<int32_t>(ConvertedValue("-2147483648")), ElementsAre(std::numeric_limits<int32_t>::min()));

  for (const auto& [text, value] : std::vector<std::pair<std::string, float>>{
           {"2.3", 2.3f},
           {"-0.0", -0.0f},
           {"1.0", 1.0f},
           {"1e2", 100.0f},
           {"1E+2", 100.0f},
           {"25e-1", 2.5f},
           {"3.4028234663852886e38", std::numeric_limits<float>::max()},
           {"1e-45", std::numeric_limits<float>::denorm_min()},
           {"1e-400", 0.0f},
           {"0.1000000014901161193847656250000000000000000000001", 0.1f},
       }) {
    tensor = ConvertedValue(text);
    ExpectTensor(tensor, DType::kFloat32, {});
    EXPECT_THAT(Elements<float>(tensor), ElementsAre(value)) << text;
  }
}

TEST(JsonRequest, BoolsAndStrings) {
  ExpectTensor(ConvertedValue("true"), DType::kBool, {});
  EXPECT_THAT(Elements<uint8_t>(ConvertedValue("true")), ElementsAre(1));
  EXPECT_THAT(Elements<uint8_t>(ConvertedValue("false")), ElementsAre(0));

  Tensor tensor = ConvertedValue("\"ut_test\"");
  ExpectTensor(tensor, DType::kString, {1});
  EXPECT_THAT(tensor.elements(), ElementsAre("ut_test"));
  EXPECT_THAT(ConvertedValue("\"\"").elements(), ElementsAre(""));
  EXPECT_THAT(ConvertedValue("\"h\xc3\xa9\"").elements(), ElementsAre("h\xc3\xa9"));
  EXPECT_THAT(ConvertedValue(R"("\" \\ \/ \n \u00e9 \ud83d\ude00")").elements(),
              ElementsAre("\" \\ / \n \xc3\xa9 \xf0\x9f\x98\x80"));
  EXPECT_THAT(ConvertedValue(R"("a\u0000b")").elements(), ElementsAre(std::string_view("a\0b", 3)));
  ExpectTensor(ConvertedValue("[\"one\"]"), DType::kString, {1});
  EXPECT_THAT(ConvertedValue("[\"one\"]").elements(), ElementsAre("one"));
}

TEST(JsonRequest, Arrays) {
  Tensor tensor = ConvertedValue("[1,2,3]");
  ExpectTensor(tensor, DType::kInt32, {3});
  EXPECT_THAT(Elements<int32_t>(tensor), ElementsAre(1, 2, 3));
  tensor = ConvertedValue("[[1.1, 2.2]]");
  ExpectTensor(tensor, DType::kFloat32, {1, 2});
  EXPECT_THAT(Elements<float>(tensor), ElementsAre(1.1f, 2.2f));
  tensor = ConvertedValue(" [ [ true , false ] , [ false , true ] ] ");
  ExpectTensor(tensor, DType::kBool, {2, 2});
  EXPECT_THAT(Elements<uint8_t>(tensor), ElementsAre(1, 0, 0, 1));
  tensor = ConvertedValue("[[[1],[2]],[[3],[4]],[[5],[-6]]]");
  ExpectTensor(tensor, DType::kInt32, {3, 2, 1});
  EXPECT_THAT(Elements<int32_t>(tensor), ElementsAre(1, 2, 3, 4, 5, -6));
  tensor = ConvertedValue("[{\"b64\": \"dXQ=\"}]");
  ExpectTensor(tensor, DType::kBytes, {1});
  EXPECT_THAT(tensor.elements(), ElementsAre("ut"));
}

// Across the blocks in which elements are collected.
TEST(JsonRequest, ArraysOfEverySize) {
  for (size_t rows : {1, 2, 7, 1023, 1024, 1025, 5000}) {
    for (size_t columns : {1, 3, 511}) {
      if (rows * columns > 200'000) continue;
      std::string text = "[";
      std::vector<int32_t> expected;
      for (size_t row = 0; row < rows; ++row) {
        text += row == 0 ? "[" : ",[";
        for (size_t column = 0; column < columns; ++column) {
          expected.push_back(static_cast<int32_t>(row * 1000 - column));
          text += (column == 0 ? "" : ",") + std::to_string(expected.back());
        }
        text += "]";
      }
      const Tensor tensor = ConvertedValue(text + "]");
      ExpectTensor(tensor, DType::kInt32, {static_cast<int64_t>(rows), static_cast<int64_t>(columns)});
      EXPECT_EQ(Elements<int32_t>(tensor), expected);
    }
  }
}

TEST(JsonRequest, DeepestArray) {
  const Tensor tensor = ConvertedValue(std::string(32, '[') + "1.5" + std::string(32, ']'));
  EXPECT_EQ(tensor.shape().rank(), 32u);
  const Status status = Refusal(OneInput(std::string(33, '[') + "1.5" + std::string(33, ']')));
  EXPECT_EQ(status.code(), Code::kOutOfRange);
  EXPECT_EQ(status.message(), "the array has more than 32 dimensions (input 'x' of instance 0)");
}

TEST(JsonRequest, ObjectsOfEveryType) {
  const std::vector<std::pair<std::string, DType>> types = {
      {"int8", DType::kInt8},       {"int16", DType::kInt16},     {"int32", DType::kInt32},
      {"int64", DType::kInt64},     {"uint8", DType::kUint8},     {"uint16", DType::kUint16},
      {"uint32", DType::kUint32},   {"uint64", DType::kUint64},   {"fp16", DType::kFloat16},
      {"fp32", DType::kFloat32},    {"fp64", DType::kFloat64},    {"float16", DType::kFloat16},
      {"float32", DType::kFloat32}, {"float64", DType::kFloat64}, {"bool", DType::kBool},
  };
  // Twelve bytes, for a type of each size and eight for the largest.
  const std::pair<std::string_view, std::string> data[] = {{"QUJDREVGR0hJSktM", "ABCDEFGHIJKL"},
                                                           {"QUJDREVGR0g=", "ABCDEFGH"}};
  for (const auto& [name, dtype] : types) {
    const auto& [text, bytes] = data[Info(dtype).size == 8 ? 1 : 0];
    const auto count = static_cast<int64_t>(bytes.size() / Info(dtype).size);
    const Tensor tensor = ConvertedValue("{\"b64\":\"" + std::string(text) + "\",\"type\":\"" + name +
                                         "\",\"shape\":[1," + std::to_string(count) + "]}");
    ExpectTensor(tensor, dtype, {1, count});
    EXPECT_EQ(test::Text(tensor.data()), bytes) << name;
  }
  for (const auto& [name, dtype] : {std::pair("str", DType::kString), std::pair("bytes", DType::kBytes)}) {
    for (const char* shape : {"", ",\"shape\":[]", ",\"shape\":[1]"}) {
      const Tensor tensor =
          ConvertedValue(std::string("{\"b64\":\"dXRfdGVzdA==\",\"type\":\"") + name + "\"" + shape + "}");
      ExpectTensor(tensor, dtype, {1});
      EXPECT_THAT(tensor.elements(), ElementsAre("ut_test"));
    }
  }
}

TEST(JsonRequest, Objects) {
  ExpectTensor(ConvertedValue("{\"b64\":\"\"}"), DType::kBytes, {1});
  EXPECT_THAT(ConvertedValue("{\"b64\":\"\"}").elements(), ElementsAre(""));
  // Without a shape, a scalar.
  Tensor tensor = ConvertedValue("{\"shape\":[],\"type\":\"int32\",\"b64\":\"BwAAAA==\"}");
  ExpectTensor(tensor, DType::kInt32, {});
  EXPECT_THAT(Elements<int32_t>(tensor), ElementsAre(7));
  tensor = ConvertedValue("{\"b64\":\"\",\"type\":\"int32\",\"shape\":[1,0]}");
  ExpectTensor(tensor, DType::kInt32, {1, 0});
  EXPECT_THAT(tensor.data(), IsEmpty());
  // As some programs write a slash.
  EXPECT_THAT(ConvertedValue(R"({"b64":"\/\/8="})").elements(), ElementsAre("\xff\xff"));
}

TEST(JsonRequest, Instances) {
  auto instances = Converted(R"({"instances": [{"a": 1, "b": "x"}, {"b": "y", "a": 2}]})", {"a", "b"});
  ASSERT_EQ(instances.size(), 2u);
  EXPECT_THAT(Elements<int32_t>(instances[1][0]), ElementsAre(2));
  EXPECT_THAT(instances[1][1].elements(), ElementsAre("y"));
  // One alone needs no array; other keys are of no interest, whatever they hold.
  instances =
      Converted(R"({"id": [{}, [], null, "\u0041", -1e-5], "instances": {"a": 1}, "z": {"instances": 1}})", {"a"});
  ASSERT_EQ(instances.size(), 1u);
  instances = Converted("\xef\xbb\xbf{\"instances\": {\"h\xc3\xa9\": 1}}\n", {"h\xc3\xa9"});
  ASSERT_EQ(instances.size(), 1u);
}

// As protobuf writes it, so that whoever compares bytes finds nothing strange.
TEST(JsonRequest, BytesOfARequest) {
  using test::Field;
  const auto request =
      PredictRequestFromJson(R"({"instances": [{"x": [[1],[2]], "s": "t"}, {"x": 3}]})", {"s", "m", 0});
  ASSERT_TRUE(request.ok());
  const std::string two("\x01\0\0\0\x02\0\0\0", 8);
  const std::string three("\x03\0\0\0", 4);
  EXPECT_EQ(*request, Field(1, test::Spec("s", "m", 0)) +
                          test::Instance(test::Item("x", test::NumericTensor({2, 1}, 6, two)) +
                                         test::Item("s", test::TextTensor({1}, 13, {"t"}))) +
                          test::Instance(test::Item("x", test::NumericTensor({}, 6, three))));
}

struct Wrong {
  std::string body;
  std::string text;
};

TEST(JsonRequest, TextsOfWrongInstances) {
  const std::vector<Wrong> cases = {
      {"{}", "key 'instances' expects to exist once, but actually 0 times"},
      {"[]", "key 'instances' expects to exist once, but actually 0 times"},
      {"[{\"instances\": []}]", "key 'instances' expects to exist once, but actually 0 times"},
      {" 1 ", "key 'instances' expects to exist once, but actually 0 times"},
      {"\"a\\n\"", "key 'instances' expects to exist once, but actually 0 times"},
      {"null", "key 'instances' expects to exist once, but actually 0 times"},
      {"{\"instance\": [{\"x\": 1}]}", "key 'instances' expects to exist once, but actually 0 times"},
      {"{\"instances\": [{\"x\": 1}], \"instances\": 1}",
       "key 'instances' expects to exist once, but actually 2 times"},
      {"{\"instances\": []}", "instances value is array type, but no value"},
      {"{\"instances\": 1}", "instances no key mode is not supported"},
      {"{\"instances\": [1]}", "instances no key mode is not supported"},
      {"{\"instances\": [[{\"x\": 1}]]}", "instances no key mode is not supported"},
      {"{\"instances\": [{\"x\": 1}, 1]}", "json array, instance is not object type"},
      {"{\"instances\": [{\"x\": 1}, {}]}", "json array, instance is object type, but no value (instance 1)"},
      {"{\"instances\": {\"\": 1}}", "string key is empty (instance 0)"},
      {OneInput("null"), "json value is null, it is not supported (input 'x' of instance 0)"},
  };
  for (const auto& [body, text] : cases) {
    const Status status = Refusal(body);
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << body;
    EXPECT_EQ(status.message(), "Parser request failed, " + text) << body;
  }
}

TEST(JsonRequest, TextsOfWrongArrays) {
  const std::vector<Wrong> cases = {
      {"[]", "json array, shape is empty"},
      {"[[]]", "json array, data type is unknown"},
      {"[[],[1]]", "json array, data type is unknown"},
      {"[null]", "json array, data type is unknown"},
      {"[[false,true],[1,1]]", "json array, elements type is not equal"},
      {"[[false,1]]", "json array, elements type is not equal"},
      {"[[1.1,1.2],[1,1]]", "json array, elements type is not equal"},
      {"[1.1,1]", "json array, elements type is not equal"},
      {"[[1,1],[1.1,1.2]]", "json array, elements type is not equal"},
      {"[1,1.2]", "json array, elements type is not equal"},
      {"[[1.1,1.2],[\"a\",\"b\"]]", "json array, elements type is not equal"},
      {"[1,\"b\"]", "json array, elements type is not equal"},
      {"[\"a\",\"b\"]", "json array, string or bytes type only support one item"},
      {"[\"a\",[\"a\"]]", "json array, string or bytes type only support one item"},
      {"[[\"a\"],[\"b\"]]", "json array, string or bytes type only support one item"},
      {"[[\"a\",\"b\"],[1.1,1.2]]", "json array, string or bytes type only support one item"},
      {"[[\"a\",1.2]]", "json array, string or bytes type only support one item"},
      {"[[{\"b64\":\"\"},{\"b64\":\"\"}],[\"a\",\"b\"]]", "json array, string or bytes type only support one item"},
      {"[{\"b64\":\"\"},{\"b64\":\"\"}]", "json array, string or bytes type only support one item"},
      {"[{\"b64\":\"AA==\",\"type\":\"int8\"}]",
       "json array, item is object type, object only support string or bytes type"},
      {"[[true,false],[{\"b64\":\"\"},{\"b64\":\"\"}]]", "json array, data should be number, bool, string or bytes"},
      {"[false,[true]]", "json array, data should be number, bool, string or bytes"},
      {"[1,null]", "json array, data should be number, bool, string or bytes"},
      {"[1.5,{}]", "json array, data should be number, bool, string or bytes"},
      {"[[false],true]", "invalid json array: json type is not array"},
      {"[[1],{}]", "invalid json array: json type is not array"},
      {"[[false,true],[true]]", "invalid json array: json size is 1, the dim 1 expected to be 2"},
      {"[[1],[1,2]]", "invalid json array: json size is 2, the dim 1 expected to be 1"},
      {"[[1],[]]", "invalid json array: json size is 0, the dim 1 expected to be 1"},
      {"[[[false,true]],[[true]]]", "invalid json array: json size is 1, the dim 2 expected to be 2"},
      {"[[[1,2]],[[1,2],[3,4]]]", "invalid json array: json size is 2, the dim 1 expected to be 1"},
      // The length of a row is looked at before what is in it.
      {"[[1,2],[1,\"a\",3]]", "invalid json array: json size is 3, the dim 1 expected to be 2"},
      {"[[[1,2]],[[1,\"a\"],[3,4]]]", "invalid json array: json size is 2, the dim 1 expected to be 1"},
      {"[[\"a\"]]",
       "Instance tensor check failed: bytes or string type input  shape can only be (1,) or empty, but given shape is "
       "[1, 1]"},
  };
  for (const auto& [value, text] : cases) {
    const Status status = Refusal(OneInput(value));
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << value;
    EXPECT_THAT(status.message(), StartsWith("Parser request failed, " + text)) << value;
    EXPECT_THAT(status.message(), testing::EndsWith(" (input 'x' of instance 0)")) << value;
  }
}

TEST(JsonRequest, TextsOfWrongObjects) {
  const std::vector<Wrong> cases = {
      {"{}", "json object, value is empty"},
      {"{\"base64\":\"AA==\"}", "json object, key is not ['b64', 'type', 'shape'], fail key:base64"},
      {"{\"type\":\"int8\"}", "json object, 'b64' should be specified only one time"},
      {"{\"b64\":\"AA==\",\"b64\":\"AA==\"}", "json object, 'b64' should be specified only one time"},
      {"{\"b64\":\"AA==\",\"type\":\"int8\",\"type\":\"int8\"}",
       "json object, 'type' should be specified no more than one time"},
      {"{\"b64\":\"AA==\",\"shape\":[],\"shape\":[]}",
       "json object, 'shape' should be specified no more than one time"},
      {"{\"b64\":1}", "get scalar data failed, type is string, but json is not string type"},
      {"{\"b64\":\"AA==\",\"type\":1}", "json object, key is 'type', value should be string type"},
      {"{\"b64\":\"AA==\",\"type\":\"INt\"}", "json object, specified type:'INt' is illegal"},
      {"{\"b64\":\"AA==\",\"shape\":3}", "json object, key is 'shape', value should be array type"},
      {"{\"b64\":\"AA==\",\"shape\":[[3],[2]]}", "json object, key is 'shape', array value should be unsigned integer"},
      {"{\"b64\":\"AA==\",\"shape\":[3.0]}", "json object, key is 'shape', array value should be unsigned integer"},
      {"{\"b64\":\"AA==\",\"shape\":[3,-2]}", "json object, key is 'shape', array value should be unsigned integer"},
      {"{\"b64\":\"\",\"type\":\"int32\",\"shape\":[1,2,0,1]}",
       "json object, key is 'shape', invalid shape value [1, 2, 0, 1]"},
      {"{\"b64\":\"\",\"type\":\"int32\",\"shape\":[2147483648]}",
       "json object, key is 'shape', invalid shape value []"},
      {"{\"b64\":\"\",\"type\":\"int32\",\"shape\":[2147483647,2147483647,2147483647]}",
       "json object, key is 'shape', invalid shape value [2147483647, 2147483647, 2147483647]"},
      {"{\"b64\":\"\",\"type\":\"int32\",\"shape\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]"
       "}",
       "json object, key is 'shape', invalid shape value [1, 1"},
      {"{\"b64\":\"AA\"}", "'AA' is illegal b64 encode string"},
      {"{\"b64\":\"A===\"}", "'A===' is illegal b64 encode string"},
      {"{\"b64\":\"AA\\n=\"}", "'AA\n=' is illegal b64 encode string"},
      {"{\"b64\":\"" + std::string(1001, 'A') + "\"}", "'" + std::string(64, 'A') + "…' is illegal b64 encode string"},
      {"{\"b64\":\"AQACAAIAAwADAAQA\",\"type\":\"int16\",\"shape\":[3,3]}",
       "size is not matched, decode base64 size:12; Given info: type:int16; type size:2; element nums:9"},
      {"{\"b64\":\"\",\"type\":\"fp32\"}",
       "size is not matched, decode base64 size:0; Given info: type:float32; type size:4; element nums:1"},
      {"{\"b64\":\"AAAA\",\"type\":\"int16\",\"shape\":[1]}", "size is not matched"},
      {"{\"b64\":\"AA==\",\"type\":\"str\",\"shape\":[2]}",
       "json object, only support scalar when data type is string or bytes, please check 'type' or 'shape'"},
      {"{\"b64\":\"AA==\",\"shape\":[0]}",
       "json object, only support scalar when data type is string or bytes, please check 'type' or 'shape'"},
      {"{\"b64\":\"AA==\",\"shape\":[1,1]}",
       "Instance tensor check failed: bytes or string type input  shape can only be (1,) or empty, but given shape is "
       "[1, 1]"},
  };
  for (const auto& [value, text] : cases) {
    const Status status = Refusal(OneInput(value));
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << value;
    EXPECT_THAT(status.message(), StartsWith("Parser request failed, " + text)) << value;
  }
}

// MindSpore Serving has no texts for these: it cuts such numbers, and takes the last of two inputs.
TEST(JsonRequest, WhatIsRefusedBesides) {
  const std::vector<Wrong> cases = {
      {OneInput("2147483648"), "the number 2147483648 does not fit int32"},
      {OneInput("-2147483649"), "the number -2147483649 does not fit int32"},
      {OneInput("[1,99999999999999999999999999]"), "the number 99999999999999999999999999 does not fit int32"},
      {OneInput("[99999999999999999999999999]"), "the number 99999999999999999999999999 does not fit int32"},
      {OneInput("3.5e38"), "the number 3.5e38 does not fit float32"},
      {OneInput("[0.5,-1e999]"), "the number -1e999 does not fit float32"},
      {OneInput("1" + std::string(500, '0')), "the number 1" + std::string(63, '0') + "… does not fit int32"},
      {R"({"instances": [{"x": 1, "y": 2, "x": 1}]})", "the input 'x' stands twice (instance 0)"},
      {R"({"instances": [{"x": 1, "\u0078": 1}]})", "the input 'x' stands twice (instance 0)"},
  };
  for (const auto& [body, text] : cases) {
    const Status status = Refusal(body);
    EXPECT_EQ(status.code(), Code::kOutOfRange) << body;
    EXPECT_THAT(status.message(), StartsWith(text)) << body;
  }
}

}  // namespace
}  // namespace mindserve::wire
