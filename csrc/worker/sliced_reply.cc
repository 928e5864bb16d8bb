#include "worker/sliced_reply.h"

#include <algorithm>
#include <cstring>

namespace mindserve::worker {

std::span<const wire::InstanceReply> SlicedReply::Piece(size_t piece) const {
  const size_t begin = std::min(piece * kInstances, replies_.size());
  return replies_.subspan(begin, std::min(kInstances, replies_.size() - begin));
}

bool SlicedReply::Measure() {
  const auto next = Piece(pieces_.size());
  if (!next.empty()) {
    const wire::ReplyWriter& writer = pieces_.emplace_back(names_, next);
    has_errors_ = has_errors_ || writer.has_errors();
    size_ += writer.size();
    if (!Piece(pieces_.size()).empty()) return false;
  }
  if (!has_errors_) return true;
  // If one of all instances has an error, each has an entry.
  for (size_t i = 0; i < pieces_.size(); ++i) {
    if (!pieces_[i].has_errors()) size_ += wire::SuccessErrors(Piece(i).size()).size();
  }
  return true;
}

bool SlicedReply::Write() {
  if (!later_.empty()) {
    wire::LaterCopy& copy = later_.back();
    const size_t count = std::min(copy.from.size(), kBytes);
    std::memcpy(copy.to, copy.from.data(), count);
    copy.to += count;
    copy.from = copy.from.subspan(count);
    if (copy.from.empty()) later_.pop_back();
  } else if (written_ < pieces_.size()) {
    const wire::ReplyWriter& writer = pieces_[written_];
    writer.WriteTo(out_, &later_);
    out_ = out_.subspan(writer.size());
    if (has_errors_ && !writer.has_errors()) {
      const std::string fine = wire::SuccessErrors(Piece(written_).size());
      std::memcpy(out_.data(), fine.data(), fine.size());
      out_ = out_.subspan(fine.size());
    }
    ++written_;
  }
  return later_.empty() && written_ == pieces_.size();
}

}  // namespace mindserve::worker
