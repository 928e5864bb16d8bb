// From instances to a batch and back.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/status.h"
#include "batching/buffer_pool.h"
#include "batching/item.h"
#include "tensor/tensor.h"

namespace mindserve::batching {

// How instances lie in what a model takes and gives. An instance is one row.
struct BatchLayout {
  bool batched = true;             // false: no batch dimension anywhere, one instance a run, its tensors as they are
  size_t fixed_rows = 0;           // each run has so many; 0: as many as there are instances
  std::vector<bool> whole_inputs;  // inputs without a batch dimension, equal for all of a batch; beyond the end: no

  size_t RowsFor(size_t instances) const { return fixed_rows > 0 ? fixed_rows : instances; }
};

// Makes the inputs of one run from the tensors of `items`: at least one, no more than the layout has rows, which a
// queue has found to be of one shape and type. Too few are padded by repeating the last. All inputs are aligned. What
// is of one row, or lies in one piece already (rows of the same earlier output), is not copied. INTERNAL if the items
// don't fit together.
Status Gather(const BatchLayout& layout, std::span<Item* const> items, BufferPool& pool, std::vector<Tensor>* inputs);

// Puts each instance's rows of `outputs` in the place of its tensors, as views with the same owner; padding is cut off.
// INTERNAL if an output has not as many rows as the run. After an error, or std::bad_alloc, nothing is changed.
Status Scatter(const BatchLayout& layout, std::span<const Tensor> outputs, std::span<Item* const> items);

}  // namespace mindserve::batching
