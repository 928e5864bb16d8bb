#include "batching/gather.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <string>

namespace mindserve::batching {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

template <typename T>
Tensor Make(DType dtype, Shape shape, std::vector<T> values) {
  std::span<std::byte> bytes;
  Tensor tensor = Tensor::Allocate(dtype, std::move(shape), &bytes).value();
  EXPECT_EQ(bytes.size(), values.size() * sizeof(T));
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return tensor;
}

Tensor Floats(Shape shape, std::vector<float> values) {
  return Make<float>(DType::kFloat32, std::move(shape), std::move(values));
}

std::vector<float> Values(const Tensor& tensor) {
  std::vector<float> values(tensor.data().size() / sizeof(float));
  if (!values.empty()) std::memcpy(values.data(), tensor.data().data(), tensor.data().size());
  return values;
}

std::vector<std::string> Texts(const Tensor& tensor) {
  return {tensor.elements().begin(), tensor.elements().end()};
}

class GatherTest : public ::testing::Test {
 protected:
  void Add(std::vector<Tensor> tensors) {
    Item& item = storage_.emplace_back();
    item.tensors = std::move(tensors);
    items_.push_back(&item);
  }
  Status Run(const BatchLayout& layout) { return Gather(layout, items_, pool_, &inputs_); }

  BufferPool pool_;
  std::deque<Item> storage_;
  std::vector<Item*> items_;
  std::vector<Tensor> inputs_;
};

TEST_F(GatherTest, RowsBecomeOneBatch) {
  Add({Floats({2}, {1, 2}), Floats({}, {10})});
  Add({Floats({2}, {3, 4}), Floats({}, {20})});
  Add({Floats({2}, {5, 6}), Floats({}, {30})});
  ASSERT_TRUE(Run({}).ok());
  ASSERT_EQ(inputs_.size(), 2u);
  EXPECT_EQ(inputs_[0].shape(), (Shape{3, 2}));
  EXPECT_THAT(Values(inputs_[0]), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_EQ(inputs_[1].shape(), (Shape{3}));
  EXPECT_THAT(Values(inputs_[1]), ElementsAre(10, 20, 30));
}

TEST_F(GatherTest, OneAlignedInstanceIsNotCopied) {
  const Tensor row = Floats({2}, {1, 2});
  Add({row});
  ASSERT_TRUE(Run({}).ok());
  EXPECT_EQ(inputs_[0].shape(), (Shape{1, 2}));
  EXPECT_EQ(inputs_[0].data().data(), row.data().data());
  EXPECT_EQ(inputs_[0].owner(), row.owner());
}

TEST_F(GatherTest, OneUnalignedInstanceIs) {
  std::vector<std::byte> memory(64);
  std::byte* at = memory.data() + 1;
  const float values[] = {1, 2};
  std::memcpy(at, values, sizeof(values));
  Add({Tensor::View(DType::kFloat32, Shape{2}, {at, sizeof(values)}, nullptr).value()});
  ASSERT_TRUE(Run({}).ok());
  EXPECT_TRUE(inputs_[0].aligned());
  EXPECT_THAT(Values(inputs_[0]), ElementsAre(1, 2));
}

TEST_F(GatherTest, RowsOfOneEarlierOutputAreNotCopied) {
  const Tensor output = Floats({3, 2}, {1, 2, 3, 4, 5, 6});
  for (int i = 0; i < 3; ++i) Add({output.Rows(i, 1).Reshaped(Shape{2}).value()});
  ASSERT_TRUE(Run({}).ok());
  EXPECT_EQ(inputs_[0].data().data(), output.data().data());
  EXPECT_EQ(inputs_[0].shape(), (Shape{3, 2}));

  std::swap(items_[0], items_[1]);
  ASSERT_TRUE(Run({}).ok());
  EXPECT_NE(inputs_[0].data().data(), output.data().data());
  EXPECT_THAT(Values(inputs_[0]), ElementsAre(3, 4, 1, 2, 5, 6));
}

TEST_F(GatherTest, RowsOfNobodyInOnePieceAreCopied) {
  // Memory without an owner that counts may be two things that happen to lie side by side.
  static const float values[] = {1, 2, 3, 4};
  const auto bytes = std::as_bytes(std::span(values));
  Add({Tensor::View(DType::kFloat32, Shape{2}, bytes.first(8), nullptr).value()});
  Add({Tensor::View(DType::kFloat32, Shape{2}, bytes.last(8), nullptr).value()});
  ASSERT_TRUE(Run({}).ok());
  EXPECT_NE(inputs_[0].data().data(), bytes.data());
  EXPECT_THAT(Values(inputs_[0]), ElementsAre(1, 2, 3, 4));
}

TEST_F(GatherTest, BuffersAreUsedAgain) {
  Add({Floats({2}, {1, 2})});
  Add({Floats({2}, {3, 4})});
  ASSERT_TRUE(Run({}).ok());
  const std::byte* memory = inputs_[0].data().data();
  ASSERT_TRUE(Run({}).ok());
  EXPECT_EQ(inputs_[0].data().data(), memory);
  const Tensor held = inputs_[0];
  ASSERT_TRUE(Run({}).ok());
  EXPECT_NE(inputs_[0].data().data(), memory);
}

TEST_F(GatherTest, EveryTypeGoesThereAndBack) {
  for (const DTypeInfo& info : kDTypes) {
    if (info.dtype == DType::kUnknown) continue;
    SCOPED_TRACE(std::string(info.name));
    storage_.clear();
    items_.clear();
    for (int row = 0; row < 3; ++row) {
      if (IsText(info.dtype)) {
        auto texts = std::make_shared<std::vector<std::string>>();
        texts->push_back("row " + std::to_string(row));
        texts->push_back(std::string(static_cast<size_t>(row) * 100, 'x'));
        Add({Tensor::TextView(info.dtype, Shape{2}, {texts->begin(), texts->end()}, texts).value()});
      } else {
        std::vector<uint8_t> bytes(info.size * 2);
        for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(row * 50 + static_cast<int>(i));
        Add({Make<uint8_t>(info.dtype, Shape{2}, bytes)});
      }
    }
    std::vector<Tensor> before;
    for (const Item* item : items_) before.push_back(item->tensors[0]);
    ASSERT_TRUE(Run({}).ok());
    EXPECT_EQ(inputs_[0].shape(), (Shape{3, 2}));
    EXPECT_EQ(inputs_[0].dtype(), info.dtype);
    ASSERT_TRUE(Scatter({}, inputs_, items_).ok());
    for (size_t i = 0; i < before.size(); ++i) {
      const Tensor& after = items_[i]->tensors[0];
      EXPECT_EQ(after.shape(), before[i].shape());
      EXPECT_EQ(after.dtype(), info.dtype);
      EXPECT_TRUE(std::ranges::equal(after.data(), before[i].data()));
      EXPECT_TRUE(std::ranges::equal(after.elements(), before[i].elements()));
      EXPECT_EQ(after.owner(), inputs_[0].owner());
    }
  }
}

TEST_F(GatherTest, TextsOutliveTheirInstances) {
  Add({Tensor::Text(DType::kString, std::string(100, 'a'))});
  Add({Tensor::Text(DType::kString, std::string(100, 'b'))});
  ASSERT_TRUE(Run({}).ok());
  items_.clear();
  storage_.clear();
  EXPECT_THAT(Texts(inputs_[0]), ElementsAre(std::string(100, 'a'), std::string(100, 'b')));
}

TEST_F(GatherTest, AFixedBatchIsPaddedWithTheLastRow) {
  BatchLayout layout;
  layout.fixed_rows = 4;
  Add({Floats({2}, {1, 2}), Tensor::Text(DType::kString, "a")});
  Add({Floats({2}, {3, 4}), Tensor::Text(DType::kString, "b")});
  ASSERT_TRUE(Run(layout).ok());
  EXPECT_EQ(inputs_[0].shape(), (Shape{4, 2}));
  EXPECT_THAT(Values(inputs_[0]), ElementsAre(1, 2, 3, 4, 3, 4, 3, 4));
  EXPECT_EQ(inputs_[1].shape(), (Shape{4, 1}));
  EXPECT_THAT(Texts(inputs_[1]), ElementsAre("a", "b", "b", "b"));

  ASSERT_TRUE(Scatter(layout, inputs_, items_).ok());
  EXPECT_THAT(Values(items_[0]->tensors[0]), ElementsAre(1, 2));
  EXPECT_THAT(Values(items_[1]->tensors[0]), ElementsAre(3, 4));
  EXPECT_THAT(Texts(items_[1]->tensors[1]), ElementsAre("b"));
}

TEST_F(GatherTest, AFullFixedBatchHasNoPadding) {
  BatchLayout layout;
  layout.fixed_rows = 2;
  Add({Floats({1}, {1})});
  Add({Floats({1}, {2})});
  ASSERT_TRUE(Run(layout).ok());
  EXPECT_THAT(Values(inputs_[0]), ElementsAre(1, 2));
}

TEST_F(GatherTest, TooManyForAFixedBatchAreRefused) {
  BatchLayout layout;
  layout.fixed_rows = 1;
  Add({Floats({1}, {1})});
  Add({Floats({1}, {2})});
  EXPECT_EQ(Run(layout).code(), Code::kInternal);
}

TEST_F(GatherTest, WithoutABatchDimensionTensorsGoAsTheyAre) {
  BatchLayout layout;
  layout.batched = false;
  const Tensor tensor = Floats({3}, {1, 2, 3});
  Add({tensor});
  ASSERT_TRUE(Run(layout).ok());
  EXPECT_EQ(inputs_[0].shape(), (Shape{3}));
  EXPECT_EQ(inputs_[0].data().data(), tensor.data().data());
  const Tensor output = Floats({}, {7});
  ASSERT_TRUE(Scatter(layout, std::vector<Tensor>{output}, items_).ok());
  EXPECT_EQ(items_[0]->tensors[0].shape(), Shape{});

  Add({tensor});
  EXPECT_EQ(Run(layout).code(), Code::kInternal);
}

TEST_F(GatherTest, WholeInputsAreGivenOnce) {
  BatchLayout layout;
  layout.whole_inputs = {false, true};
  const Tensor table = Floats({3}, {7, 8, 9});
  Add({Floats({1}, {1}), table});
  Add({Floats({1}, {2}), Floats({3}, {7, 8, 9})});
  ASSERT_TRUE(Run(layout).ok());
  EXPECT_EQ(inputs_[0].shape(), (Shape{2, 1}));
  EXPECT_EQ(inputs_[1].shape(), (Shape{3}));
  EXPECT_EQ(inputs_[1].data().data(), table.data().data());
}

TEST_F(GatherTest, RowsOfNothing) {
  Add({Floats({0, 3}, {}), Tensor::TextView(DType::kString, Shape{0}, {}, nullptr).value()});
  Add({Floats({0, 3}, {}), Tensor::TextView(DType::kString, Shape{0}, {}, nullptr).value()});
  ASSERT_TRUE(Run({}).ok());
  EXPECT_EQ(inputs_[0].shape(), (Shape{2, 0, 3}));
  EXPECT_EQ(inputs_[1].shape(), (Shape{2, 0}));
  ASSERT_TRUE(Scatter({}, inputs_, items_).ok());
  EXPECT_EQ(items_[1]->tensors[0].shape(), (Shape{0, 3}));
}

TEST_F(GatherTest, UnequalInstancesAreRefused) {
  Add({Floats({2}, {1, 2})});
  Add({Floats({3}, {1, 2, 3})});
  const Status status = Run({});
  EXPECT_EQ(status.code(), Code::kInternal);
  EXPECT_THAT(status.message(), HasSubstr("(2,)"));
  EXPECT_THAT(status.message(), HasSubstr("(3,)"));
}

TEST_F(GatherTest, UnequalCountsAreRefused) {
  Add({Floats({1}, {1})});
  Add({});
  EXPECT_EQ(Run({}).code(), Code::kInternal);
}

TEST_F(GatherTest, NoInstancesAreRefused) {
  EXPECT_EQ(Run({}).code(), Code::kInternal);
}

TEST_F(GatherTest, AnOutputWithoutTheBatchIsAnError) {
  Add({Floats({1}, {1})});
  Add({Floats({1}, {2})});
  for (const Tensor& output : {Floats({3, 1}, {1, 2, 3}), Floats({}, {1})}) {
    const std::vector<Tensor> outputs = {Floats({2}, {1, 2}), output};
    const Status status = Scatter({}, outputs, items_);
    EXPECT_EQ(status.code(), Code::kInternal);
    EXPECT_EQ(status.message(), "output 1 has the shape " + output.shape().ToString() +
                                    ", in which the first dimension is not the batch's size 2");
    EXPECT_EQ(items_[0]->tensors.size(), 1u);
  }
}

}  // namespace
}  // namespace mindserve::batching
