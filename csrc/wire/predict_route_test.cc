#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "wire/predict.h"
#include "wire/test_messages.h"

namespace mindserve::wire {
namespace {

using test::Bytes;
using test::Field;
using test::Fixed32;
using test::Fixed64;
using test::Instance;
using test::Item;
using test::NumericTensor;
using test::Spec;
using test::UnknownFields;
using test::Varint;
using testing::HasSubstr;
using testing::SizeIs;

constexpr size_t kMany = 100'000;
constexpr uint64_t kInt8 = 2;

std::string_view Cut(std::string_view request, const Extent& extent) {
  return request.substr(extent.offset, extent.length);
}

TEST(ReadRoute, ReadsSpecAndInstances) {
  const std::string request = test::GoldenRequest();
  Route route;
  ASSERT_TRUE(ReadRoute(Bytes(request), kMany, &route).ok());
  EXPECT_EQ(route.servable, "add");
  EXPECT_EQ(route.method, "add_common");
  EXPECT_EQ(route.version, 300u);
  EXPECT_EQ(Cut(request, route.spec), Spec("add", "add_common", 300));
  ASSERT_THAT(route.instances, SizeIs(2));
  EXPECT_EQ(route.instances[0].offset, 22u);
  EXPECT_EQ(route.instances[0].length, 36u);
  EXPECT_EQ(route.instances[1].offset, 58u);
  EXPECT_EQ(route.instances[1].offset + route.instances[1].length, request.size());
}

TEST(ReadRoute, LooksIntoTheRequest) {
  const std::string request = Field(1, Spec("add", "run", 0));
  Route route;
  ASSERT_TRUE(ReadRoute(Bytes(request), kMany, &route).ok());
  EXPECT_EQ(route.servable.data(), request.data() + 4);
  EXPECT_EQ(route.version, 0u);
}

TEST(ReadRoute, TakesAnEmptyRequest) {
  Route route;
  ASSERT_TRUE(ReadRoute({}, kMany, &route).ok());
  EXPECT_EQ(route.servable, "");
  EXPECT_EQ(route.method, "");
  EXPECT_EQ(route.spec.length, 0u);
  EXPECT_TRUE(route.instances.empty());
}

TEST(ReadRoute, TakesInstancesBeforeTheSpecAndBetween) {
  const std::string a = Instance(Item("a", NumericTensor({1}, kInt8, "a")));
  const std::string b = Instance("");
  const std::string request = a + UnknownFields() + b + Field(1, Spec("add", "run", 2)) + b;
  Route route;
  ASSERT_TRUE(ReadRoute(Bytes(request), kMany, &route).ok());
  EXPECT_EQ(route.servable, "add");
  EXPECT_EQ(route.version, 2u);
  ASSERT_THAT(route.instances, SizeIs(3));
  EXPECT_EQ(Cut(request, route.instances[0]), a);
  EXPECT_EQ(Cut(request, route.instances[1]), b);
  EXPECT_EQ(Cut(request, route.instances[2]), b);
  EXPECT_EQ(route.instances[1].offset, a.size() + UnknownFields().size());
}

TEST(ReadRoute, SkipsUnknownFieldsAndFieldsOfAWrongWireType) {
  const std::string spec = UnknownFields() + Varint(1, 7) + Field(3, "three") + Fixed32(2) + Spec("add", "run", 5) +
                           Fixed64(3) + UnknownFields();
  const std::string request = Varint(1, 3) + Fixed64(2) + Varint(2, 9) + Field(1, spec) + UnknownFields();
  Route route;
  ASSERT_TRUE(ReadRoute(Bytes(request), kMany, &route).ok());
  EXPECT_EQ(route.servable, "add");
  EXPECT_EQ(route.method, "run");
  EXPECT_EQ(route.version, 5u);
  EXPECT_TRUE(route.instances.empty());
}

TEST(ReadRoute, MergesARepeatedSpec) {
  const std::string second = Field(2, "other") + Varint(3, 4);
  const std::string request = Field(1, Spec("add", "run", 3)) + Instance("") + Field(1, second);
  Route route;
  ASSERT_TRUE(ReadRoute(Bytes(request), kMany, &route).ok());
  EXPECT_EQ(route.servable, "add");
  EXPECT_EQ(route.method, "other");
  EXPECT_EQ(route.version, 4u);
  EXPECT_EQ(Cut(request, route.spec), second);
  EXPECT_TRUE(route.merged);
  EXPECT_EQ(SpecContent(route.servable, route.method, route.version), Spec("add", "other", 4));
  ASSERT_TRUE(ReadRoute(Bytes(Field(1, second)), kMany, &route).ok());
  EXPECT_FALSE(route.merged);
}

TEST(ReadRoute, RefusesNamesThatAreNoUtf8) {
  Route route;
  const std::string fine = Field(1, Spec("caf\xc3\xa9", "\xf0\x9f\x98\x80", 0));
  EXPECT_TRUE(ReadRoute(Bytes(fine), kMany, &route).ok());
  const auto refusal = [&](const std::string& spec) {
    // A later field that is in order doesn't make up for it: other readers look at each.
    const Status status = ReadRoute(Bytes(Field(1, spec) + Field(1, Spec("add", "run", 0))), kMany, &route);
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    return status.message();
  };
  EXPECT_THAT(refusal(Spec("caf\xe9", "run", 0)), HasSubstr("the name of the request's servable_spec"));
  EXPECT_THAT(refusal(Spec("add", "\xed\xa0\x80", 0)), HasSubstr("the method_name of the request's servable_spec"));
  EXPECT_THAT(refusal(Field(2, "\xc0\x80") + Field(2, "run")), HasSubstr("not valid UTF-8"));
}

// A reply repeats it, whoever reads that.
TEST(ReadRoute, RefusesSpecsThatNoServableHas) {
  Route route;
  const std::string run = Field(2, "run");
  const auto named = [&](size_t size) { return Field(1, std::string(size, 'n')) + run; };
  const size_t most = kMostSpecBytes - (named(3000).size() - 3000);
  EXPECT_TRUE(ReadRoute(Bytes(Field(1, named(most))), kMany, &route).ok());
  EXPECT_THAT(route.servable, SizeIs(most));
  const auto refusal = [&](const std::string& request) {
    const Status status = ReadRoute(Bytes(request), kMany, &route);
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    return status.message();
  };
  EXPECT_EQ(refusal(Field(1, named(most + 1))), "the request's servable_spec has 4097 bytes, expected at most 4096");
  EXPECT_EQ(refusal(Field(1, Field(9, std::string(5000, 'x')))),
            "the request's servable_spec has 5003 bytes, expected at most 4096");
  // Several that are merged count together.
  EXPECT_THAT(refusal(Field(1, named(most)) + Field(1, run)), HasSubstr("expected at most 4096"));
}

TEST(ReadRoute, SaysThatGroupsAreNotSupported) {
  Route route;
  for (const std::string& request : {std::string("\xa3\x06"), Field(1, "\xa4\x06")}) {
    const Status status = ReadRoute(Bytes(request), kMany, &route);
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr("group fields are not supported"));
  }
}

TEST(SpecContent, LeavesOutWhatIsEmpty) {
  EXPECT_EQ(SpecContent("", "", 0), "");
  EXPECT_EQ(SpecContent("", "run", 0), Field(2, "run"));
  EXPECT_EQ(SpecContent("add", "", 300), Field(1, "add") + Varint(3, 300));
  EXPECT_EQ(SpecContent(std::string(200, 'a'), "b", UINT64_MAX), Spec(std::string(200, 'a'), "b", UINT64_MAX));
}

TEST(ReadRoute, ForgetsWhatTheRouteHeldAndKeepsItsMemory) {
  const std::string many = Field(1, Spec("add", "run", 3)) + Instance("") + Instance("") + Instance("");
  Route route;
  ASSERT_TRUE(ReadRoute(Bytes(many), kMany, &route).ok());
  const Extent* const memory = route.instances.data();
  const std::string one = Instance("");
  ASSERT_TRUE(ReadRoute(Bytes(one), kMany, &route).ok());
  EXPECT_EQ(route.servable, "");
  EXPECT_EQ(route.method, "");
  EXPECT_EQ(route.version, 0u);
  EXPECT_EQ(route.spec.length, 0u);
  EXPECT_THAT(route.instances, SizeIs(1));
  EXPECT_EQ(route.instances.data(), memory);
}

TEST(ReadRoute, AnyRunOfInstancesIsARequest) {
  std::string request = Field(1, Spec("add", "run", 0));
  for (char c = 'a'; c < 'k'; ++c) request += Instance(Item("x", NumericTensor({1}, kInt8, std::string(1, c))));
  Route route;
  ASSERT_TRUE(ReadRoute(Bytes(request), kMany, &route).ok());
  const size_t begin = route.instances[3].offset;
  const size_t end = route.instances[7].offset + route.instances[7].length;
  const std::vector<std::string> names = {"x"};
  InstanceReader reader(Bytes(request).subspan(begin, end - begin), names, nullptr);
  std::vector<Tensor> slots;
  std::string seen;
  while (reader.Next()) {
    ASSERT_TRUE(reader.Read(&slots).ok());
    seen += test::Text(slots[0].data());
  }
  EXPECT_TRUE(reader.status().ok());
  EXPECT_EQ(seen, "defgh");
}

TEST(ReadRoute, TakesAsManyInstancesAsTheLimitAndNoMore) {
  std::string request = Field(1, Spec("add", "run", 0));
  for (size_t i = 0; i < kMany; ++i) request += Instance("");
  Route route;
  ASSERT_TRUE(ReadRoute(Bytes(request), kMany, &route).ok());
  EXPECT_THAT(route.instances, SizeIs(kMany));
  EXPECT_EQ(route.instances.back().offset + 2, request.size());
  const Status over = ReadRoute(Bytes(request + Instance("")), kMany, &route);
  EXPECT_EQ(over.code(), Code::kResourceExhausted);
  EXPECT_THAT(over.message(), HasSubstr("max_instances_per_request"));
  EXPECT_THAT(over.message(), HasSubstr("100000"));
}

TEST(ReadRoute, RefusesEveryTruncationInsideAField) {
  const std::string request = test::GoldenRequest();
  Route route;
  ASSERT_TRUE(ReadRoute(Bytes(request), kMany, &route).ok());
  const std::vector<size_t> borders = {0, route.instances[0].offset, route.instances[1].offset, request.size()};
  for (size_t size = 0; size <= request.size(); ++size) {
    const std::string cut(request, 0, size);
    const Status status = ReadRoute(Bytes(cut), kMany, &route);
    const bool border = std::ranges::find(borders, size) != borders.end();
    EXPECT_EQ(status.ok(), border) << size;
    if (border) continue;
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr("PredictRequest"));
    EXPECT_THAT(status.message(), HasSubstr(std::to_string(size)));
  }
}

TEST(ReadRoute, RefusesWhatIsNoMessage) {
  const std::vector<std::string> bad = {
      std::string(1, '\0'),        // field number 0
      "\x0b",                      // a group begins
      "\x0c",                      // a group ends
      "\x0f",                      // wire type 7
      std::string(11, '\xff'),     // a varint without end
      "\x12\xff\xff\xff\xff\x0f",  // 4 GB announced
      Field(1,
            "\x0a\x05"
            "ab"),           // the spec's name is cut
      Field(1, "\x18\xff"),  // the spec's version is cut
  };
  Route route;
  for (size_t i = 0; i < bad.size(); ++i) {
    EXPECT_EQ(ReadRoute(Bytes(bad[i]), kMany, &route).code(), Code::kInvalidArgument) << i;
  }
}

TEST(ReadRoute, DoesNotLookIntoInstances) {
  const std::string request = Field(1, Spec("add", "run", 0)) + Instance("\xff\xff\xff");
  Route route;
  ASSERT_TRUE(ReadRoute(Bytes(request), kMany, &route).ok());
  EXPECT_THAT(route.instances, SizeIs(1));
}

TEST(FirstLargeData, IsFoundFromTheFirstBytes) {
  const std::string data(8192, 'd');
  const std::string small = Item("small", NumericTensor({1}, kInt8, "s"));
  const std::string large = Item("large", NumericTensor({8192}, kInt8, data));
  const std::string request = Field(1, Spec("servable", "method", 3)) + Instance(small) + Instance(small + large);
  const size_t expected = request.find(data);
  EXPECT_EQ(FirstLargeData(Bytes(request)), expected);
  // What is behind is not needed, what is before is.
  for (size_t size = 0; size < expected; ++size) {
    EXPECT_EQ(FirstLargeData(Bytes(request).first(size)), std::nullopt) << size;
  }
  EXPECT_EQ(FirstLargeData(Bytes(request).first(expected)), expected);
  EXPECT_EQ(FirstLargeData(Bytes(Instance(large) + request)), Instance(large).find(data));
  EXPECT_EQ(FirstLargeData(Bytes(Instance(small))), std::nullopt);
}

TEST(FirstLargeData, NonsenseIsNothing) {
  EXPECT_EQ(FirstLargeData({}), std::nullopt);
  EXPECT_EQ(FirstLargeData(Bytes(std::string(100, '\xff'))), std::nullopt);
  EXPECT_EQ(FirstLargeData(Bytes(Fixed32(7) + Instance(""))), std::nullopt);
  // Nested messages that claim to go on to the end of the world.
  EXPECT_EQ(FirstLargeData(Bytes("\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x0a\x05")), std::nullopt);
  std::string request = test::GoldenRequest();
  for (size_t i = 0; i < request.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      request[i] = static_cast<char>(request[i] ^ 1 << bit);
      const auto at = FirstLargeData(Bytes(request));
      EXPECT_LE(at.value_or(0), request.size());
      request[i] = static_cast<char>(request[i] ^ 1 << bit);
    }
  }
}

}  // namespace
}  // namespace mindserve::wire
