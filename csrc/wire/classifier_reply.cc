#include <algorithm>
#include <bit>
#include <cassert>
#include <charconv>
#include <cstring>
#include <protozero/pbf_reader.hpp>
#include <protozero/pbf_writer.hpp>
#include <protozero/varint.hpp>

#include "base/utf8.h"
#include "tensor/half.h"
#include "wire/classifier.h"
#include "wire/fields.h"
#include "wire/tags.h"

namespace mindserve::wire {
namespace {

using protozero::pbf_wire_type;

namespace any_field = field::any;
namespace meta_field = field::classification_reply_meta;
namespace reply_field = field::classification_reply;
namespace result_field = field::classification_result;

constexpr char Tag(uint32_t number, pbf_wire_type type) {
  return static_cast<char>(protozero::tag_and_type(number, type));
}

size_t VarintSize(uint64_t value) {
  return static_cast<size_t>(protozero::length_of_varint(value));
}

// Of a length-delimited field with a tag of one byte.
size_t FieldSize(size_t content) {
  return 1 + VarintSize(content) + content;
}

// proto3 leaves out what is 0, but not -0.
bool IsWritten(double value) {
  return std::bit_cast<uint64_t>(value) != 0;
}

Status Wrong(const std::string& name, const Tensor& tensor, const std::string& expected) {
  return {Code::kInternal, "output '" + name + "' is " + tensor.Describe() + ", expected " + expected};
}

// How many elements; nothing if they are in more than one line.
std::optional<size_t> Line(const Tensor& tensor) {
  const auto elements = tensor.shape().Elements();
  if (!tensor || !elements) return std::nullopt;
  const auto dims = tensor.shape().dims();
  if (std::ranges::count_if(dims, [](int64_t dim) { return dim != 1; }) > 1) return std::nullopt;
  return static_cast<size_t>(*elements);
}

template <typename T>
double Element(const std::byte* data, size_t at) {
  T value;
  std::memcpy(&value, data + at * sizeof(T), sizeof(T));
  if constexpr (std::is_same_v<T, Half>) {
    return ToFloat(value);
  } else {
    return static_cast<double>(value);
  }
}

using Getter = double (*)(const std::byte*, size_t);

// Null: not of numbers.
Getter GetterOf(DType dtype) {
  switch (dtype) {
    case DType::kBool:
    case DType::kUint8:
      return Element<uint8_t>;
    case DType::kInt8:
      return Element<int8_t>;
    case DType::kInt16:
      return Element<int16_t>;
    case DType::kUint16:
      return Element<uint16_t>;
    case DType::kInt32:
      return Element<int32_t>;
    case DType::kUint32:
      return Element<uint32_t>;
    case DType::kInt64:
      return Element<int64_t>;
    case DType::kUint64:
      return Element<uint64_t>;
    case DType::kFloat16:
      return Element<Half>;
    case DType::kFloat32:
      return Element<float>;
    case DType::kFloat64:
      return Element<double>;
    default:
      return nullptr;
  }
}

// Whether a reader of protobuf takes these bytes for an Any.
bool IsAny(std::string_view bytes) {
  protozero::pbf_reader reader(bytes.data(), bytes.size());
  try {
    while (reader.next()) {
      if (reader.tag_and_type() == Delimited(any_field::kTypeUrl)) {
        const auto url = reader.get_view();
        if (!IsUtf8({url.data(), url.size()})) return false;
      } else {
        reader.skip();
      }
    }
    return true;
  } catch (const protozero::exception&) {
    return false;
  }
}

}  // namespace

size_t ClassificationWriter::ContentSize(const Entry& entry) {
  const size_t name = entry.Name().size();
  return (IsWritten(entry.prediction) ? 9 : 0) + (name > 0 ? FieldSize(name) : 0) +
         (IsWritten(entry.confidence) ? 9 : 0);
}

Result<ClassificationWriter> ClassificationWriter::Create(const ClassificationOutputs& map,
                                                          std::span<const std::string> names,
                                                          std::span<const Tensor> outputs,
                                                          std::string_view model_name) {
  const Tensor& prediction = outputs[map.prediction];
  const Getter get = GetterOf(prediction.dtype());
  const auto count = Line(prediction);
  if (get == nullptr || !count) {
    return Wrong(names[map.prediction], prediction, "numbers in one dimension, one for each class");
  }
  const auto of_count = [&](size_t output, const char* what) {
    return Wrong(names[output], outputs[output],
                 std::to_string(*count) + " " + what + ", as output '" + names[map.prediction] + "' has");
  };
  Getter get_confidence = get;
  const Tensor* confidence = &prediction;
  if (map.confidence) {
    confidence = &outputs[*map.confidence];
    get_confidence = GetterOf(confidence->dtype());
    if (get_confidence == nullptr || Line(*confidence) != count) return of_count(*map.confidence, "numbers");
  }
  std::span<const std::string_view> texts;
  if (map.predicted_class) {
    const Tensor& classes = outputs[*map.predicted_class];
    if (!IsText(classes.dtype()) || Line(classes) != count) return of_count(*map.predicted_class, "texts");
    texts = classes.elements();
    if (!std::ranges::all_of(texts, IsUtf8)) return of_count(*map.predicted_class, "texts of valid UTF-8");
  }
  if (!map.classes.empty() && map.classes.size() != *count) {
    return Wrong(names[map.prediction], prediction,
                 std::to_string(map.classes.size()) + " numbers, one for each of the classes that are registered");
  }

  ClassificationWriter writer;
  writer.model_name_ = model_name;
  writer.size_ = FieldSize(model_name.size());
  writer.entries_.resize(*count);
  for (size_t i = 0; i < *count; ++i) {
    Entry& entry = writer.entries_[i];
    entry.prediction = get(prediction.data().data(), i);
    entry.confidence = get_confidence(confidence->data().data(), i);
    entry.digits_count = 0;
    if (!texts.empty()) {
      entry.name = texts[i];
    } else if (!map.classes.empty()) {
      entry.name = map.classes[i];
    } else {
      const auto end = std::to_chars(std::begin(entry.digits), std::end(entry.digits), i).ptr;
      entry.digits_count = static_cast<size_t>(end - entry.digits);
    }
    writer.size_ += FieldSize(ContentSize(entry));
  }

  std::string_view value;
  if (map.custom) {
    const Tensor& custom = outputs[*map.custom];
    if (!IsText(custom.dtype()) || custom.elements().size() != 1) {
      return Wrong(names[*map.custom], custom, "bytes: one serialized message");
    }
    value = custom.elements().front();
    if (map.custom_type.empty() && !IsAny(value)) {
      return Wrong(names[*map.custom], custom, "bytes: a serialized google.protobuf.Any");
    }
  }
  // Without one it is there all the same, as an Any of nothing.
  std::string type;
  size_t content = value.size();
  if (!map.custom_type.empty()) {
    const std::string url = "type.googleapis.com/" + map.custom_type;
    protozero::pbf_writer(type).add_string(any_field::kTypeUrl, url);
    if (!value.empty()) {
      type.push_back(Tag(any_field::kValue, pbf_wire_type::length_delimited));
      protozero::add_varint_to_buffer(&type, value.size());
    }
    content += type.size();
  }
  writer.custom_head_.push_back(Tag(reply_field::kCustom, pbf_wire_type::length_delimited));
  protozero::add_varint_to_buffer(&writer.custom_head_, content);
  writer.custom_head_ += type;
  writer.custom_value_ = value;
  writer.size_ += writer.custom_head_.size() + value.size();
  return writer;
}

void ClassificationWriter::WriteTo(std::span<std::byte> out) const {
  assert(out.size() >= size_);
  char* at = reinterpret_cast<char*>(out.data());
  const auto open = [&](uint32_t number, size_t content) {
    *at++ = Tag(number, pbf_wire_type::length_delimited);
    at += protozero::add_varint_to_buffer(at, content);
  };
  const auto copy = [&](std::string_view text) {
    if (!text.empty()) std::memcpy(at, text.data(), text.size());
    at += text.size();
  };
  const auto number = [&](uint32_t field, double value) {
    if (!IsWritten(value)) return;
    *at++ = Tag(field, pbf_wire_type::fixed64);
    std::memcpy(at, &value, sizeof(value));
    at += sizeof(value);
  };
  open(meta_field::kModelName, model_name_.size());
  copy(model_name_);
  for (const Entry& entry : entries_) {
    open(reply_field::kPredictions, ContentSize(entry));
    number(result_field::kPrediction, entry.prediction);
    if (const std::string_view name = entry.Name(); !name.empty()) {
      open(result_field::kPredictedClass, name.size());
      copy(name);
    }
    number(result_field::kConfidence, entry.confidence);
  }
  copy(custom_head_);
  copy(custom_value_);
  assert(at == reinterpret_cast<const char*>(out.data()) + size_);
}

}  // namespace mindserve::wire
