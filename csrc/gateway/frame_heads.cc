#include "gateway/frame_heads.h"

#include <algorithm>
#include <cstring>

namespace mindserve::gateway {

uint64_t FrameHeads::CountCheap(std::span<const std::byte> bytes) {
  uint64_t cheap = 0;
  while (!bytes.empty()) {
    if (skip_ > 0) {
      const size_t part = std::min(skip_, bytes.size());
      skip_ -= part;
      bytes = bytes.subspan(part);
      continue;
    }
    const size_t part = std::min(kHead - size_, bytes.size());
    std::memcpy(head_.data() + size_, bytes.data(), part);
    bytes = bytes.subspan(part);
    size_ += part;
    if (size_ < kHead) break;
    size_ = 0;
    skip_ = size_t{head_[0]} << 16 | size_t{head_[1]} << 8 | head_[2];
    const nghttp2_frame_hd head{.length = skip_, .stream_id = 0, .type = head_[3], .flags = head_[4], .reserved = 0};
    if (IsCheap(head)) ++cheap;
  }
  return cheap;
}

}  // namespace mindserve::gateway
