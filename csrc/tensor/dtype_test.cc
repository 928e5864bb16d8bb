#include "tensor/dtype.h"

#include <gtest/gtest.h>

#include <set>

namespace mindserve {
namespace {

TEST(DType, TheTableIsIndexedByTheWiresNumber) {
  for (size_t i = 0; i < kDTypes.size(); ++i) {
    EXPECT_EQ(static_cast<size_t>(kDTypes[i].dtype), i);
    EXPECT_EQ(Info(kDTypes[i].dtype).name, kDTypes[i].name);
  }
}

TEST(DType, NamesDiffer) {
  std::set<std::string_view> names;
  std::set<std::string_view> numpy;
  size_t with_numpy = 0;
  for (const DTypeInfo& info : kDTypes) {
    names.insert(info.name);
    if (info.numpy.empty()) continue;
    ++with_numpy;
    numpy.insert(info.numpy);
  }
  EXPECT_EQ(names.size(), kDTypes.size());
  EXPECT_EQ(numpy.size(), with_numpy);
  EXPECT_EQ(with_numpy, 12u);
}

// The digits in a name are the bits of an element.
TEST(DType, SizesAreWhatTheNamesSay) {
  for (const DTypeInfo& info : kDTypes) {
    const size_t digit = info.name.find_first_of("0123456789");
    if (digit == std::string_view::npos) continue;
    size_t bits = 0;
    for (char c : info.name.substr(digit)) bits = bits * 10 + static_cast<size_t>(c - '0');
    EXPECT_EQ(info.size * 8, bits) << info.name;
  }
  EXPECT_EQ(Info(DType::kBool).size, 1u);
}

TEST(DType, ExactlyTheTypesWithANumpyNameHaveASize) {
  for (const DTypeInfo& info : kDTypes) EXPECT_EQ(info.size > 0, !info.numpy.empty()) << info.name;
}

TEST(DType, TextIsStringAndBytes) {
  for (const DTypeInfo& info : kDTypes) {
    EXPECT_EQ(IsText(info.dtype), info.dtype == DType::kString || info.dtype == DType::kBytes) << info.name;
  }
}

TEST(DType, FromWireKnowsAllButUnknownAndWhatIsOutside) {
  EXPECT_EQ(DTypeFromWire(0), std::nullopt);
  for (uint64_t number = 1; number < kDTypes.size(); ++number) {
    EXPECT_EQ(DTypeFromWire(number), kDTypes[number].dtype);
  }
  EXPECT_EQ(DTypeFromWire(kDTypes.size()), std::nullopt);
  EXPECT_EQ(DTypeFromWire(256 + 1), std::nullopt);
  EXPECT_EQ(DTypeFromWire(UINT64_MAX), std::nullopt);
}

}  // namespace
}  // namespace mindserve
