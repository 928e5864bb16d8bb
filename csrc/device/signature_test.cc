#include "device/signature.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace mindserve::device {
namespace {

Tensor Zeros(DType dtype, Shape shape) {
  std::span<std::byte> bytes;
  auto tensor = Tensor::Allocate(dtype, std::move(shape), &bytes);
  std::fill(bytes.begin(), bytes.end(), std::byte{0});
  return *std::move(tensor);
}

Tensor Texts(Shape shape) {
  std::vector<std::string_view> elements(static_cast<size_t>(shape.Elements().value_or(0)), "a");
  return *Tensor::TextView(DType::kString, shape, std::move(elements), nullptr);
}

TensorSpec Spec(DType dtype, Shape shape) {
  return {"x", dtype, std::move(shape)};
}

TEST(CheckInput, TakesWhatFits) {
  EXPECT_TRUE(CheckInput(Spec(DType::kFloat32, {2, 2}), 0, Zeros(DType::kFloat32, {2, 2})).ok());
  EXPECT_TRUE(CheckInput(Spec(DType::kFloat32, {}), 0, Zeros(DType::kFloat32, {})).ok());
  EXPECT_TRUE(CheckInput(Spec(DType::kInt8, {0, 3}), 0, Zeros(DType::kInt8, {0, 3})).ok());
}

TEST(CheckInput, OfAStaticShapeOnlyTheSizeCounts) {
  EXPECT_TRUE(CheckInput(Spec(DType::kFloat32, {2}), 0, Zeros(DType::kFloat32, {1, 2})).ok());
  EXPECT_TRUE(CheckInput(Spec(DType::kFloat32, {}), 0, Zeros(DType::kFloat32, {1})).ok());
  EXPECT_EQ(CheckInput(Spec(DType::kFloat32, {2}), 0, Zeros(DType::kFloat32, {3})),
            Status(Code::kInvalidArgument, "Given model input 0 size 12 not match the size 8 defined in model"));
  EXPECT_EQ(CheckInput(Spec(DType::kFloat32, {2}), 1, Zeros(DType::kFloat32, {0})).message(),
            "Given model input 1 size 0 not match the size 8 defined in model");
}

TEST(CheckInput, TheTypeMustBeTheSame) {
  EXPECT_EQ(CheckInput(Spec(DType::kFloat32, {2}), 0, Zeros(DType::kInt32, {2})),
            Status(Code::kInvalidArgument,
                   "Given model input 0 data type kMSI_Int32 not match the data type kMSI_Float32 defined in model"));
  EXPECT_EQ(CheckInput(Spec(DType::kString, {1}), 0, Tensor::Text(DType::kBytes, "a")).message(),
            "Given model input 0 data type kMSI_Bytes not match the data type kMSI_String defined in model");
  EXPECT_EQ(CheckInput(Spec(DType::kFloat32, {2}), 2, Tensor()).message(),
            "Given model input 2 data type kMSI_Unknown not match the data type kMSI_Float32 defined in model");
}

TEST(CheckInput, OfADynamicShapeRankAndFixedDimensionsCount) {
  const TensorSpec spec = Spec(DType::kFloat32, {-1, 2});
  EXPECT_TRUE(CheckInput(spec, 0, Zeros(DType::kFloat32, {7, 2})).ok());
  EXPECT_TRUE(CheckInput(spec, 0, Zeros(DType::kFloat32, {0, 2})).ok());
  EXPECT_EQ(
      CheckInput(spec, 0, Zeros(DType::kFloat32, {3, 4})),
      Status(Code::kInvalidArgument, "Given model input 0 shape (3, 4) not match the shape (-1, 2) defined in model"));
  EXPECT_EQ(CheckInput(spec, 0, Zeros(DType::kFloat32, {2})).message(),
            "Given model input 0 shape (2,) not match the shape (-1, 2) defined in model");
  EXPECT_FALSE(CheckInput(spec, 0, Zeros(DType::kFloat32, {1, 3, 2})).ok());
}

TEST(CheckInput, StringsAreCounted) {
  EXPECT_TRUE(CheckInput(Spec(DType::kString, {2}), 0, Texts({2})).ok());
  EXPECT_TRUE(CheckInput(Spec(DType::kString, {2}), 0, Texts({1, 2})).ok());
  EXPECT_EQ(CheckInput(Spec(DType::kString, {2}), 0, Texts({3})).message(),
            "Given model input 0 size 3 not match the size 2 defined in model");
  EXPECT_TRUE(CheckInput(Spec(DType::kString, {-1}), 0, Texts({3})).ok());
}

TEST(CheckInput, AnUnknownRankTakesEveryShape) {
  TensorSpec spec = Spec(DType::kFloat32, {});
  spec.ranked = false;
  EXPECT_TRUE(CheckInput(spec, 0, Zeros(DType::kFloat32, {3, 4})).ok());
  EXPECT_FALSE(CheckInput(spec, 0, Zeros(DType::kInt32, {3, 4})).ok());
}

TEST(CheckInput, ABoolIsZeroOrOne) {
  const TensorSpec spec = Spec(DType::kBool, {3});
  const std::array<std::byte, 3> good = {std::byte{0}, std::byte{1}, std::byte{1}};
  const std::array<std::byte, 3> bad = {std::byte{0}, std::byte{2}, std::byte{1}};
  EXPECT_TRUE(CheckInput(spec, 0, *Tensor::View(DType::kBool, {3}, good, nullptr)).ok());
  EXPECT_EQ(CheckInput(spec, 0, *Tensor::View(DType::kBool, {3}, bad, nullptr)).message(),
            "Given model input 0 has a bool that is neither 0 nor 1");
}

TEST(CheckInput, AShapeOfTheModelThatOverflowsFitsNothing) {
  const TensorSpec spec = Spec(DType::kFloat32, {int64_t{1} << 40, int64_t{1} << 40});
  EXPECT_FALSE(CheckInput(spec, 0, Zeros(DType::kFloat32, {2})).ok());
}

}  // namespace
}  // namespace mindserve::device
