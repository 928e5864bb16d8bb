// Bytes of a message as they come: no more memory than twice of what has come, whatever was announced.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace mindserve::gateway {

class GatheredBytes {
 public:
  void Add(std::span<const std::byte> bytes) {
    if (bytes.empty()) return;
    if (pieces_.empty() || pieces_.back().capacity() - pieces_.back().size() < bytes.size()) {
      constexpr size_t kPiece = size_t{256} << 10;
      pieces_.emplace_back().reserve(std::max(bytes.size(), std::min(size_, kPiece)));
    }
    pieces_.back().insert(pieces_.back().end(), bytes.begin(), bytes.end());
    size_ += bytes.size();
  }
  size_t size() const { return size_; }
  // The first of them, as many as lie together.
  std::span<const std::byte> begin() const { return pieces_.empty() ? std::span<const std::byte>() : pieces_.front(); }
  // To a place for all of them.
  void CopyTo(std::span<std::byte> to) const {
    for (const auto& piece : pieces_) {
      std::ranges::copy(piece, to.begin());
      to = to.subspan(piece.size());
    }
  }

 private:
  std::vector<std::vector<std::byte>> pieces_;
  size_t size_ = 0;
};

}  // namespace mindserve::gateway
