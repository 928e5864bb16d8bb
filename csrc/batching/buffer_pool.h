// Memory for batches, used again and again.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "base/status.h"
#include "tensor/tensor.h"

namespace mindserve::batching {

// Thread-safe: a buffer comes back on whatever thread drops the last tensor that looks at it, even after the pool is
// gone.
class BufferPool {
 public:
  BufferPool();
  ~BufferPool();  // frees what is not in use; the rest when it is let go
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // `size` aligned bytes, not initialised, which are the caller's as long as `*owner` or a copy of it lives.
  // RESOURCE_EXHAUSTED if there is no memory.
  Result<std::span<std::byte>> Acquire(size_t size, TensorOwner* owner);

 private:
  class Store;
  std::shared_ptr<Store> store_;  // shared with the buffers in use
};

}  // namespace mindserve::batching
