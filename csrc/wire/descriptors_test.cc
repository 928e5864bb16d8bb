#include "wire/descriptors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "wire/test_messages.h"

namespace mindserve::wire {
namespace {

using test::Field;
using test::Varint;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

// A FileDescriptorProto, and as a member of a set.
std::string File(std::string_view name, const std::string& rest) {
  return Field(1, name) + rest;
}
std::string Set(const std::vector<std::string>& files) {
  std::string set;
  for (const std::string& file : files) set += Field(1, file);
  return set;
}
std::string Message(std::string_view name, const std::string& rest = "") {
  return Field(4, Field(1, name) + rest);
}

// Everything that has a name.
std::string Library() {
  const std::string nested = Field(3, Field(1, "Inner") + Field(2, Field(1, "deep")) + Field(3, Field(1, "Innermost")));
  const std::string extension = Field(1, "extra") + Varint(3, 101) + Field(2, ".lib.Book");
  const std::string book = Field(2, Field(1, "title") + Varint(3, 1)) + nested +
                           Field(4, Field(1, "Genre") + Field(2, Field(1, "NOVEL") + Varint(2, 0))) +
                           Field(6, Field(1, "inside") + Field(2, ".lib.Book") + Varint(3, 100)) +
                           Field(8, Field(1, "choice"));
  // The package stands after what is in it, as no compiler writes it, but protobuf allows.
  return File("lib.proto", Message("Book", book) + Message("Empty") +
                               Field(5, Field(1, "Color") + Field(2, Field(1, "RED")) + Field(2, Field(1, "BLUE"))) +
                               Field(6, Field(1, "Shop") + Field(2, Field(1, "Buy") + Field(2, ".lib.Book"))) +
                               Field(7, extension) + Field(8, "options") + Field(2, "lib"));
}

DescriptorIndex Index(const std::string& users, const std::string& built_in = "") {
  auto index = DescriptorIndex::Create(users, built_in);
  EXPECT_TRUE(index.ok()) << index.status().ToString();
  return index.ok() ? *std::move(index) : DescriptorIndex();
}

std::vector<std::string> FilesFor(const DescriptorIndex& index, std::string_view symbol) {
  const auto file = index.FileContaining(symbol);
  if (!file) return {};
  const auto files = index.WithImports(*file);
  return {files.begin(), files.end()};
}

TEST(DescriptorIndex, FindsAllThatAFileDefines) {
  const DescriptorIndex index = Index(Set({File("other.proto", ""), Library()}));
  for (const char* symbol :
       {"lib.Book", "lib.Book.title", "lib.Book.Inner", "lib.Book.Inner.deep", "lib.Book.Inner.Innermost",
        "lib.Book.Genre", "lib.Book.NOVEL", "lib.Book.inside", "lib.Book.choice", "lib.Empty", "lib.Color", "lib.RED",
        "lib.BLUE", "lib.Shop", "lib.Shop.Buy", "lib.extra"}) {
    EXPECT_THAT(FilesFor(index, symbol), ElementsAre(Library())) << symbol;
  }
  for (const char* symbol : {"", "lib", "Book", ".lib.Book", "lib.Color.RED", "lib.Buy", "lib.Book.", "lib.proto"}) {
    EXPECT_FALSE(index.FileContaining(symbol)) << symbol;
  }
  EXPECT_EQ(index.FileNamed("lib.proto"), index.FileContaining("lib.Book"));
  EXPECT_NE(index.FileNamed("other.proto"), index.FileNamed("lib.proto"));
  EXPECT_FALSE(index.FileNamed("lib"));
}

TEST(DescriptorIndex, FindsExtensionsByTheirNumbers) {
  const std::string more =
      File("more.proto", Field(2, "more") + Field(7, Field(1, "third") + Field(2, "lib.Book") + Varint(3, 7)));
  const DescriptorIndex index = Index(Set({Library(), more}));
  EXPECT_EQ(index.ExtensionNumbers("lib.Book"), (std::vector<int32_t>{7, 100, 101}));
  EXPECT_EQ(index.ExtensionNumbers("lib.Empty"), std::vector<int32_t>{});
  EXPECT_EQ(index.ExtensionNumbers("lib.Color"), std::nullopt);
  EXPECT_EQ(index.ExtensionNumbers("lib.Missing"), std::nullopt);
  EXPECT_EQ(index.FileExtending("lib.Book", 7), index.FileNamed("more.proto"));
  EXPECT_EQ(index.FileExtending("lib.Book", 100), index.FileNamed("lib.proto"));
  EXPECT_EQ(index.FileExtending("lib.Book", 101), index.FileNamed("lib.proto"));
  EXPECT_EQ(index.FileExtending("lib.Book", 8), std::nullopt);
  EXPECT_EQ(index.FileExtending("lib.Empty", 7), std::nullopt);
}

TEST(DescriptorIndex, GivesAFileWithAllThatItImportsOnce) {
  const std::string base = File("base.proto", Message("Base"));
  const std::string left = File("left.proto", Field(3, "base.proto"));
  const std::string right = File("right.proto", Field(3, "base.proto"));
  const std::string top = File("top.proto", Field(3, "left.proto") + Field(3, "right.proto") + Message("Top"));
  const DescriptorIndex index = Index(Set({base, left, right, File("apart.proto", ""), top}));
  const std::vector<std::string> files = FilesFor(index, "Top");
  EXPECT_THAT(files, UnorderedElementsAre(top, left, right, base));
  EXPECT_EQ(files.front(), top);
  EXPECT_THAT(FilesFor(index, "Base"), ElementsAre(base));
}

TEST(DescriptorIndex, CopesWithAnyOrderWithCirclesAndWithWhatIsMissing) {
  const std::string one = File("one.proto", Field(3, "two.proto") + Field(3, "nowhere.proto") + Message("One"));
  const std::string two = File("two.proto", Field(3, "one.proto") + Message("Two"));
  const DescriptorIndex index = Index(Set({one, two}));
  EXPECT_THAT(FilesFor(index, "One"), ElementsAre(one, two));
  EXPECT_THAT(FilesFor(index, "Two"), ElementsAre(two, one));
}

TEST(DescriptorIndex, TakesAFileThatIsThereTwiceOnce) {
  const std::string base = File("base.proto", Message("Base"));
  const std::string one = File("one.proto", Field(3, "base.proto") + Message("One"));
  const std::string two = File("two.proto", Field(3, "base.proto") + Message("Two"));
  const DescriptorIndex index = Index(Set({base, one, base, two}));
  EXPECT_THAT(FilesFor(index, "One"), ElementsAre(one, base));
  EXPECT_THAT(FilesFor(index, "Two"), ElementsAre(two, base));
}

// Two servables, each with files of its own under the same names.
TEST(DescriptorIndex, GivesOtherFilesOfANameOtherNames) {
  const std::string common1 = File("common.proto", Message("A"));
  const std::string service1 = File("service.proto", Field(3, "common.proto") + Message("First"));
  const std::string common2 = File("common.proto", Message("A") + Message("B"));
  const std::string service2 = File("x.proto", Message("Second") + Field(3, "common.proto") + Varint(10, 0));
  const DescriptorIndex index = Index(Set({common1, service1, common2, service2}));
  EXPECT_THAT(FilesFor(index, "First"), ElementsAre(service1, common1));
  EXPECT_THAT(FilesFor(index, "Second"),
              ElementsAre(File("x.proto", Field(3, "2/common.proto") + Message("Second") + Varint(10, 0)),
                          File("2/common.proto", Message("A") + Message("B"))));
  EXPECT_THAT(FilesFor(index, "A"), ElementsAre(common1));
  EXPECT_EQ(index.FileNamed("common.proto"), index.FileContaining("A"));
  EXPECT_EQ(index.FileNamed("2/common.proto"), index.FileContaining("B"));
}

TEST(DescriptorIndex, TellsFilesOfTheSameBytesApartByWhatTheyImport) {
  const std::string common1 = File("common.proto", Message("A"));
  const std::string common2 = File("common.proto", Message("B"));
  const std::string same = File("same.proto", Field(3, "common.proto"));
  const std::string user = File("user.proto", Field(3, "same.proto") + Message("User"));
  const DescriptorIndex index = Index(Set({common1, same, common2, same, user}));
  EXPECT_THAT(FilesFor(index, "User"),
              ElementsAre(File("user.proto", Field(3, "2/same.proto") + Message("User")),
                          File("2/same.proto", Field(3, "2/common.proto")), File("2/common.proto", Message("B"))));
}

TEST(DescriptorIndex, PutsUsersFilesBeforeBuiltInOnes) {
  const std::string health = File("health.proto", Field(2, "grpc.health.v1") + Message("Check"));
  // The built-in one, as the user's compiler wrote it, and one that only has its name.
  const std::string own = File("own.proto", Field(2, "grpc.health.v1") + Message("Check", Field(2, Field(1, "more"))));
  const std::string other = File("health.proto", Field(2, "hospital") + Message("Check"));

  const DescriptorIndex same = Index(Set({own}), Set({health}));
  EXPECT_THAT(FilesFor(same, "grpc.health.v1.Check"), ElementsAre(own));
  EXPECT_FALSE(same.FileNamed("health.proto"));

  const DescriptorIndex both = Index(Set({other}), Set({health}));
  EXPECT_THAT(FilesFor(both, "hospital.Check"), ElementsAre(other));
  EXPECT_THAT(FilesFor(both, "grpc.health.v1.Check"),
              ElementsAre(File("2/health.proto", Field(2, "grpc.health.v1") + Message("Check"))));
  EXPECT_EQ(both.FileNamed("health.proto"), both.FileContaining("hospital.Check"));
}

TEST(DescriptorIndex, SaysWhichFileDoesNotParse) {
  const auto refused = [](const std::string& users, const std::string& built_in) {
    const auto index = DescriptorIndex::Create(users, built_in);
    EXPECT_FALSE(index.ok());
    EXPECT_EQ(index.status().code(), Code::kInvalidArgument);
    return index.status().message();
  };
  EXPECT_THAT(refused(Set({Library(), "\x0a\x7f"}), ""), HasSubstr("file 2"));
  EXPECT_THAT(refused("", Set({"\x22\x02\x0a\x05"})), HasSubstr("file 1"));
  EXPECT_THAT(refused("no set of files", ""), HasSubstr("FileDescriptorSet"));
}

TEST(DescriptorIndex, RefusesMessagesInMessagesWithoutEnd) {
  const auto nested = [](int depth) {
    std::string message = Field(1, "M");
    while (--depth > 0) message = Field(1, "M") + Field(3, message);
    return Set({File("deep.proto", Field(4, message))});
  };
  EXPECT_TRUE(DescriptorIndex::Create(nested(100), "").ok());
  const auto index = DescriptorIndex::Create(nested(101), "");
  ASSERT_FALSE(index.ok());
  EXPECT_THAT(index.status().message(), HasSubstr("nested more than 100 deep"));
  EXPECT_FALSE(DescriptorIndex::Create(nested(20'000), "").ok());
}

// --- Broken sets: whatever the bytes, an index or an error comes of it, and an index holds together. Worth most under
// the address sanitizer. ---

std::string Sample() {
  return Set({File("base.proto", Message("Base")), Library(), File("base.proto", Message("Other")),
              File("top.proto", Field(3, "base.proto") + Field(3, "lib.proto") + Message("Top"))}) +
         test::UnknownFields();
}

void UseAll(std::string_view set) {
  // A block of exactly its size, so that the sanitizer sees one byte too far.
  const std::vector<char> block(set.begin(), set.end());
  const std::string built_in = Set({File("lib.proto", Message("Built"))});
  const auto index = DescriptorIndex::Create({block.data(), block.size()}, built_in);
  if (!index.ok()) {
    EXPECT_EQ(index.status().code(), Code::kInvalidArgument);
    EXPECT_FALSE(index.status().message().empty());
    return;
  }
  EXPECT_TRUE(index->FileContaining("Built"));
  for (const char* symbol : {"Top", "lib.Book", "Built", "Other", "Base"}) {
    const auto file = index->FileContaining(symbol);
    if (!file) continue;
    for (const std::string_view bytes : index->WithImports(*file)) EXPECT_FALSE(bytes.empty());
  }
  for (const char* name : {"base.proto", "2/base.proto", "top.proto"}) (void)index->FileNamed(name);
  (void)index->ExtensionNumbers("lib.Book");
  (void)index->FileExtending("lib.Book", 101);
}

TEST(DescriptorMutation, EveryTruncation) {
  const std::string sample = Sample();
  for (size_t size = 0; size <= sample.size(); ++size) UseAll(std::string_view(sample).substr(0, size));
}

TEST(DescriptorMutation, EveryBitFlip) {
  const std::string sample = Sample();
  for (size_t bit = 0; bit < sample.size() * 8; ++bit) {
    std::string flipped = sample;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    UseAll(flipped);
  }
}

TEST(DescriptorMutation, BytesPutInTakenOutAndCopiedAtRandom) {
  const std::string sample = Sample();
  std::mt19937 random(20'240'607);
  const auto below = [&random](size_t n) { return static_cast<size_t>(random() % n); };
  for (int round = 0; round < 4'000; ++round) {
    std::string changed = sample;
    for (size_t change = 1 + below(4); change > 0 && !changed.empty(); --change) {
      const size_t at = below(changed.size());
      const size_t length = 1 + below(12);
      switch (below(4)) {
        case 0:
          changed.erase(at, length);
          break;
        case 1:
          changed.insert(at, length, static_cast<char>(random()));
          break;
        case 2:
          changed.insert(at, changed.substr(below(changed.size()), length));
          break;
        default:
          changed[at] = static_cast<char>(random());
      }
    }
    UseAll(changed);
  }
}

}  // namespace
}  // namespace mindserve::wire
