// What a connection is about to write: small pieces copied together, large ones written from where they lie.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "gateway/call.h"

namespace mindserve::gateway {

class Output {
 public:
  // Bytes below this are copied: a copy costs less than another entry of a writev.
  static constexpr size_t kCopyBelow = 2048;

  void Copy(std::span<const std::byte> bytes);
  // The bytes stay where they are until they are written: a Keep for what owns them has to follow.
  void Refer(std::span<const std::byte> bytes);
  // Destroys the part once everything that was put in before is written.
  void Keep(ReplyPart part);

  // Bytes not yet written.
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  // The front of it, as entries for writev; valid until the next call that changes something.
  std::span<const iovec> Front();
  // That many bytes of the front have been written.
  void Consume(size_t bytes);

 private:
  struct Segment {
    const std::byte* place = nullptr;  // null: in buffer_, from `offset`
    size_t offset = 0;
    size_t size = 0;
    std::optional<ReplyPart> keep;  // size 0
  };

  // Forgets what is written, once it is much.
  void Compact();

  static constexpr size_t kEntries = 64;
  std::vector<std::byte> buffer_;
  std::vector<Segment> segments_;
  size_t first_ = 0;  // segment that is not written to its end
  size_t size_ = 0;
  std::vector<iovec> entries_;
};

}  // namespace mindserve::gateway
