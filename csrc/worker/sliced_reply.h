// A large answer, written a piece at a time, so that others are served in between.
#pragma once

#include <cstddef>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "wire/predict.h"

namespace mindserve::worker {

// First Measure until it is done, then Begin with as much memory as that says, then Write until it is done. A step
// costs some tens of microseconds. The same bytes mean the same as ReplyWriter's, though errors may stand between
// instances.
class SlicedReply {
 public:
  static constexpr size_t kInstances = 256;            // of a step
  static constexpr size_t kBytes = size_t{256} << 10;  // copied in a step

  // Both outlive it.
  SlicedReply(std::span<const std::string> names, std::span<const wire::InstanceReply> replies)
      : names_(names), replies_(replies) {}

  // One step; true: done, and the next two are known.
  bool Measure();
  size_t size() const { return size_; }
  bool has_errors() const { return has_errors_; }

  // `out` has size() bytes and stays until all is written.
  void Begin(std::span<std::byte> out) { out_ = out; }
  // One step; true: done.
  bool Write();

 private:
  std::span<const wire::InstanceReply> Piece(size_t piece) const;

  const std::span<const std::string> names_;
  const std::span<const wire::InstanceReply> replies_;
  std::deque<wire::ReplyWriter> pieces_;
  size_t size_ = 0;
  bool has_errors_ = false;
  std::span<std::byte> out_;  // what is not yet written
  size_t written_ = 0;        // pieces
  std::vector<wire::LaterCopy> later_;
};

}  // namespace mindserve::worker
