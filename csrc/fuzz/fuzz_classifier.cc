// A ClassificationRequest as the gateway and a worker read it, fields of its message as inputs, and the reply that is
// written of them as outputs.
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/utf8.h"
#include "fuzz/input.h"
#include "wire/classifier.h"
#include "wire/field_map.h"

namespace mindserve::fuzz {
namespace {

const std::vector<std::string> kNames = {"prediction", "predictedClass", "confidence", "custom"};

bool Inside(std::string_view whole, const void* begin, size_t size) {
  const auto* at = static_cast<const char*>(begin);
  return size == 0 || (at >= whole.data() && size <= static_cast<size_t>(whole.data() + whole.size() - at));
}

constexpr wire::FieldType kTypes[] = {
    wire::FieldType::kDouble,   wire::FieldType::kFloat,    wire::FieldType::kInt64,   wire::FieldType::kUint64,
    wire::FieldType::kInt32,    wire::FieldType::kFixed64,  wire::FieldType::kFixed32, wire::FieldType::kBool,
    wire::FieldType::kString,   wire::FieldType::kBytes,    wire::FieldType::kUint32,  wire::FieldType::kEnum,
    wire::FieldType::kSfixed32, wire::FieldType::kSfixed64, wire::FieldType::kSint32,  wire::FieldType::kSint64};

// What a servable may declare, and what it may not.
Result<wire::FieldMap> TakeMap(Input& input, size_t* count) {
  std::vector<wire::MappedInput> inputs(input.Byte() % (kNames.size() + 1));
  std::vector<wire::MappedField> fields;
  *count = inputs.size();
  for (size_t i = 0; i < inputs.size(); ++i) {
    const uint8_t kind = input.Byte();
    inputs[i].dtype = static_cast<DType>(1 + (kind & 15) % 14);
    inputs[i].repeated = (kind & 16) != 0;
    const size_t elements = kind >> 5;
    inputs[i].shape = Shape{static_cast<int64_t>(elements)};
    for (size_t element = 0; element < elements; ++element) {
      const uint8_t number = input.Byte();
      fields.push_back({.name = "f" + std::to_string(number),
                        .number = number,
                        .type = kTypes[input.Byte() % std::size(kTypes)],
                        .input = i,
                        .element = element});
    }
  }
  return wire::FieldMap::Create(std::move(inputs), std::move(fields));
}

// The inputs lie in the message, and are as large as they say.
void Check(std::string_view message, const std::vector<Tensor>& inputs) {
  for (const Tensor& tensor : inputs) {
    const auto count = tensor.shape().Elements();
    FUZZ_REQUIRE(tensor && count.has_value());
    if (IsText(tensor.dtype())) {
      FUZZ_REQUIRE(tensor.elements().size() == *count);
      for (const std::string_view element : tensor.elements()) {
        FUZZ_REQUIRE(Inside(message, element.data(), element.size()));
        FUZZ_REQUIRE(tensor.dtype() != DType::kString || IsUtf8(element));
      }
    } else {
      FUZZ_REQUIRE(tensor.data().size() == *count * Info(tensor.dtype()).size);
      // A number takes a byte of the message at least; what is not there is one element.
      FUZZ_REQUIRE(*count <= message.size() + 8);
    }
  }
}

// A message of varints and what has a length, read by no code of those that wrote it.
class Fields {
 public:
  explicit Fields(std::string_view rest) : rest_(rest) {}
  // False: there is none left.
  bool Next() {
    if (rest_.empty()) return false;
    const uint64_t tag = Varint();
    number = tag >> 3;
    const size_t size = (tag & 7) == 2 ? Varint() : 8;
    FUZZ_REQUIRE(((tag & 7) == 1 || (tag & 7) == 2) && size <= rest_.size());
    content = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return true;
  }
  uint64_t number = 0;
  std::string_view content;

 private:
  uint64_t Varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      FUZZ_REQUIRE(!rest_.empty());
      const auto byte = static_cast<uint8_t>(rest_.front());
      rest_.remove_prefix(1);
      value |= uint64_t{byte & 0x7fu} << shift;
      if ((byte & 0x80) == 0) break;
    }
    return value;
  }
  std::string_view rest_;
};

// The reply, read as a client reads it: the client's id stands in it, and as many predictions as the output has
// numbers.
void Answer(uint8_t how, std::string_view puid, const std::vector<Tensor>& outputs) {
  wire::ClassificationOutputs map;
  map.prediction = how % outputs.size();
  const auto maybe = [&](uint8_t bit, size_t output) {
    return (how & bit) != 0 && output < outputs.size() ? std::optional(output) : std::nullopt;
  };
  map.predicted_class = maybe(16, 1);
  map.confidence = maybe(32, 2);
  map.custom = maybe(64, 3);
  if ((how & 128) != 0) map.custom_type = "t.Custom";
  const auto writer = wire::ClassificationWriter::Create(map, kNames, outputs, "model");
  if (!writer.ok()) {
    FUZZ_REQUIRE(writer.status().code() == Code::kInternal && IsUtf8(writer.status().message()));
    return;
  }
  std::string part(writer->size(), '\0');
  writer->WriteTo(std::as_writable_bytes(std::span(part)));
  const auto meta = wire::WriteClassificationMeta(puid, "default", AsBytes(part));
  FUZZ_REQUIRE(meta.ok());
  const std::string reply = *meta + part;
  size_t predictions = 0;
  bool named = puid.empty();
  for (Fields fields(reply); fields.Next();) {
    FUZZ_REQUIRE(fields.number >= 1 && fields.number <= 3);
    if (fields.number == 2) ++predictions;
    if (fields.number == 3) continue;  // what the output had
    for (Fields inner(fields.content); inner.Next();) {
      if (fields.number == 1 && inner.number == 1) named = inner.content == puid;
    }
  }
  FUZZ_REQUIRE(named && predictions == static_cast<size_t>(*outputs[map.prediction].shape().Elements()));
}

void Run(Input input) {
  const uint8_t how = input.Byte();
  size_t inputs_count = 0;
  const auto map = TakeMap(input, &inputs_count);
  const std::string_view request = input.Rest();
  wire::ClassificationRoute route;
  if (!wire::ReadClassificationRoute(AsBytes(request), &route).ok()) return;
  FUZZ_REQUIRE(Inside(request, route.puid.data(), route.puid.size()) && IsUtf8(route.puid));
  FUZZ_REQUIRE(route.data.offset <= request.size() && route.data.length <= request.size() - route.data.offset);
  // What the gateway knows a request by is a request of the same data.
  const auto any = wire::ReadClassificationData(AsBytes(request));
  const auto alone = wire::ReadClassificationData(AsBytes(request.substr(route.data.offset, route.data.length)));
  FUZZ_REQUIRE(any.ok() == alone.ok());
  if (!any.ok()) {
    FUZZ_REQUIRE(any.status().code() == Code::kInvalidArgument && !any.status().message().empty());
    return;
  }
  FUZZ_REQUIRE(any->type == alone->type && any->value.data() == alone->value.data() &&
               any->value.size() == alone->value.size());
  if (!map.ok()) return;
  std::vector<Tensor> inputs;
  const Status status = map->Read(any->value, nullptr, &inputs);
  if (!status.ok()) {
    FUZZ_REQUIRE(status.code() == Code::kInvalidArgument && !status.message().empty());
    for (const Tensor& tensor : inputs) FUZZ_REQUIRE(!tensor);
    return;
  }
  FUZZ_REQUIRE(inputs.size() == inputs_count);
  Check(request, inputs);
  if (!inputs.empty()) Answer(how, route.puid, inputs);
}

}  // namespace
}  // namespace mindserve::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  mindserve::fuzz::Run({data, size});
  return 0;
}
