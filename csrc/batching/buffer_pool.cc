#include "batching/buffer_pool.h"

#include <algorithm>
#include <array>
#include <bit>
#include <mutex>
#include <new>
#include <string>
#include <utility>

namespace mindserve::batching {
namespace {

struct Free {
  void operator()(std::byte* memory) const { ::operator delete(memory, std::align_val_t(kBufferAlignment)); }
};

struct Buffer {
  std::unique_ptr<std::byte, Free> memory;
  size_t capacity = 0;
};

constexpr size_t kSmallest = 4096;
constexpr size_t kLargest = size_t{1} << 40;  // beyond, a size is a mistake

}  // namespace

// The buffers that nobody uses, the one used last first.
class BufferPool::Store {
 public:
  Buffer Take(size_t capacity) {
    const std::lock_guard lock(mutex_);
    for (size_t i = 0; i < count_; ++i) {
      if (kept_[i].capacity != capacity) continue;
      Buffer buffer = std::move(kept_[i]);
      std::move(kept_.begin() + i + 1, kept_.begin() + count_, kept_.begin() + i);
      --count_;
      return buffer;
    }
    return {};
  }

  void Put(Buffer buffer) {
    Buffer dropped;  // freed outside of the lock
    const std::lock_guard lock(mutex_);
    if (count_ == kept_.size()) {
      dropped = std::move(kept_.back());
      --count_;
    }
    std::move_backward(kept_.begin(), kept_.begin() + count_, kept_.begin() + count_ + 1);
    kept_.front() = std::move(buffer);
    ++count_;
  }

 private:
  std::mutex mutex_;
  std::array<Buffer, 8> kept_;  // the first count_
  size_t count_ = 0;
};

BufferPool::BufferPool() : store_(std::make_shared<Store>()) {}

BufferPool::~BufferPool() = default;

Result<std::span<std::byte>> BufferPool::Acquire(size_t size, TensorOwner* owner) {
  const auto no_memory = [size] {
    return Status(Code::kResourceExhausted, "no memory for a batch of " + std::to_string(size) + " bytes");
  };
  if (size > kLargest) return no_memory();
  // Rounded up, so that batches of about the same size use the same buffers. Pages that aren't touched cost nothing.
  const size_t capacity = std::bit_ceil(std::max(size, kSmallest));
  Buffer buffer = store_->Take(capacity);
  if (buffer.memory == nullptr) {
    void* memory = ::operator new(capacity, std::align_val_t(kBufferAlignment), std::nothrow);
    if (memory == nullptr) return no_memory();
    buffer = {std::unique_ptr<std::byte, Free>(static_cast<std::byte*>(memory)), capacity};
  }
  std::byte* const bytes = buffer.memory.get();
  struct Return {
    std::shared_ptr<Store> store;
    size_t capacity;
    void operator()(const void* memory) const {
      store->Put({std::unique_ptr<std::byte, Free>(static_cast<std::byte*>(const_cast<void*>(memory))), capacity});
    }
  };
  // If the control block can't be allocated, the deleter is called: the buffer is never lost.
  *owner = TensorOwner(static_cast<const void*>(buffer.memory.release()), Return{store_, capacity});
  return std::span<std::byte>(bytes, size);
}

}  // namespace mindserve::batching
