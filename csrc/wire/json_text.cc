#include "wire/json_text.h"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "base/utf8.h"
#include "tensor/half.h"
#include "wire/base64.h"

namespace mindserve::wire {
namespace {

template <typename T>
void AppendInteger(T value, std::string* json) {
  char digits[24];
  const auto end = std::to_chars(std::begin(digits), std::end(digits), value).ptr;
  json->append(digits, end);
}

template <typename T>
void AppendFloat(T value, std::string* json) {
  if (!std::isfinite(value)) {
    json->append("null");
    return;
  }
  char digits[32];
  const auto end = std::to_chars(std::begin(digits), std::end(digits), value).ptr;
  const std::string_view text(digits, end);
  json->append(text);
  // Who reads "1" takes it for an integer.
  if (text.find_first_of(".e") == std::string_view::npos) json->append(".0");
}

template <typename T>
void AppendElement(const std::byte* data, std::string* json) {
  T value;
  std::memcpy(&value, data, sizeof(value));
  if constexpr (std::is_same_v<T, Half>) {
    AppendFloat(ToFloat(value), json);
  } else if constexpr (std::is_floating_point_v<T>) {
    AppendFloat(value, json);
  } else {
    AppendInteger(value, json);
  }
}

void AppendText(DType dtype, std::string_view text, std::string* json) {
  if (dtype == DType::kString && IsUtf8(text)) {
    AppendJsonString(text, json);
    return;
  }
  json->append("{\"b64\":\"");
  EncodeBase64(text, json);
  json->append("\"}");
}

// Writes arrays in each other, and asks `element` for what stands in the innermost ones, by its number.
template <typename Element>
class NestedArrays {
 public:
  NestedArrays(std::span<const int64_t> dims, std::string* json, Element element)
      : dims_(dims), json_(json), element_(element) {}

  void Append(size_t depth = 0) {
    if (depth == dims_.size()) {
      element_(next_++);
      return;
    }
    json_->push_back('[');
    for (int64_t i = 0; i < dims_[depth]; ++i) {
      if (i > 0) json_->push_back(',');
      Append(depth + 1);
    }
    json_->push_back(']');
  }

 private:
  std::span<const int64_t> dims_;
  std::string* json_;
  Element element_;
  size_t next_ = 0;
};

template <typename T>
void AppendNumbers(const Tensor& tensor, std::string* json) {
  const std::byte* const data = tensor.data().data();
  NestedArrays(tensor.shape().dims(), json, [data, json](size_t i) {
    AppendElement<T>(data + i * sizeof(T), json);
  }).Append();
}

// An array without elements may still have many arrays in it.
Status CheckEmptyArrays(const Shape& shape) {
  constexpr uint64_t kMost = 1 << 16;
  uint64_t arrays = 1;
  for (int64_t dim : shape.dims()) {
    arrays *= static_cast<uint64_t>(dim);
    if (arrays == 0) break;
    if (dim > static_cast<int64_t>(kMost) || arrays > kMost) {
      return {Code::kInvalidArgument, "a result of shape " + shape.ToString() +
                                          " is not written as JSON: it would be more than " + std::to_string(kMost) +
                                          " empty arrays"};
    }
  }
  return Status::Ok();
}

void AppendNumeric(const Tensor& tensor, std::string* json) {
  switch (tensor.dtype()) {
    case DType::kInt8:
      return AppendNumbers<int8_t>(tensor, json);
    case DType::kUint8:
      return AppendNumbers<uint8_t>(tensor, json);
    case DType::kInt16:
      return AppendNumbers<int16_t>(tensor, json);
    case DType::kUint16:
      return AppendNumbers<uint16_t>(tensor, json);
    case DType::kInt32:
      return AppendNumbers<int32_t>(tensor, json);
    case DType::kUint32:
      return AppendNumbers<uint32_t>(tensor, json);
    case DType::kInt64:
      return AppendNumbers<int64_t>(tensor, json);
    case DType::kUint64:
      return AppendNumbers<uint64_t>(tensor, json);
    case DType::kFloat16:
      return AppendNumbers<Half>(tensor, json);
    case DType::kFloat32:
      return AppendNumbers<float>(tensor, json);
    case DType::kFloat64:
      return AppendNumbers<double>(tensor, json);
    default: {
      const std::byte* const data = tensor.data().data();
      NestedArrays(tensor.shape().dims(), json, [data, json](size_t i) {
        json->append(data[i] == std::byte{0} ? "false" : "true");
      }).Append();
    }
  }
}

// How many bytes of `text` need no escape.
size_t PlainPrefix(std::string_view text) {
  size_t i = 0;
  while (i < text.size() && text[i] != '"' && text[i] != '\\' && static_cast<uint8_t>(text[i]) >= 0x20) ++i;
  return i;
}

void AppendEscape(char c, std::string* json) {
  constexpr std::string_view kHex = "0123456789abcdef";
  switch (c) {
    case '"':
    case '\\':
      json->push_back('\\');
      json->push_back(c);
      break;
    case '\n':
      json->append("\\n");
      break;
    case '\r':
      json->append("\\r");
      break;
    case '\t':
      json->append("\\t");
      break;
    default:
      json->append("\\u00");
      json->push_back(kHex[static_cast<uint8_t>(c) >> 4]);
      json->push_back(kHex[static_cast<uint8_t>(c) & 0xf]);
  }
}

void AppendUtf8(std::string_view text, std::string* json) {
  while (!text.empty()) {
    const size_t plain = PlainPrefix(text);
    json->append(text.substr(0, plain));
    text.remove_prefix(plain);
    if (text.empty()) break;
    AppendEscape(text.front(), json);
    text.remove_prefix(1);
  }
}

}  // namespace

void AppendJsonString(std::string_view text, std::string* json) {
  json->push_back('"');
  if (IsUtf8(text)) {
    AppendUtf8(text, json);
  } else {
    // Seldom, and short: an error's text.
    while (!text.empty()) {
      size_t size = 1;
      while (size <= 4 && size <= text.size() && !IsUtf8(text.substr(0, size))) ++size;
      if (size <= 4 && size <= text.size()) {
        AppendUtf8(text.substr(0, size), json);
      } else {
        json->append("\xef\xbf\xbd");
        size = 1;
      }
      text.remove_prefix(size);
    }
  }
  json->push_back('"');
}

Status AppendJsonTensor(const Tensor& tensor, std::string* json) {
  const Shape& shape = tensor.shape();
  if (shape.Elements() == 0) MS_RETURN_IF_ERROR(CheckEmptyArrays(shape));
  if (!IsText(tensor.dtype())) {
    AppendNumeric(tensor, json);
    return Status::Ok();
  }
  const auto elements = tensor.elements();
  const auto append = [&](size_t i) { AppendText(tensor.dtype(), elements[i], json); };
  if (shape.rank() == 1 && elements.size() == 1) {
    append(0);
  } else {
    NestedArrays(shape.dims(), json, append).Append();
  }
  return Status::Ok();
}

}  // namespace mindserve::wire
