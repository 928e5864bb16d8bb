// gzip, bounded.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"

namespace mindserve::gateway {

// Inflates one gzip stream as its bytes come.
class Inflater {
 public:
  // More than `max_bytes` of output is refused: RESOURCE_EXHAUSTED naming max_msg_mb_size.
  explicit Inflater(size_t max_bytes);
  ~Inflater();

  // INTERNAL: this is no gzip. Output grows with what was really inflated.
  Status Feed(std::span<const std::byte> data);
  // After the last byte: INTERNAL if the stream is not complete.
  Status End() const;
  std::span<const std::byte> output() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// What is said of a message of more than `max_bytes`, however it was found.
Status TooLarge(size_t max_bytes);

}  // namespace mindserve::gateway
