#include "batching/gather.h"

#include <cstring>
#include <string>
#include <utility>

namespace mindserve::batching {
namespace {

Status DoesNotFit(size_t input, const Tensor& first, const Tensor& other) {
  return {Code::kInternal, "input " + std::to_string(input) + " of a batch is " + first.Describe() +
                               " in one instance and " + other.Describe() + " in another"};
}

// Whether the rows lie one after the other in memory of one owner.
bool InOnePiece(std::span<Item* const> items, size_t input) {
  const Tensor& first = items.front()->tensors[input];
  const std::byte* end = first.data().data();
  for (const Item* item : items) {
    const Tensor& row = item->tensors[input];
    if (row.data().data() != end || row.owner() != first.owner()) return false;
    end += row.data().size();
  }
  return items.size() == 1 || first.owner() != nullptr;
}

Result<Tensor> GatherText(std::span<Item* const> items, size_t input, Shape shape, size_t rows) {
  const Tensor& first = items.front()->tensors[input];
  auto owners = std::make_shared<std::vector<TensorOwner>>();
  owners->reserve(items.size());
  std::vector<std::string_view> elements;
  elements.reserve(first.elements().size() * rows);
  for (const Item* item : items) {
    const Tensor& row = item->tensors[input];
    elements.insert(elements.end(), row.elements().begin(), row.elements().end());
    owners->push_back(row.owner());
  }
  const Tensor& last = items.back()->tensors[input];
  for (size_t row = items.size(); row < rows; ++row) {
    elements.insert(elements.end(), last.elements().begin(), last.elements().end());
  }
  return Tensor::TextView(first.dtype(), std::move(shape), std::move(elements), std::move(owners));
}

Result<Tensor> GatherRows(std::span<Item* const> items, size_t input, size_t rows, BufferPool& pool) {
  const Tensor& first = items.front()->tensors[input];
  Shape shape = first.shape().WithBatch(static_cast<int64_t>(rows));
  for (const Item* item : items) {
    const Tensor& other = item->tensors[input];
    if (other.dtype() != first.dtype() || !(other.shape() == first.shape())) return DoesNotFit(input, first, other);
  }
  if (IsText(first.dtype())) return GatherText(items, input, std::move(shape), rows);
  if (rows == items.size() && first.aligned() && InOnePiece(items, input)) {
    return Tensor::View(first.dtype(), std::move(shape), {first.data().data(), first.data().size() * rows},
                        first.owner());
  }
  const auto size = ByteSize(first.dtype(), shape);
  if (!size.ok()) return size.status();
  TensorOwner owner;
  auto bytes = pool.Acquire(*size, &owner);
  if (!bytes.ok()) return bytes.status();
  const size_t row_size = first.data().size();
  std::byte* to = bytes->data();
  for (size_t row = 0; row_size > 0 && row < rows; ++row, to += row_size) {
    const Item& from = *items[row < items.size() ? row : items.size() - 1];
    std::memcpy(to, from.tensors[input].data().data(), row_size);
  }
  return Tensor::View(first.dtype(), std::move(shape), *bytes, std::move(owner));
}

// Row `row` of an output, without the batch dimension.
Result<Tensor> Row(const Tensor& output, size_t row, size_t rows) {
  Shape shape = output.shape().WithoutFirst();
  if (IsText(output.dtype())) {
    const size_t count = output.elements().size() / rows;
    const auto elements = output.elements().subspan(row * count, count);
    return Tensor::TextView(output.dtype(), std::move(shape), {elements.begin(), elements.end()}, output.owner());
  }
  const size_t size = output.data().size() / rows;
  return Tensor::View(output.dtype(), std::move(shape), output.data().subspan(row * size, size), output.owner());
}

}  // namespace

Status Gather(const BatchLayout& layout, std::span<Item* const> items, BufferPool& pool, std::vector<Tensor>* inputs) {
  inputs->clear();
  const size_t limit = !layout.batched ? 1 : layout.RowsFor(items.size());
  if (items.empty() || items.size() > limit) {
    return {Code::kInternal, "a batch of " + std::to_string(items.size()) + " instances, of which at most " +
                                 std::to_string(limit) + " can run at once"};
  }
  const size_t count = items.front()->tensors.size();
  for (const Item* item : items) {
    if (item->tensors.size() == count) continue;
    return {Code::kInternal, "a batch of instances with " + std::to_string(count) + " and with " +
                                 std::to_string(item->tensors.size()) + " inputs"};
  }
  for (size_t i = 0; i < count; ++i) {
    if (!layout.batched || (i < layout.whole_inputs.size() && layout.whole_inputs[i])) {
      inputs->push_back(items.front()->tensors[i].Aligned());
      continue;
    }
    auto rows = GatherRows(items, i, layout.RowsFor(items.size()), pool);
    if (!rows.ok()) return rows.status();
    inputs->push_back(*std::move(rows));
  }
  return Status::Ok();
}

Status Scatter(const BatchLayout& layout, std::span<const Tensor> outputs, std::span<Item* const> items) {
  if (!layout.batched) {
    std::vector<Tensor>(outputs.begin(), outputs.end()).swap(items.front()->tensors);
    return Status::Ok();
  }
  const size_t rows = layout.RowsFor(items.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    const Shape& shape = outputs[i].shape();
    if (shape.rank() >= 1 && shape[0] == static_cast<int64_t>(rows)) continue;
    return {Code::kInternal, "output " + std::to_string(i) + " has the shape " + shape.ToString() +
                                 ", in which the first dimension is not the batch's size " + std::to_string(rows)};
  }
  std::vector<Tensor> all;
  all.reserve(items.size() * outputs.size());
  for (size_t row = 0; row < items.size(); ++row) {
    items[row]->tensors.reserve(outputs.size());
    for (const Tensor& output : outputs) {
      auto one = Row(output, row, rows);
      if (!one.ok()) return one.status();
      all.push_back(*std::move(one));
    }
  }
  // From here on nothing fails.
  auto next = all.begin();
  for (Item* item : items) {
    item->tensors.clear();
    for (size_t i = 0; i < outputs.size(); ++i) item->tensors.push_back(std::move(*next++));
  }
  return Status::Ok();
}

}  // namespace mindserve::batching
