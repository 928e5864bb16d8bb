#include "wire/json_array.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "wire/json_number_array.h"

namespace mindserve::wire {
namespace {

Status Invalid(std::string text) {
  return {Code::kInvalidArgument, std::move(text)};
}

// Arrays of anything that ReadNumberArray leaves: bools, a text, and what is wrong.
class ArrayReader {
 public:
  explicit ArrayReader(JsonTensor* tensor) : tensor_(tensor) { dims_.fill(kUnset); }

  // An array that stands in `depth` others.
  Status Read(ondemand::value& value, size_t depth);
  Shape shape() const { return Shape(std::span(dims_).first(rank_)); }

 private:
  static constexpr int64_t kUnset = -1;

  // An array whose elements are counted. What is wrong with one of them is said unless the count is wrong.
  struct Level {
    size_t depth;
    int64_t count = 0;
    Status wrong;
  };

  Status ReadElement(ondemand::value& value, size_t depth);
  Status ReadFirst(ondemand::value& value, size_t depth);
  Status ReadNext(ondemand::value& value);
  Status Close(const Level& level);

  JsonTensor* tensor_;
  std::array<int64_t, kMaxJsonRank> dims_;
  size_t rank_ = 0;  // 0: no element was met yet
};

Status ArrayReader::Read(ondemand::value& value, size_t depth) {
  ondemand::array array;
  if (const auto error = value.get_array().get(array)) {
    if (!Token(value).starts_with('[')) return Invalid("invalid json array: json type is not array");
    return IllegalJson(error);
  }
  Level level{depth, 0, Status::Ok()};
  for (auto result : array) {
    ondemand::value element;
    if (const auto error = std::move(result).get(element)) return IllegalJson(error);
    ++level.count;
    // A text is alone: what stands beside it is only counted.
    if (level.wrong.ok() && (rank_ == 0 || !IsText(tensor_->dtype))) level.wrong = ReadElement(element, depth);
  }
  return Close(level);
}

Status ArrayReader::ReadElement(ondemand::value& value, size_t depth) {
  if (rank_ > depth + 1) return Read(value, depth + 1);
  if (rank_ == depth + 1) return ReadNext(value);
  if (!Token(value).starts_with('[')) return ReadFirst(value, depth);
  if (depth + 1 == kMaxJsonRank) {
    return {Code::kOutOfRange, "the array has more than " + std::to_string(kMaxJsonRank) + " dimensions"};
  }
  return Read(value, depth + 1);
}

// The first element of all says what the others have to be.
Status ArrayReader::ReadFirst(ondemand::value& value, size_t depth) {
  const std::string_view token = Token(value);
  const JsonKind kind = KindOf(token);
  if (kind == JsonKind::kNull) return Invalid("json array, data type is unknown: an element is null");
  JsonTensor element;
  MS_RETURN_IF_ERROR(ReadScalar(value, &element));
  if (kind == JsonKind::kObject && !IsText(element.dtype)) {
    return Invalid("json array, item is object type, object only support string or bytes type");
  }
  rank_ = depth + 1;
  tensor_->dtype = element.dtype;
  tensor_->bytes.assign(element.bytes);
  return Status::Ok();
}

// An element after the first.
Status ArrayReader::ReadNext(ondemand::value& value) {
  const std::string_view token = Token(value);
  const DType dtype = TypeOf(KindOf(token));
  if (dtype == DType::kUnknown) return Invalid("json array, data should be number, bool, string or bytes");
  if (dtype != tensor_->dtype) {
    return Invalid("json array, elements type is not equal: the first is of type " +
                   std::string(NameOf(tensor_->dtype)) + ", " + Excerpt(token) + " of type " +
                   std::string(NameOf(dtype)));
  }
  JsonTensor element;
  MS_RETURN_IF_ERROR(ReadScalar(value, &element));
  tensor_->bytes.append(element.bytes);
  return Status::Ok();
}

// At the end of an array.
Status ArrayReader::Close(const Level& level) {
  if (!level.wrong.ok() && level.wrong.code() != Code::kInvalidArgument) return level.wrong;
  if (rank_ > 0 && IsText(tensor_->dtype) && level.count != 1) {
    return Invalid("json array, string or bytes type only support one item");
  }
  int64_t& dim = dims_[level.depth];
  if (dim != kUnset && level.count != dim) {
    return Invalid("invalid json array: json size is " + std::to_string(level.count) + ", the dim " +
                   std::to_string(level.depth) + " expected to be " + std::to_string(dim));
  }
  if (!level.wrong.ok()) return level.wrong;
  if (level.count == 0) {
    return Invalid(level.depth == 0 ? "json array, shape is empty"
                                    : "json array, data type is unknown: an array in it is empty");
  }
  dim = level.count;
  return Status::Ok();
}

}  // namespace

Status ReadArray(ondemand::value& value, JsonTensor* tensor) {
  // The parent passes over the array by itself.
  if (ReadNumberArray(Token(value).data(), tensor)) return Status::Ok();
  tensor->dtype = DType::kUnknown;
  tensor->bytes.clear();
  ArrayReader reader(tensor);
  MS_RETURN_IF_ERROR(reader.Read(value, 0));
  tensor->shape = reader.shape();
  return IsText(tensor->dtype) ? CheckTextShape(tensor->shape) : Status::Ok();
}

}  // namespace mindserve::wire
