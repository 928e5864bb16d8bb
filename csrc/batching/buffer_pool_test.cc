#include "batching/buffer_pool.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <thread>
#include <vector>

namespace mindserve::batching {
namespace {

TEST(BufferPoolTest, BuffersAreAlignedAndWritable) {
  BufferPool pool;
  for (size_t size : {size_t{0}, size_t{1}, size_t{4096}, size_t{4097}, size_t{1} << 20}) {
    TensorOwner owner;
    auto bytes = pool.Acquire(size, &owner);
    ASSERT_TRUE(bytes.ok());
    ASSERT_EQ(bytes->size(), size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(bytes->data()) % kBufferAlignment, 0u);
    for (std::byte& b : *bytes) b = std::byte{7};
  }
}

TEST(BufferPoolTest, ABufferIsUsedAgainOnceItIsLetGo) {
  BufferPool pool;
  TensorOwner first;
  const std::byte* memory = pool.Acquire(10'000, &first)->data();
  TensorOwner second;
  EXPECT_NE(pool.Acquire(10'000, &second)->data(), memory);
  first.reset();
  TensorOwner third;
  EXPECT_EQ(pool.Acquire(9'000, &third)->data(), memory);
}

TEST(BufferPoolTest, KeepsAFew) {
  BufferPool pool;
  std::vector<TensorOwner> owners(40);
  for (int round = 0; round < 3; ++round) {
    for (size_t i = 0; i < owners.size(); ++i) ASSERT_TRUE(pool.Acquire(1 + i * 4096, &owners[i]).ok());
    for (TensorOwner& owner : owners) owner.reset();
  }
}

TEST(BufferPoolTest, BuffersOutliveThePool) {
  auto pool = std::make_unique<BufferPool>();
  TensorOwner owner;
  auto bytes = pool->Acquire(100, &owner);
  pool.reset();
  (*bytes)[99] = std::byte{1};
}

TEST(BufferPoolTest, BuffersComeBackFromOtherThreads) {
  BufferPool pool;
  for (int i = 0; i < 200; ++i) {
    TensorOwner owner;
    auto bytes = pool.Acquire(8192, &owner);
    bytes->front() = std::byte{1};
    std::thread([held = std::move(owner), bytes]() mutable {
      bytes->front() = std::byte{2};
      held.reset();
    }).join();
  }
}

TEST(BufferPoolTest, NoMemoryIsAnError) {
  BufferPool pool;
  TensorOwner owner;
  auto bytes = pool.Acquire(std::numeric_limits<size_t>::max() / 2, &owner);
  ASSERT_FALSE(bytes.ok());
  EXPECT_EQ(bytes.status().code(), Code::kResourceExhausted);
}

}  // namespace
}  // namespace mindserve::batching
