#include "batching/batch_key.h"

#include <algorithm>
#include <functional>
#include <random>
#include <string_view>

namespace mindserve::batching {
namespace {

uint64_t Mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9E3779B97F4A7C15u;
  return hash ^ (hash >> 29);
}

std::string_view Bytes(const Tensor& tensor) {
  return {reinterpret_cast<const char*>(tensor.data().data()), tensor.data().size()};
}

bool SameContents(const Tensor& a, const Tensor& b) {
  return IsText(a.dtype()) ? std::ranges::equal(a.elements(), b.elements()) : Bytes(a) == Bytes(b);
}

}  // namespace

BatchKey::BatchKey(std::vector<bool> by_value) : by_value_(std::move(by_value)) {
  std::random_device device;
  seed_ = (uint64_t{device()} << 32) | device();
}

uint64_t BatchKey::Hash(std::span<const Tensor> tensors) const {
  const std::hash<std::string_view> contents;
  uint64_t hash = seed_;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Tensor& tensor = tensors[i];
    hash = Mix(hash, (tensor.shape().rank() << 8) | static_cast<uint64_t>(tensor.dtype()));
    for (int64_t dim : tensor.shape().dims()) hash = Mix(hash, static_cast<uint64_t>(dim));
    if (i >= by_value_.size() || !by_value_[i]) continue;
    if (IsText(tensor.dtype())) {
      for (std::string_view element : tensor.elements()) hash = Mix(hash, contents(element));
    } else {
      hash = Mix(hash, contents(Bytes(tensor)));
    }
  }
  return hash;
}

bool BatchKey::Same(std::span<const Tensor> a, std::span<const Tensor> b) const {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].dtype() != b[i].dtype() || !(a[i].shape() == b[i].shape())) return false;
    if (i < by_value_.size() && by_value_[i] && !SameContents(a[i], b[i])) return false;
  }
  return true;
}

}  // namespace mindserve::batching
