// What must be equal for instances to share a batch.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tensor/tensor.h"

namespace mindserve::batching {

// A value. Types and shapes must be equal, and for some inputs the contents as well.
class BatchKey {
 public:
  // `by_value[i]`: the contents of input i count too. Inputs beyond its end count by type and shape only.
  explicit BatchKey(std::vector<bool> by_value);

  // Equal for tensors that are Same; seeded, so that nobody can choose shapes that collide.
  uint64_t Hash(std::span<const Tensor> tensors) const;
  bool Same(std::span<const Tensor> a, std::span<const Tensor> b) const;

 private:
  std::vector<bool> by_value_;
  uint64_t seed_;
};

}  // namespace mindserve::batching
