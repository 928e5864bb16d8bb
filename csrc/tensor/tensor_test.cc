#include "tensor/tensor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <limits>

namespace mindserve {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

std::span<const std::byte> Bytes(std::string_view text) {
  return std::as_bytes(std::span<const char>(text.data(), text.size()));
}

TEST(ByteSize, IsElementsTimesSize) {
  for (const DTypeInfo& info : kDTypes) {
    if (info.size == 0) continue;
    EXPECT_EQ(*ByteSize(info.dtype, Shape{2, 3}), 6 * info.size) << info.name;
    EXPECT_EQ(*ByteSize(info.dtype, Shape{}), info.size) << info.name;
    EXPECT_EQ(*ByteSize(info.dtype, Shape{4, 0}), 0u) << info.name;
  }
}

TEST(ByteSize, RefusesWhatHasNoSize) {
  for (DType dtype : {DType::kUnknown, DType::kString, DType::kBytes}) {
    const auto size = ByteSize(dtype, Shape{1});
    ASSERT_FALSE(size.ok());
    EXPECT_EQ(size.status().code(), Code::kInvalidArgument);
    EXPECT_THAT(size.status().message(), HasSubstr(std::string(Info(dtype).name)));
  }
}

TEST(ByteSize, RefusesNegativeAndOverflowingShapes) {
  for (const Shape& shape : {Shape{-1}, Shape{2, -3}, Shape{kMax, kMax}, Shape{kMax}, Shape{kMax / 4 + 1}}) {
    const auto size = ByteSize(DType::kFloat32, shape);
    ASSERT_FALSE(size.ok()) << shape.ToString();
    EXPECT_EQ(size.status().code(), Code::kInvalidArgument);
    EXPECT_THAT(size.status().message(), HasSubstr(shape.ToString()));
  }
  EXPECT_EQ(*ByteSize(DType::kFloat32, Shape{kMax / 4}), static_cast<size_t>(kMax / 4 * 4));
  EXPECT_EQ(*ByteSize(DType::kInt8, Shape{kMax}), static_cast<size_t>(kMax));
}

TEST(Tensor, HoldsNoValueByDefault) {
  const Tensor tensor;
  EXPECT_FALSE(tensor);
  EXPECT_EQ(tensor.dtype(), DType::kUnknown);
  EXPECT_TRUE(tensor.data().empty());
  EXPECT_TRUE(tensor.elements().empty());
  EXPECT_TRUE(tensor.aligned());
}

TEST(Tensor, ViewLooksAtTheBytesAndSharesTheirOwner) {
  auto owner = std::make_shared<const std::string>("abcdefgh");
  {
    const auto tensor = Tensor::View(DType::kInt16, Shape{2, 2}, Bytes(*owner), owner);
    ASSERT_TRUE(tensor.ok()) << tensor.status().ToString();
    EXPECT_TRUE(*tensor);
    EXPECT_EQ(tensor->dtype(), DType::kInt16);
    EXPECT_EQ(tensor->shape(), (Shape{2, 2}));
    EXPECT_EQ(static_cast<const void*>(tensor->data().data()), owner->data());
    EXPECT_EQ(tensor->data().size(), 8u);
    EXPECT_EQ(owner.use_count(), 2);
    const Tensor copy = *tensor;
    EXPECT_EQ(owner.use_count(), 3);
    EXPECT_EQ(copy.data().data(), tensor->data().data());
  }
  EXPECT_EQ(owner.use_count(), 1);
}

TEST(Tensor, ViewSaysBothSizesWhenTheyDiffer) {
  const auto tensor = Tensor::View(DType::kFloat32, Shape{2, 2}, Bytes("12345678"), nullptr);
  ASSERT_FALSE(tensor.ok());
  EXPECT_EQ(tensor.status(),
            Status(Code::kInvalidArgument, "a kMSI_Float32 tensor of shape (2, 2) needs 16 bytes, given 8"));
  EXPECT_FALSE(Tensor::View(DType::kInt8, Shape{2}, Bytes("123"), nullptr).ok());
}

TEST(Tensor, ViewRefusesTextTypesAndBadShapes) {
  EXPECT_FALSE(Tensor::View(DType::kString, Shape{1}, Bytes("a"), nullptr).ok());
  EXPECT_FALSE(Tensor::View(DType::kUnknown, Shape{1}, Bytes("a"), nullptr).ok());
  EXPECT_FALSE(Tensor::View(DType::kInt8, Shape{-1}, Bytes("a"), nullptr).ok());
}

TEST(Tensor, TextViewHoldsItsElements) {
  const auto tensor = Tensor::TextView(DType::kString, Shape{2}, {"one", ""}, nullptr);
  ASSERT_TRUE(tensor.ok());
  EXPECT_THAT(tensor->elements(), ElementsAre("one", ""));
  EXPECT_TRUE(tensor->data().empty());
  EXPECT_TRUE(tensor->aligned());
  EXPECT_TRUE(Tensor::TextView(DType::kBytes, Shape{}, {"one"}, nullptr).ok());
  EXPECT_TRUE(Tensor::TextView(DType::kBytes, Shape{0}, {}, nullptr).ok());
}

TEST(Tensor, TextViewRefusesAWrongCountTypeOrShape) {
  const auto count = Tensor::TextView(DType::kString, Shape{3}, {"one"}, nullptr);
  ASSERT_FALSE(count.ok());
  EXPECT_EQ(count.status(),
            Status(Code::kInvalidArgument, "a kMSI_String tensor of shape (3,) needs 3 elements, given 1"));
  EXPECT_FALSE(Tensor::TextView(DType::kInt8, Shape{1}, {"one"}, nullptr).ok());
  EXPECT_FALSE(Tensor::TextView(DType::kString, Shape{-1}, {"one"}, nullptr).ok());
}

TEST(Tensor, AllocateGivesAlignedBytesToFill) {
  for (const DTypeInfo& info : kDTypes) {
    if (info.size == 0) continue;
    std::span<std::byte> bytes;
    const auto tensor = Tensor::Allocate(info.dtype, Shape{3, 5}, &bytes);
    ASSERT_TRUE(tensor.ok());
    ASSERT_EQ(bytes.size(), 15 * info.size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(bytes.data()) % kBufferAlignment, 0u);
    std::memset(bytes.data(), 7, bytes.size());
    EXPECT_EQ(tensor->data().data(), bytes.data());
    EXPECT_EQ(tensor->data().back(), std::byte{7});
    EXPECT_TRUE(tensor->aligned());
  }
}

TEST(Tensor, AllocateTakesZeroElements) {
  std::span<std::byte> bytes;
  const auto tensor = Tensor::Allocate(DType::kFloat64, Shape{0, 3}, &bytes);
  ASSERT_TRUE(tensor.ok());
  EXPECT_TRUE(bytes.empty());
  EXPECT_TRUE(*tensor);
}

TEST(Tensor, AllocateRefusesTextAndBadShapes) {
  std::span<std::byte> bytes;
  EXPECT_EQ(Tensor::Allocate(DType::kString, Shape{1}, &bytes).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(Tensor::Allocate(DType::kInt8, Shape{-1}, &bytes).status().code(), Code::kInvalidArgument);
}

TEST(Tensor, AllocatedBytesLiveAsLongAsACopyOrARow) {
  std::span<std::byte> bytes;
  Tensor row;
  {
    auto tensor = Tensor::Allocate(DType::kInt8, Shape{4, 2}, &bytes);
    ASSERT_TRUE(tensor.ok());
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i);
    row = tensor->Rows(3, 1);
  }
  EXPECT_THAT(row.data(), ElementsAre(std::byte{6}, std::byte{7}));
}

TEST(Tensor, TextOwnsItsElement) {
  Tensor copy;
  {
    std::string value(100, 'x');
    const Tensor tensor = Tensor::Text(DType::kString, value);
    value.assign(100, 'y');
    copy = tensor;
  }
  EXPECT_EQ(copy.dtype(), DType::kString);
  EXPECT_EQ(copy.shape(), Shape{1});
  EXPECT_THAT(copy.elements(), ElementsAre(std::string(100, 'x')));
  EXPECT_THAT(Tensor::Text(DType::kBytes, "").elements(), ElementsAre(""));
}

TEST(Tensor, AlignedCopiesOnlyWhatIsNotAligned) {
  alignas(64) std::array<std::byte, 64> buffer{};
  for (size_t i = 0; i < buffer.size(); ++i) buffer[i] = static_cast<std::byte>(i);
  for (const DTypeInfo& info : kDTypes) {
    if (info.size == 0) continue;
    for (size_t offset = 0; offset < 8; ++offset) {
      const auto view = Tensor::View(info.dtype, Shape{2}, std::span(buffer).subspan(offset, 2 * info.size), nullptr);
      ASSERT_TRUE(view.ok());
      EXPECT_EQ(view->aligned(), offset % info.size == 0) << info.name << " at " << offset;
      const Tensor aligned = view->Aligned();
      EXPECT_TRUE(aligned.aligned());
      EXPECT_EQ(aligned.dtype(), info.dtype);
      EXPECT_EQ(aligned.shape(), Shape{2});
      EXPECT_EQ(std::memcmp(aligned.data().data(), buffer.data() + offset, 2 * info.size), 0);
      EXPECT_EQ(aligned.data().data() == view->data().data(), view->aligned());
    }
  }
}

TEST(Tensor, ReshapedKeepsTheBytes) {
  const auto tensor = Tensor::View(DType::kInt8, Shape{2, 3}, Bytes("abcdef"), nullptr);
  const auto flat = tensor->Reshaped(Shape{6});
  ASSERT_TRUE(flat.ok());
  EXPECT_EQ(flat->shape(), Shape{6});
  EXPECT_EQ(flat->data().data(), tensor->data().data());
  EXPECT_FALSE(tensor->Reshaped(Shape{5}).ok());
  EXPECT_FALSE(tensor->Reshaped(Shape{-6}).ok());
  const auto text = Tensor::TextView(DType::kString, Shape{2}, {"a", "b"}, nullptr);
  EXPECT_THAT(text->Reshaped(Shape{1, 2})->elements(), ElementsAre("a", "b"));
  EXPECT_FALSE(text->Reshaped(Shape{3}).ok());
}

TEST(Tensor, RowsAreAViewOfSomeOfTheFirstDimension) {
  auto owner = std::make_shared<const std::string>("aabbccdd");
  const auto tensor = Tensor::View(DType::kInt8, Shape{4, 2}, Bytes(*owner), owner);
  const Tensor rows = tensor->Rows(1, 2);
  EXPECT_EQ(rows.shape(), (Shape{2, 2}));
  EXPECT_EQ(static_cast<const void*>(rows.data().data()), owner->data() + 2);
  EXPECT_EQ(rows.data().size(), 4u);
  EXPECT_EQ(owner.use_count(), 3);
  EXPECT_EQ(tensor->Rows(4, 0).data().size(), 0u);
  EXPECT_EQ(tensor->Rows(0, 4).data().size(), 8u);
}

TEST(Tensor, RowsOfTextAndOfEmptyTensors) {
  const auto text = Tensor::TextView(DType::kString, Shape{3, 2}, {"a", "b", "c", "d", "e", "f"}, nullptr);
  const Tensor rows = text->Rows(1, 1);
  EXPECT_EQ(rows.shape(), (Shape{1, 2}));
  EXPECT_THAT(rows.elements(), ElementsAre("c", "d"));
  const auto thin = Tensor::View(DType::kFloat32, Shape{3, 0}, {}, nullptr);
  EXPECT_EQ(thin->Rows(1, 2).shape(), (Shape{2, 0}));
  const auto none = Tensor::View(DType::kFloat32, Shape{0, 3}, {}, nullptr);
  EXPECT_EQ(none->Rows(0, 0).shape(), (Shape{0, 3}));
}

TEST(Tensor, DescribeSaysTypeAndShape) {
  EXPECT_EQ(Tensor::View(DType::kInt8, Shape{2, 3}, Bytes("abcdef"), nullptr)->Describe(), "kMSI_Int8 (2, 3)");
  EXPECT_EQ(Tensor::Text(DType::kString, "a").Describe(), "kMSI_String (1,)");
}

}  // namespace
}  // namespace mindserve
