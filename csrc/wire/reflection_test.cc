#include "wire/reflection.h"

#include <gtest/gtest.h>

#include "wire/test_messages.h"

namespace mindserve::wire {
namespace {

using test::Bytes;
using test::Field;
using test::Varint;
using Kind = ReflectionRequest::Kind;

ReflectionRequest Read(const std::string& request) {
  const auto read = ReadReflectionRequest(Bytes(request));
  EXPECT_TRUE(read.ok()) << read.status().ToString();
  return read.ok() ? *read : ReflectionRequest{};
}

TEST(ReflectionRequest, AsksOneThing) {
  const std::pair<uint32_t, Kind> kinds[] = {{3, Kind::kFileByFilename},
                                             {4, Kind::kFileContainingSymbol},
                                             {6, Kind::kAllExtensionNumbersOfType},
                                             {7, Kind::kListServices}};
  for (const auto& [field, kind] : kinds) {
    const std::string bytes = test::UnknownFields() + Field(1, "host") + Field(field, "what");
    const ReflectionRequest request = Read(bytes);
    EXPECT_EQ(request.kind, kind);
    EXPECT_EQ(request.text, "what");
    EXPECT_EQ(request.host, "host");
    EXPECT_EQ(test::Text(request.bytes), bytes);
  }
  const std::string extension = Field(5, Varint(2, 17) + Field(1, "pkg.Type"));
  const ReflectionRequest request = Read(extension);
  EXPECT_EQ(request.kind, Kind::kFileContainingExtension);
  EXPECT_EQ(request.text, "pkg.Type");
  EXPECT_EQ(request.extension_number, 17);
}

TEST(ReflectionRequest, MayAskNothing) {
  EXPECT_EQ(Read("").kind, Kind::kNone);
  EXPECT_EQ(Read(Varint(4, 1)).kind, Kind::kNone);
}

TEST(ReflectionRequest, TakesTheLastOfItsOneof) {
  const std::string extension = Field(5, Field(1, "pkg.Type") + Varint(2, 17));
  const std::string replaced = extension + Field(4, "symbol");
  EXPECT_EQ(Read(replaced).kind, Kind::kFileContainingSymbol);
  EXPECT_EQ(Read(replaced).text, "symbol");
  const std::string back = replaced + Field(5, Varint(2, 18));
  EXPECT_EQ(Read(back).kind, Kind::kFileContainingExtension);
  EXPECT_EQ(Read(back).text, "");
  EXPECT_EQ(Read(back).extension_number, 18);
  const std::string merged = extension + Field(5, Varint(2, 18));
  EXPECT_EQ(Read(merged).text, "pkg.Type");
  EXPECT_EQ(Read(merged).extension_number, 18);
}

TEST(ReflectionRequest, RefusesEveryTruncationAndWhatIsNoUtf8) {
  const std::string request = Field(5, Field(1, "pkg.Type") + Varint(2, 300));
  for (size_t size = 1; size < request.size(); ++size) {
    const std::string cut(request, 0, size);
    const auto read = ReadReflectionRequest(Bytes(cut));
    ASSERT_FALSE(read.ok()) << size;
    EXPECT_EQ(read.status().code(), Code::kInvalidArgument);
    EXPECT_NE(read.status().message().find("ServerReflectionRequest"), std::string::npos);
  }
  for (const uint32_t field : {1, 3, 4, 6, 7}) EXPECT_FALSE(ReadReflectionRequest(Bytes(Field(field, "\xe9"))).ok());
  EXPECT_FALSE(ReadReflectionRequest(Bytes(Field(5, Field(1, "\xe9")))).ok());
}

TEST(ReflectionResponse, BeginsWithTheRequest) {
  const std::string bytes = Field(1, "host") + Field(6, "pkg.Type");
  const ReflectionRequest request = Read(bytes);
  const std::string begin = Field(1, "host") + Field(2, bytes);
  EXPECT_EQ(WriteFiles(request, {"one", "two"}), begin + Field(4, Field(1, "one") + Field(1, "two")));
  EXPECT_EQ(WriteExtensionNumbers(request, {1, 300}),
            begin + Field(5, Field(1, "pkg.Type") + Field(2, test::Number(1) + test::Number(300))));
  EXPECT_EQ(WriteExtensionNumbers(request, {}), begin + Field(5, Field(1, "pkg.Type")));
  EXPECT_EQ(WriteServices(request, {"a.A", "b.B"}),
            begin + Field(6, Field(1, Field(1, "a.A")) + Field(1, Field(1, "b.B"))));
  EXPECT_EQ(WriteFiles(Read(""), {"one"}), Field(2, "") + Field(4, Field(1, "one")));
  EXPECT_EQ(WriteReflectionError(request, {Code::kNotFound, "none"}),
            begin + Field(7, Varint(1, 5) + Field(2, "none")));
}

}  // namespace
}  // namespace mindserve::wire
