#include "worker/sliced_reply.h"

#include <gtest/gtest.h>

#include <cstring>

namespace mindserve::worker {
namespace {

Tensor Bytes(size_t size, int fill) {
  std::span<std::byte> bytes;
  Tensor tensor = Tensor::Allocate(DType::kUint8, Shape{static_cast<int64_t>(size)}, &bytes).value();
  if (size > 0) std::memset(bytes.data(), fill, size);
  return tensor;
}

std::vector<wire::InstanceReply> Replies(size_t count, size_t size) {
  std::vector<wire::InstanceReply> replies(count);
  for (size_t i = 0; i < count; ++i) replies[i].outputs.push_back(Bytes(size, static_cast<int>(i % 251)));
  return replies;
}

const std::vector<std::string> kNames = {"y"};

std::string Whole(std::span<const wire::InstanceReply> replies) {
  const wire::ReplyWriter writer(kNames, replies);
  std::string text(writer.size(), '\0');
  writer.WriteTo(std::as_writable_bytes(std::span(text)));
  return text;
}

std::string Sliced(std::span<const wire::InstanceReply> replies, size_t* steps = nullptr) {
  SlicedReply reply(kNames, replies);
  size_t count = 1;
  while (!reply.Measure()) ++count;
  std::string text(reply.size(), '\0');
  reply.Begin(std::as_writable_bytes(std::span(text)));
  while (!reply.Write()) ++count;
  if (steps != nullptr) *steps = count + 1;
  return text;
}

TEST(SlicedReplyTest, WithoutErrorsTheBytesAreTheSame) {
  for (const size_t count : {size_t{1}, SlicedReply::kInstances, SlicedReply::kInstances + 1, size_t{1000}}) {
    const auto replies = Replies(count, 5);
    size_t steps = 0;
    EXPECT_EQ(Sliced(replies, &steps), Whole(replies));
    EXPECT_GE(steps, 2 * count / SlicedReply::kInstances);
  }
}

TEST(SlicedReplyTest, LargeTensorsAreCopiedInSteps) {
  const auto replies = Replies(3, 1 << 20);
  size_t steps = 0;
  EXPECT_EQ(Sliced(replies, &steps), Whole(replies));
  EXPECT_GE(steps, 3 * (1 << 20) / SlicedReply::kBytes);
}

TEST(SlicedReplyTest, AnErrorAnywhereGivesEachAnEntry) {
  auto replies = Replies(2 * SlicedReply::kInstances + 10, 5);
  replies[SlicedReply::kInstances + 3] = {{}, wire::ErrorCode::kFailed, "bad"};
  const std::span<const wire::InstanceReply> all(replies);
  // As a joined reply of three workers would have it.
  const std::string expected = Whole(all.first(SlicedReply::kInstances)) +
                               wire::SuccessErrors(SlicedReply::kInstances) +
                               Whole(all.subspan(SlicedReply::kInstances, SlicedReply::kInstances)) +
                               Whole(all.last(10)) + wire::SuccessErrors(10);
  EXPECT_EQ(Sliced(replies), expected);
}

}  // namespace
}  // namespace mindserve::worker
