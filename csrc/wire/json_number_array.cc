#include "wire/json_number_array.h"

#include <array>
#include <cstring>
#include <span>

#include "wire/json_number.h"

namespace mindserve::wire {
namespace {

// Collects elements, so that the string behind grows by blocks of them.
class Block {
 public:
  explicit Block(std::string* bytes) : bytes_(bytes) {}

  template <typename T>
  void Add(T element) {
    if (size_ + sizeof(element) > block_.size()) Flush();
    std::memcpy(block_.data() + size_, &element, sizeof(element));
    size_ += sizeof(element);
  }

  void Flush() {
    bytes_->append(block_.data(), size_);
    size_ = 0;
  }

 private:
  std::string* bytes_;
  std::array<char, 4096> block_;
  size_t size_ = 0;
};

class NumberArrayReader {
 public:
  NumberArrayReader(const char* text, JsonTensor* tensor) : at_(text), tensor_(tensor), block_(&tensor->bytes) {
    dims_.fill(kUnset);
  }

  bool Read() {
    if (!ReadArray(0)) return false;
    block_.Flush();
    tensor_->shape = Shape(std::span(dims_).first(rank_));
    return true;
  }

 private:
  static constexpr int64_t kUnset = -1;

  void SkipSpace() {
    while (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t') ++at_;
  }

  // An array that stands in `depth` others.
  bool ReadArray(size_t depth);
  // The elements of a row. `at_` is behind its bracket.
  template <typename T>
  bool ReadRow(bool (*scan)(const char**, T*), int64_t* count);
  bool ReadElements(size_t depth, int64_t* count);

  const char* at_;
  JsonTensor* tensor_;
  Block block_;
  std::array<int64_t, kMaxJsonRank> dims_;
  size_t rank_ = 0;  // 0: no element was met yet
};

bool NumberArrayReader::ReadArray(size_t depth) {
  if (*at_ != '[' || depth == kMaxJsonRank) return false;
  ++at_;
  SkipSpace();
  if (rank_ == 0 && *at_ != '[') {
    // The first element.
    const char* at = at_;
    int32_t number = 0;
    tensor_->dtype = ScanInt32(&at, &number) ? DType::kInt32 : DType::kFloat32;
    rank_ = depth + 1;
  }
  int64_t count = 0;
  if (!ReadElements(depth, &count)) return false;
  if (dims_[depth] == kUnset) dims_[depth] = count;
  return count == dims_[depth];
}

bool NumberArrayReader::ReadElements(size_t depth, int64_t* count) {
  if (rank_ == depth + 1) {
    return tensor_->dtype == DType::kInt32 ? ReadRow(ScanInt32, count) : ReadRow(ScanFloat32, count);
  }
  while (true) {
    if (!ReadArray(depth + 1)) return false;
    ++*count;
    SkipSpace();
    const char c = *at_++;
    if (c == ']') return true;
    if (c != ',') return false;
    SkipSpace();
  }
}

template <typename T>
bool NumberArrayReader::ReadRow(bool (*scan)(const char**, T*), int64_t* count) {
  while (true) {
    T number;
    if (!scan(&at_, &number)) return false;
    block_.Add(number);
    ++*count;
    SkipSpace();
    const char c = *at_++;
    if (c == ']') return true;
    if (c != ',') return false;
    SkipSpace();
  }
}

}  // namespace

bool ReadNumberArray(const char* text, JsonTensor* tensor) {
  tensor->bytes.clear();
  return NumberArrayReader(text, tensor).Read();
}

}  // namespace mindserve::wire
