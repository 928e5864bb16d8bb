#include "wire/json_array.h"

#include <cstring>
#include <string>
#include <utility>

namespace mindserve::wire {
namespace {

constexpr size_t kMaxRank = 32;  // numpy's

Status Invalid(std::string text) {
  return {Code::kInvalidArgument, std::move(text)};
}

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

class ArrayReader {
 public:
  explicit ArrayReader(JsonTensor* tensor) : tensor_(tensor), block_(&tensor->bytes) { dims_.fill(kUnset); }

  // An array that stands in `depth` others.
  Status Read(ondemand::value& value, size_t depth);
  // After the last element.
  void Flush() { block_.Flush(); }
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
  template <typename Iterator>
  Status ReadRow(Iterator* at, const Iterator& end, Level* level);
  template <typename Iterator, typename Add>
  Status ReadRow(Iterator* at, const Iterator& end, Level* level, Add add);
  Status Mismatch(ondemand::value& value) const;
  Status Close(const Level& level);

  JsonTensor* tensor_;
  Block block_;
  std::array<int64_t, kMaxRank> dims_;
  size_t rank_ = 0;  // 0: no element was met yet
};

Status ArrayReader::Read(ondemand::value& value, size_t depth) {
  ondemand::array array;
  if (const auto error = value.get_array().get(array)) {
    if (!Token(value).starts_with('[')) return Invalid("invalid json array: json type is not array");
    return IllegalJson(error);
  }
  Level level{depth, 0, Status::Ok()};
  const auto end = array.end();
  auto at = array.begin();
  while (at != end) {
    // A row, once it is known how deep rows lie and of what type their elements are.
    if (rank_ == depth + 1 && !IsText(tensor_->dtype)) {
      MS_RETURN_IF_ERROR(ReadRow(&at, end, &level));
      break;
    }
    ondemand::value element;
    if (const auto error = (*at).get(element)) return IllegalJson(error);
    ++level.count;
    // A text is alone: what stands beside it is only counted.
    if (level.wrong.ok() && (rank_ == 0 || !IsText(tensor_->dtype))) level.wrong = ReadElement(element, depth);
    ++at;
  }
  return Close(level);
}

Status ArrayReader::ReadElement(ondemand::value& value, size_t depth) {
  if (rank_ > depth + 1) return Read(value, depth + 1);
  if (!Token(value).starts_with('[')) return ReadFirst(value, depth);
  if (depth + 1 == kMaxRank) {
    return {Code::kOutOfRange, "the array has more than " + std::to_string(kMaxRank) + " dimensions"};
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

template <typename Iterator>
Status ArrayReader::ReadRow(Iterator* at, const Iterator& end, Level* level) {
  switch (tensor_->dtype) {
    case DType::kInt32:
      return ReadRow(at, end, level, [this](ondemand::value& value) {
        int32_t number;
        if (!ReadInt32(value, &number)) return false;
        block_.Add(number);
        return true;
      });
    case DType::kFloat32:
      return ReadRow(at, end, level, [this](ondemand::value& value) {
        float number;
        if (!ReadFloat32(value, &number)) return false;
        block_.Add(number);
        return true;
      });
    default:
      return ReadRow(at, end, level, [this](ondemand::value& value) {
        const std::string_view token = Token(value);
        if (token != "true" && token != "false") return false;
        block_.Add(static_cast<uint8_t>(token == "true"));
        return true;
      });
  }
}

template <typename Iterator, typename Add>
Status ArrayReader::ReadRow(Iterator* at, const Iterator& end, Level* level, Add add) {
  for (; *at != end; ++*at) {
    ondemand::value value;
    if (const auto error = (**at).get(value)) return IllegalJson(error);
    ++level->count;
    if (level->wrong.ok() && !add(value)) level->wrong = Mismatch(value);
  }
  return Status::Ok();
}

// Why a value is no element of this array.
Status ArrayReader::Mismatch(ondemand::value& value) const {
  const std::string_view token = Token(value);
  const DType dtype = TypeOf(KindOf(token));
  if (dtype == DType::kUnknown) return Invalid("json array, data should be number, bool, string or bytes");
  if (dtype == tensor_->dtype) return TooLarge(token, NameOf(dtype));
  return Invalid("json array, elements type is not equal: the first is of type " + std::string(NameOf(tensor_->dtype)) +
                 ", " + Excerpt(token) + " of type " + std::string(NameOf(dtype)));
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
  tensor->dtype = DType::kUnknown;
  tensor->bytes.clear();
  ArrayReader reader(tensor);
  MS_RETURN_IF_ERROR(reader.Read(value, 0));
  reader.Flush();
  tensor->shape = reader.shape();
  return IsText(tensor->dtype) ? CheckTextShape(tensor->shape) : Status::Ok();
}

}  // namespace mindserve::wire
