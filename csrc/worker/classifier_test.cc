#include "worker/classifier.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>

namespace mindserve::worker {
namespace {

std::string Field(int number, std::string_view content) {
  EXPECT_LT(content.size(), 128u);
  std::string field;
  field += static_cast<char>(number << 3 | 2);
  field += static_cast<char>(content.size());
  return field.append(content);
}
std::string Data(std::string_view type, std::string_view value) {
  return Field(2, Field(1, "type.googleapis.com/" + std::string(type)) + Field(2, value));
}
std::string Float(int number, float value) {
  std::string field(5, static_cast<char>(number << 3 | 5));
  std::memcpy(field.data() + 1, &value, 4);
  return field;
}
std::span<const std::byte> Bytes(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// Method 3, of one input; a type whose two fields are its elements, one that goes to method 7, and one whose whole
// request goes to method 8.
Classifier Make() {
  Classifier classifier(3, {"x"}, {}, "model");
  auto fields = wire::FieldMap::Create({{DType::kFloat32, Shape{2}}}, {{"a", 1, wire::FieldType::kFloat, 0, 0},
                                                                       {"b", 2, wire::FieldType::kFloat, 0, 1}});
  EXPECT_TRUE(fields.ok()) << fields.status().ToString();
  classifier.AddFields("pkg.Pair", *std::move(fields));
  classifier.AddHandler("pkg.Handled", {.number = 7, .fixed = true});
  classifier.AddHandler("pkg.Asked", {.number = 8, .takes_request = true});
  return classifier;
}
Status Wrong(const std::string& request) {
  std::vector<Tensor> inputs;
  const auto target = Make().Read(Bytes(request), {}, nullptr, &inputs);
  EXPECT_FALSE(target.ok());
  EXPECT_EQ(target.status().code(), Code::kInvalidArgument);
  return target.status();
}
void Says(const Status& status, std::initializer_list<std::string_view> parts) {
  for (const std::string_view part : parts) {
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
  }
}

TEST(ClassifierTest, FieldsBecomeTheMethodsInputs) {
  std::vector<Tensor> inputs;
  const std::string request = Data("pkg.Pair", Float(2, 2.0f) + Float(1, 1.0f));
  const auto target = Make().Read(Bytes(request), {}, nullptr, &inputs);
  ASSERT_TRUE(target.ok()) << target.status().ToString();
  EXPECT_EQ(target->method, 3);
  ASSERT_EQ(inputs.size(), 1u);
  const float expected[] = {1, 2};
  EXPECT_EQ(std::memcmp(inputs[0].data().data(), expected, sizeof(expected)), 0);
}

TEST(ClassifierTest, AHandlerIsGivenTheBytesWhereTheyLie) {
  std::vector<Tensor> inputs;
  const std::string request = Data("pkg.Handled", "\xff raw");
  const auto owner = std::make_shared<int>(0);
  const auto target = Make().Read(Bytes(request), {}, owner, &inputs);
  ASSERT_TRUE(target.ok()) << target.status().ToString();
  EXPECT_EQ(target->method, 7);
  ASSERT_EQ(inputs.size(), 1u);
  EXPECT_EQ(inputs[0].dtype(), DType::kBytes);
  EXPECT_EQ(inputs[0].elements().front(), "\xff raw");
  EXPECT_EQ(inputs[0].elements().front().data(), request.data() + request.size() - 5);
  EXPECT_EQ(owner.use_count(), 2);
}

TEST(ClassifierTest, OneThatTakesTheRequestIsGivenItAsItCameAndThePuid) {
  const auto owner = std::make_shared<int>(0);
  const auto puid_of = [&](const std::string& request, const RequestKey& key) {
    std::vector<Tensor> inputs;
    const auto target = Make().Read(Bytes(request), key, owner, &inputs);
    EXPECT_TRUE(target.ok()) << target.status().ToString();
    EXPECT_EQ(target->method, 8);
    EXPECT_EQ(inputs.size(), 2u);
    EXPECT_EQ(inputs[0].dtype(), DType::kBytes);
    EXPECT_EQ(inputs[0].elements().front().data(), request.data());
    EXPECT_EQ(inputs[0].elements().front().size(), request.size());
    EXPECT_EQ(inputs[1].dtype(), DType::kString);
    return std::string(inputs[1].elements().front());
  };
  const RequestKey key{.high = 1, .low = 2};
  // With a field that nobody knows.
  EXPECT_EQ(puid_of(Field(1, Field(1, "12345")) + Field(15, "?") + Data("pkg.Asked", ""), key), "12345");
  const RequestKeyPuid made = PuidOf(key);
  const std::string expected(made.data(), made.size());
  EXPECT_EQ(puid_of(Data("pkg.Asked", "x"), key), expected);
  EXPECT_EQ(puid_of(Field(1, "") + Data("pkg.Asked", "x"), key), expected);
}

TEST(ClassifierTest, AnInstanceIsAlwaysTaken) {
  // x, float32 of shape (): 1.
  const std::string tensor = Field(1, "") + "\x10\x0b" + Field(3, std::string("\0\0\x80\x3f", 4));
  const std::string request = Data(wire::kInstanceType, Field(1, Field(1, "x") + Field(2, tensor)));
  std::vector<Tensor> inputs;
  const auto target = Make().Read(Bytes(request), {}, nullptr, &inputs);
  ASSERT_TRUE(target.ok()) << target.status().ToString();
  EXPECT_EQ(target->method, 3);
  EXPECT_EQ(inputs.at(0).Describe(), "kMSI_Float32 ()");
  Says(Wrong(Data(wire::kInstanceType, "")), {"'mindspore.serving.proto.Instance'", "Cannot find input x"});
  Says(Wrong(Data(wire::kInstanceType, "\x0a\x7f")), {"'mindspore.serving.proto.Instance'", "doesn't parse"});
}

TEST(ClassifierTest, WhoseFaultOutputsAreThatMakeNoReply) {
  Classifier classifier = Make();
  auto text = wire::FieldMap::Create({{DType::kString, Shape{1}}}, {{"a", 1, wire::FieldType::kString, 0, 0}});
  classifier.AddFields("pkg.Text", *std::move(text));
  auto any_number = wire::FieldMap::Create({{DType::kFloat32, {}, true}}, {{"a", 1, wire::FieldType::kFloat, 0, 0}});
  classifier.AddFields("pkg.Repeated", *std::move(any_number));
  const std::vector<Tensor> outputs{Tensor::Text(DType::kString, "no number")};
  const std::vector<std::string> names{"y"};
  const auto blamed = [&](std::string_view type, const std::string& value = "") {
    std::vector<Tensor> inputs;
    const auto target = classifier.Read(Bytes(Data(type, value)), {}, nullptr, &inputs);
    EXPECT_TRUE(target.ok()) << target.status().ToString();
    const auto writer = classifier.Write(names, outputs, target->shaped_by_client);
    EXPECT_FALSE(writer.ok());
    Says(writer.status(), {"output 'y' is kMSI_String (1,)"});
    return writer.status().code();
  };
  EXPECT_EQ(blamed("pkg.Pair"), Code::kInternal);
  EXPECT_EQ(blamed("pkg.Handled"), Code::kInternal);
  EXPECT_EQ(blamed("pkg.Asked"), Code::kInvalidArgument);
  EXPECT_EQ(blamed("pkg.Text"), Code::kInvalidArgument);
  EXPECT_EQ(blamed("pkg.Repeated"), Code::kInvalidArgument);
  const std::string tensor = Field(1, "") + "\x10\x0b" + Field(3, std::string("\0\0\x80\x3f", 4));
  EXPECT_EQ(blamed(wire::kInstanceType, Field(1, Field(1, "x") + Field(2, tensor))), Code::kInvalidArgument);
}

TEST(ClassifierTest, WhatIsWrongNamesTheType) {
  Says(Wrong(Data("pkg.Pair", "\x0d\x01")), {"'pkg.Pair'", "is wrong", "doesn't parse at byte"});
  Says(Wrong(Data("pkg.Other", "")),
       {"'pkg.Other'", "'pkg.Asked', 'pkg.Handled', 'pkg.Pair', 'mindspore.serving.proto.Instance'"});
  Says(Wrong(""), {"has no data"});
}

}  // namespace
}  // namespace mindserve::worker
