// What is JSON and what is not, seen through PredictRequestFromJson: the whole text has to be, whatever part of it
// counts.
#include "wire/json_syntax.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "wire/json_fixture.h"

namespace mindserve::wire {
namespace {

using test::OneInput;
using test::Refusal;
using testing::HasSubstr;
using testing::StartsWith;

// A text in places where it counts, where it doesn't, and where something else is wrong besides.
std::vector<std::string> Bodies(const std::string& value) {
  return {
      OneInput(value),
      OneInput("[" + value + "]"),
      OneInput("[1, " + value + "]"),
      OneInput("[1.5, " + value + "]"),
      OneInput("[true, " + value + "]"),
      OneInput("{\"b64\": " + value + "}"),
      OneInput("{\"b64\": \"\", \"type\": " + value + "}"),
      OneInput("{\"b64\": \"\", \"shape\": [" + value + "]}"),
      R"({"instances": [{"x": 1}], "other": [{"y": )" + value + "}]}",
      R"({"instances": [], "other": )" + value + "}",
      R"([1, )" + value + "]",
  };
}

TEST(JsonSyntax, WrongValues) {
  for (const char* value : {"NaN",
                            "-NaN",
                            "Infinity",
                            "-Infinity",
                            "nan",
                            "inf",
                            "tru",
                            "TRUE",
                            "truee",
                            "falsey",
                            "nul",
                            "nulll",
                            "None",
                            "undefined",
                            "01",
                            "-",
                            "+1",
                            "-a",
                            ".5",
                            "1.",
                            "1.e5",
                            "1e",
                            "1e+",
                            "0x10",
                            "1_000",
                            "--1",
                            "1.5.2",
                            "1-2",
                            "'a'",
                            "a",
                            "\"\\q\"",
                            "\"\\u12\"",
                            "\"\\u12g4\"",
                            "\"\\ud800\"",
                            "\"\\ud800\\n\"",
                            "\"\x01\"",
                            "\"\n\"",
                            "\"\xff\"",
                            "\"\xc0\x80\"",
                            "\"\xed\xa0\x80\"",
                            "\"\xf4\x90\x80\x80\"",
                            "\"\xe2\x82\"",
                            "\x80",
                            "1 2",
                            "\"a\" \"b\"",
                            "[1,]",
                            "[,1]",
                            "[1 2]",
                            "[1;2]",
                            "[1}",
                            "{\"a\"}",
                            "{\"a\":}",
                            "{\"a\" 1}",
                            "{\"a\":1,}",
                            "{a:1}",
                            "{1:1}",
                            "{\"a\":1]",
                            "{,}",
                            "{\"a\":1 \"b\":2}",
                            "{\"\\q\":1}",
                            "/* */ 1",
                            "1 // one"}) {
    for (const std::string& body : Bodies(value)) {
      const Status status = Refusal(body);
      EXPECT_EQ(status.code(), Code::kInvalidArgument) << body;
      EXPECT_THAT(status.message(), StartsWith("Illegal JSON format: ")) << body;
    }
  }
}

// Numbers of any size, and values that are JSON but none of ours, are not called illegal.
TEST(JsonSyntax, RightValues) {
  for (const char* value :
       {"null", "true", "0", "-0", "0.0", "1e5", "1E-5", "123456789012345678901234567890", "1e999", "-1.5e-999",
        "\"\\u0000\"", "\"\\ud83d\\ude00\"", "[]", "{}", "[[],{}]", "{\"\":{\"\":[]}}", "\"\xf0\x9f\x98\x80\""}) {
    for (const std::string& body : Bodies(value)) {
      EXPECT_THAT(Refusal(body).message(), testing::Not(StartsWith("Illegal JSON format"))) << body;
    }
  }
}

TEST(JsonSyntax, WrongTexts) {
  const std::string good = OneInput("1");
  for (const std::string& body :
       {std::string(), std::string(" \n"), std::string("\xef\xbb\xbf"), good + "x", good + good, good + "}", good + ",",
        good + "]", "[" + good, good + " 1", "," + good, std::string("1 2"), std::string("nul"), std::string("\"a\" 1"),
        std::string("\"a"), std::string("\0\0", 2), good + std::string(1, '\0'), std::string("\xff\xfe{\0}\0", 6),
        std::string("\xcd\xcc\x8c\x3f\xcd\xcc\x0c\x40", 8)}) {
    const Status status = Refusal(body);
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << body;
    EXPECT_THAT(status.message(), StartsWith("Illegal JSON format: ")) << body;
  }
}

TEST(JsonSyntax, TextsSayWhatIsWrong) {
  EXPECT_THAT(Refusal(OneInput("[0.5, NaN]")).message(),
              StartsWith("Illegal JSON format: NaN is no JSON; send such values as {\"b64\": …"));
  EXPECT_THAT(Refusal(OneInput("-Infinity")).message(), StartsWith("Illegal JSON format: -Infinity is no JSON"));
  EXPECT_EQ(Refusal(OneInput("tru")).message(), "Illegal JSON format: 'tru' is no value (at about byte 21)");
  EXPECT_EQ(Refusal("").message(), "Illegal JSON format: there is no text");
  EXPECT_EQ(Refusal("{\"\xff\"}").message(), "Illegal JSON format: the text is not valid UTF-8");
  EXPECT_EQ(Refusal("{\"a").message(), "Illegal JSON format: the text ends within a string");
  EXPECT_THAT(Refusal(OneInput("1") + "}").message(), HasSubstr("something comes after the end of the value"));
  EXPECT_THAT(Refusal(OneInput("x" + std::string(1000, 'x'))).message(),
              StartsWith("Illegal JSON format: '" + std::string(64, 'x') + "…' is no value"));
}

std::string Nested(size_t depth, const std::string& open, const std::string& inner, const std::string& close) {
  std::string text;
  for (size_t i = 0; i < depth; ++i) text += open;
  text += inner;
  for (size_t i = 0; i < depth; ++i) text += close;
  return text;
}

TEST(JsonSyntax, DepthIsBounded) {
  const std::string text = "the JSON text has more than 64 arrays and objects in each other";
  for (size_t depth : {65, 10'000, 1'000'000}) {
    const std::string arrays = Nested(depth, "[", "1", "]");
    const std::string objects = Nested(depth, "{\"a\":", "1", "}");
    for (const std::string& body :
         {arrays, objects, OneInput(arrays), OneInput(objects), "{\"instances\":" + arrays + "}",
          R"({"instances": [{"x": 1}], "y": )" + arrays + "}", OneInput("{\"b64\": " + arrays + "}")}) {
      const Status status = Refusal(body);
      EXPECT_EQ(status.code(), Code::kOutOfRange) << body.substr(0, 40);
      EXPECT_THAT(status.message(), StartsWith(text)) << body.substr(0, 40);
    }
    // Not even closed.
    EXPECT_FALSE(Refusal(std::string(depth, '[')).ok());
    EXPECT_FALSE(Refusal("{\"instances\":" + std::string(depth, '[')).ok());
  }
  // As deep as it may be, where it is of no interest: in the object and the array of 62 more.
  EXPECT_EQ(Refusal(R"({"instances": [{"x": 1}], "y": )" + Nested(63, "[", "1", "]") + "}"), Status::Ok());
  EXPECT_THAT(Refusal(R"({"instances": [{"x": 1}], "y": )" + Nested(64, "[", "1", "]") + "}").message(),
              StartsWith(text));
}

TEST(JsonSyntax, Kinds) {
  EXPECT_EQ(KindOf(""), JsonKind::kIllegal);
  EXPECT_EQ(KindOf("["), JsonKind::kArray);
  EXPECT_EQ(KindOf("{"), JsonKind::kObject);
  EXPECT_EQ(KindOf("]"), JsonKind::kIllegal);
  EXPECT_EQ(KindOf("\""), JsonKind::kIllegal);
  EXPECT_EQ(KindOf("\"\""), JsonKind::kString);
  EXPECT_EQ(KindOf("null"), JsonKind::kNull);
  EXPECT_EQ(KindOf("-0"), JsonKind::kInteger);
  EXPECT_EQ(KindOf("-0e0"), JsonKind::kFloat);
  EXPECT_EQ(KindOf("10.25E-07"), JsonKind::kFloat);
  EXPECT_EQ(KindOf("10.25E-07x"), JsonKind::kIllegal);
}

}  // namespace
}  // namespace mindserve::wire
