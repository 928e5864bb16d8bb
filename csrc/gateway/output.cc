#include "gateway/output.h"

#include <algorithm>
#include <utility>

namespace mindserve::gateway {

void Output::Copy(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  const size_t offset = buffer_.size();
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  size_ += bytes.size();
  if (segments_.size() > first_) {
    Segment& last = segments_.back();
    if (last.place == nullptr && !last.keep && last.offset + last.size == offset) {
      last.size += bytes.size();
      return;
    }
  }
  segments_.push_back({nullptr, offset, bytes.size(), std::nullopt});
}

void Output::Refer(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  size_ += bytes.size();
  segments_.push_back({bytes.data(), 0, bytes.size(), std::nullopt});
}

void Output::Keep(ReplyPart part) {
  if (empty()) return;
  segments_.push_back({nullptr, 0, 0, std::move(part)});
}

std::span<const iovec> Output::Front() {
  entries_.clear();
  for (size_t i = first_; i < segments_.size() && entries_.size() < kEntries; ++i) {
    const Segment& segment = segments_[i];
    if (segment.size == 0) continue;
    const std::byte* place = segment.place != nullptr ? segment.place : buffer_.data() + segment.offset;
    entries_.push_back({const_cast<std::byte*>(place), segment.size});
  }
  return entries_;
}

void Output::Consume(size_t bytes) {
  size_ -= bytes;
  while (first_ < segments_.size()) {
    Segment& segment = segments_[first_];
    const size_t n = std::min(bytes, segment.size);
    segment.size -= n;
    bytes -= n;
    if (segment.place != nullptr) {
      segment.place += n;
    } else {
      segment.offset += n;
    }
    if (segment.size > 0) {
      Compact();
      return;
    }
    segment.keep.reset();
    ++first_;
  }
  segments_.clear();
  first_ = 0;
  buffer_.clear();
}

void Output::Compact() {
  constexpr size_t kWaste = 256 * 1024;
  constexpr size_t kWasteSegments = 1024;
  const auto first = segments_.begin() + static_cast<ptrdiff_t>(first_);
  const auto copied =
      std::find_if(first, segments_.end(), [](const Segment& s) { return s.place == nullptr && s.size; });
  const size_t waste = copied == segments_.end() ? buffer_.size() : copied->offset;
  if (waste < kWaste && first_ < kWasteSegments) return;
  buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<ptrdiff_t>(waste));
  for (auto segment = copied; segment != segments_.end(); ++segment) {
    if (segment->place == nullptr && segment->size > 0) segment->offset -= waste;
  }
  segments_.erase(segments_.begin(), first);
  first_ = 0;
}

}  // namespace mindserve::gateway
