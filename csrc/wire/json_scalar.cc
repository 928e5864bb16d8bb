#include "wire/json_scalar.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <utility>

#include "wire/base64.h"
#include "wire/json_number.h"

namespace mindserve::wire {
namespace {

// The names of an object's "type", those first that texts call the types by.
constexpr std::array<std::pair<std::string_view, DType>, 17> kTypes = {{
    {"int8", DType::kInt8},
    {"int16", DType::kInt16},
    {"int32", DType::kInt32},
    {"int64", DType::kInt64},
    {"uint8", DType::kUint8},
    {"uint16", DType::kUint16},
    {"uint32", DType::kUint32},
    {"uint64", DType::kUint64},
    {"float16", DType::kFloat16},
    {"float32", DType::kFloat32},
    {"float64", DType::kFloat64},
    {"bool", DType::kBool},
    {"str", DType::kString},
    {"bytes", DType::kBytes},
    {"fp16", DType::kFloat16},
    {"fp32", DType::kFloat32},
    {"fp64", DType::kFloat64},
}};

Status Invalid(std::string text) {
  return {Code::kInvalidArgument, std::move(text)};
}

// "[1, 2]", as it stands in JSON.
std::string List(const Shape& shape) {
  std::string dims;
  for (int64_t dim : shape.dims()) dims += (dims.empty() ? "" : ", ") + std::to_string(dim);
  return "[" + dims + "]";
}

// Reads the value of "type".
Status ReadType(ondemand::value& value, DType* dtype) {
  if (KindOf(Token(value)) != JsonKind::kString) {
    return Invalid("json object, key is 'type', value should be string type");
  }
  std::string_view name;
  if (!ReadText(value, &name)) return IllegalJson(simdjson::STRING_ERROR);
  const auto* const found = std::ranges::find(kTypes, name, &decltype(kTypes)::value_type::first);
  if (found == kTypes.end()) return Invalid("json object, specified type:'" + Excerpt(name) + "' is illegal");
  *dtype = found->second;
  return Status::Ok();
}

Status InvalidShape(const Shape& shape, std::string_view why) {
  return Invalid("json object, key is 'shape', invalid shape value " + List(shape) + ": " + std::string(why));
}

// Reads the value of "shape".
Status ReadShape(ondemand::value& value, Shape* shape) {
  ondemand::array dims;
  if (value.get_array().get(dims) != simdjson::SUCCESS) {
    return Invalid("json object, key is 'shape', value should be array type");
  }
  for (auto result : dims) {
    ondemand::value each;
    if (const auto error = std::move(result).get(each)) return IllegalJson(error);
    const std::string_view token = Token(each);
    uint64_t dim = 0;
    if (KindOf(token) != JsonKind::kInteger || each.get_uint64().get(dim) != simdjson::SUCCESS) {
      return Invalid("json object, key is 'shape', array value should be unsigned integer");
    }
    if (shape->rank() == kMaxJsonRank) {
      return InvalidShape(*shape, "there are more than " + std::to_string(kMaxJsonRank) + " dimensions");
    }
    if (dim > static_cast<uint64_t>(std::numeric_limits<int32_t>::max())) {
      return InvalidShape(*shape, "the next dimension is larger than 2147483647");
    }
    const bool after_none = shape->rank() > 0 && (*shape)[shape->rank() - 1] == 0;
    shape->push_back(static_cast<int64_t>(dim));
    if (after_none) return InvalidShape(*shape, "a dimension that is 0 has to be the last");
  }
  return Status::Ok();
}

// The fields of an object as they are read.
struct Fields {
  bool has_text = false;
  bool has_type = false;
  bool has_shape = false;
  std::string_view text;
  DType dtype = DType::kBytes;
  Shape shape;
};

Status ReadField(ondemand::field& field, Fields* fields) {
  std::string_view key;
  if (const auto error = field.unescaped_key().get(key)) return IllegalJson(error);
  if (key == "b64") {
    if (std::exchange(fields->has_text, true)) {
      return Invalid("json object, 'b64' should be specified only one time");
    }
    if (KindOf(Token(field.value())) != JsonKind::kString) {
      return Invalid("get scalar data failed, type is string, but json is not string type");
    }
    return ReadText(field.value(), &fields->text) ? Status::Ok() : IllegalJson(simdjson::STRING_ERROR);
  }
  if (key == "type") {
    if (std::exchange(fields->has_type, true)) {
      return Invalid("json object, 'type' should be specified no more than one time");
    }
    return ReadType(field.value(), &fields->dtype);
  }
  if (key == "shape") {
    if (std::exchange(fields->has_shape, true)) {
      return Invalid("json object, 'shape' should be specified no more than one time");
    }
    return ReadShape(field.value(), &fields->shape);
  }
  return Invalid("json object, key is not ['b64', 'type', 'shape'], fail key:" + Excerpt(key));
}

Status ReadObject(ondemand::object& object, JsonTensor* tensor) {
  Fields fields;
  bool empty = true;
  for (auto result : object) {
    ondemand::field field;
    if (const auto error = std::move(result).get(field)) return IllegalJson(error);
    empty = false;
    MS_RETURN_IF_ERROR(ReadField(field, &fields));
  }
  if (empty) return Invalid("json object, value is empty");
  if (!fields.has_text) return Invalid("json object, 'b64' should be specified only one time, but it is missing");

  const auto elements = fields.shape.Elements();
  if (!elements) return InvalidShape(fields.shape, "it has too many elements");
  tensor->dtype = fields.dtype;
  tensor->shape = std::move(fields.shape);
  if (IsText(tensor->dtype)) {
    if (*elements != 1) {
      return Invalid(
          "json object, only support scalar when data type is string or bytes, please check 'type' or 'shape'");
    }
    MS_RETURN_IF_ERROR(CheckTextShape(tensor->shape));
    if (tensor->shape.rank() == 0) tensor->shape = Shape{1};
  }
  if (!DecodeBase64(fields.text, &tensor->bytes)) {
    return Invalid("'" + Excerpt(fields.text) + "' is illegal b64 encode string");
  }
  if (IsText(tensor->dtype)) return Status::Ok();
  const size_t size = Info(tensor->dtype).size;
  if (tensor->bytes.size() % size != 0 || tensor->bytes.size() / size != *elements) {
    return Invalid("size is not matched, decode base64 size:" + std::to_string(tensor->bytes.size()) +
                   "; Given info: type:" + std::string(NameOf(tensor->dtype)) + "; type size:" + std::to_string(size) +
                   "; element nums:" + std::to_string(*elements));
  }
  return Status::Ok();
}

template <typename T>
void Assign(T value, JsonTensor* tensor) {
  tensor->bytes.resize(sizeof(value));
  std::memcpy(tensor->bytes.data(), &value, sizeof(value));
}

}  // namespace

DType TypeOf(JsonKind kind) {
  switch (kind) {
    case JsonKind::kInteger:
      return DType::kInt32;
    case JsonKind::kFloat:
      return DType::kFloat32;
    case JsonKind::kBool:
      return DType::kBool;
    case JsonKind::kString:
      return DType::kString;
    default:
      return DType::kUnknown;
  }
}

std::string_view NameOf(DType dtype) {
  const auto* const found = std::ranges::find(kTypes, dtype, &decltype(kTypes)::value_type::second);
  return found == kTypes.end() ? "unknown" : found->first;
}

Status CheckTextShape(const Shape& shape) {
  if (shape.rank() <= 1) return Status::Ok();
  // The two spaces are MindSpore Serving's.
  return Invalid(
      "Instance tensor check failed: bytes or string type input  shape can only be (1,) or empty, but given "
      "shape is " +
      List(shape));
}

Status ReadScalar(ondemand::value& value, JsonTensor* tensor) {
  const std::string_view token = Token(value);
  const JsonKind kind = KindOf(token);
  tensor->dtype = TypeOf(kind);
  tensor->shape = {};
  tensor->bytes.clear();
  switch (kind) {
    case JsonKind::kObject: {
      ondemand::object object;
      if (const auto error = value.get_object().get(object)) return IllegalJson(error);
      return ReadObject(object, tensor);
    }
    case JsonKind::kString: {
      std::string_view text;
      if (!ReadText(value, &text)) return IllegalJson(simdjson::STRING_ERROR);
      tensor->shape = Shape{1};
      tensor->bytes.assign(text);
      return Status::Ok();
    }
    case JsonKind::kInteger: {
      int32_t number = 0;
      const char* at = token.data();
      if (!ScanInt32(&at, &number)) return TooLarge(token, "int32");
      Assign(number, tensor);
      return Status::Ok();
    }
    case JsonKind::kFloat: {
      float number = 0;
      const char* at = token.data();
      if (!ScanFloat32(&at, &number)) return TooLarge(token, "float32");
      Assign(number, tensor);
      return Status::Ok();
    }
    case JsonKind::kBool:
      Assign(static_cast<uint8_t>(token == "true"), tensor);
      return Status::Ok();
    case JsonKind::kNull:
      return Invalid("json value is null, it is not supported");
    default:
      return IllegalToken(token);
  }
}

}  // namespace mindserve::wire
