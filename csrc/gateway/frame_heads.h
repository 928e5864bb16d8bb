// The heads of HTTP/2's frames among the bytes of a connection, for what nghttp2 passes over without a word.
#pragma once

#include <nghttp2/nghttp2.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace mindserve::gateway {

// Follows a client's bytes from its preface on. Belongs to one thread.
class FrameHeads {
 public:
  // CONTINUATION; and DATA with nothing in it, or padding, which no client of gRPC sends.
  static bool IsCheap(const nghttp2_frame_hd& head) {
    if (head.type == NGHTTP2_CONTINUATION) return true;
    return head.type == NGHTTP2_DATA && (head.length == 0 || (head.flags & NGHTTP2_FLAG_PADDED) != 0);
  }

  // How many such heads end within these bytes, which follow those of the last time.
  uint64_t CountCheap(std::span<const std::byte> bytes);

 private:
  static constexpr size_t kPreface = 24;
  static constexpr size_t kHead = 9;

  size_t skip_ = kPreface;  // bytes until the next head
  std::array<uint8_t, kHead> head_;
  size_t size_ = 0;  // of the head, so far
};

}  // namespace mindserve::gateway
