#include "wire/field_map.h"

#include <algorithm>
#include <cstring>
#include <protozero/pbf_reader.hpp>
#include <protozero/varint.hpp>
#include <type_traits>
#include <utility>

#include "base/utf8.h"
#include "wire/malformed.h"

namespace mindserve::wire {
namespace {

using protozero::pbf_reader;
using protozero::pbf_wire_type;

pbf_wire_type WireType(FieldType type) {
  switch (type) {
    case FieldType::kDouble:
    case FieldType::kFixed64:
    case FieldType::kSfixed64:
      return pbf_wire_type::fixed64;
    case FieldType::kFloat:
    case FieldType::kFixed32:
    case FieldType::kSfixed32:
      return pbf_wire_type::fixed32;
    case FieldType::kString:
    case FieldType::kBytes:
      return pbf_wire_type::length_delimited;
    default:
      return pbf_wire_type::varint;
  }
}

bool IsTextField(FieldType type) {
  return type == FieldType::kString || type == FieldType::kBytes;
}

template <typename T>
T Fixed(const char** at, const char* end) {
  if (static_cast<size_t>(end - *at) < sizeof(T)) throw protozero::end_of_buffer_exception{};
  T value;
  std::memcpy(&value, *at, sizeof(T));
  *at += sizeof(T);
  return value;
}

// Calls `use` with the value, in the C++ type of the field's.
template <typename Use>
void TakeNumber(FieldType type, const char** at, const char* end, Use use) {
  const auto varint = [&] { return protozero::decode_varint(at, end); };
  switch (type) {
    case FieldType::kDouble:
      return use(Fixed<double>(at, end));
    case FieldType::kFloat:
      return use(Fixed<float>(at, end));
    case FieldType::kInt64:
      return use(static_cast<int64_t>(varint()));
    case FieldType::kUint64:
      return use(varint());
    case FieldType::kInt32:
    case FieldType::kEnum:
      return use(static_cast<int32_t>(varint()));
    case FieldType::kFixed64:
      return use(Fixed<uint64_t>(at, end));
    case FieldType::kFixed32:
      return use(Fixed<uint32_t>(at, end));
    case FieldType::kBool:
      return use(static_cast<uint8_t>(varint() != 0));
    case FieldType::kUint32:
      return use(static_cast<uint32_t>(varint()));
    case FieldType::kSfixed32:
      return use(Fixed<int32_t>(at, end));
    case FieldType::kSfixed64:
      return use(Fixed<int64_t>(at, end));
    case FieldType::kSint32:
      return use(protozero::decode_zigzag32(static_cast<uint32_t>(varint())));
    case FieldType::kSint64:
      return use(protozero::decode_zigzag64(varint()));
    default:
      return;  // texts are no numbers
  }
}

// False: it doesn't fit.
template <typename To, typename From>
bool StoreAs(From value, std::byte* place) {
  if constexpr (std::is_integral_v<To>) {
    if constexpr (std::is_floating_point_v<From>) {
      return false;
    } else {
      if (!std::in_range<To>(value)) return false;
    }
  }
  const auto stored = static_cast<To>(value);
  std::memcpy(place, &stored, sizeof(stored));
  return true;
}

template <typename From>
bool Store(DType dtype, From value, std::byte* place) {
  switch (dtype) {
    case DType::kBool:
      return StoreAs<uint8_t>(value, place) && value <= From{1};
    case DType::kInt8:
      return StoreAs<int8_t>(value, place);
    case DType::kUint8:
      return StoreAs<uint8_t>(value, place);
    case DType::kInt16:
      return StoreAs<int16_t>(value, place);
    case DType::kUint16:
      return StoreAs<uint16_t>(value, place);
    case DType::kInt32:
      return StoreAs<int32_t>(value, place);
    case DType::kUint32:
      return StoreAs<uint32_t>(value, place);
    case DType::kInt64:
      return StoreAs<int64_t>(value, place);
    case DType::kUint64:
      return StoreAs<uint64_t>(value, place);
    case DType::kFloat32:
      return StoreAs<float>(value, place);
    case DType::kFloat64:
      return StoreAs<double>(value, place);
    default:
      return false;
  }
}

Status Malformed(std::span<const std::byte> message, const pbf_reader& reader, const protozero::exception& error) {
  return {Code::kInvalidArgument, "it doesn't parse at byte " + std::to_string(message.size() - reader.length()) +
                                      " of " + std::to_string(message.size()) + ": " + Explain(error)};
}

}  // namespace

// One message, on its way to tensors.
struct FieldMap::Reading {
  struct Target {
    std::span<std::byte> bytes;              // of numbers
    std::vector<std::string_view> elements;  // of texts
    size_t next = 0;                         // of a repeated field
  };
  std::vector<Target> targets;
  Status status;

  void Take(const MappedField& field, const MappedInput& input, size_t at, const char** from, const char* end) {
    std::byte* const place = targets[field.input].bytes.data() + at * Info(input.dtype).size;
    TakeNumber(field.type, from, end, [&](auto value) {
      if (Store(input.dtype, value, place) || !status.ok()) return;
      status = {Code::kInvalidArgument, "its field '" + field.name + "' has " + std::to_string(value) +
                                            ", which is out of the range of " + std::string(Info(input.dtype).numpy)};
    });
  }
};

Result<FieldMap> FieldMap::Create(std::vector<MappedInput> inputs, std::vector<MappedField> fields) {
  const auto wrong = [](const std::string& what) { return Status(Code::kInvalidArgument, what); };
  std::ranges::sort(fields, {}, &MappedField::number);
  std::vector<std::vector<bool>> filled;
  for (const MappedInput& input : inputs) filled.emplace_back(input.repeated ? 1 : input.shape.Elements().value_or(0));
  for (const MappedField& field : fields) {
    if (field.input >= inputs.size()) return wrong("field '" + field.name + "' is for an input that there is not");
    const MappedInput& input = inputs[field.input];
    const bool number = !Info(input.dtype).numpy.empty() && input.dtype != DType::kFloat16;
    if (IsTextField(field.type) ? !IsText(input.dtype) : !number) {
      return wrong("field '" + field.name + "' can't be of type " + std::string(Info(input.dtype).name));
    }
    if (field.element >= filled[field.input].size() || filled[field.input][field.element]) {
      return wrong("field '" + field.name + "' is for an element that there is not, or that another field is");
    }
    filled[field.input][field.element] = true;
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (std::ranges::find(filled[i], false) == filled[i].end()) continue;
    return wrong("input " + std::to_string(i) + " has elements that no field fills");
  }
  const auto twice = std::ranges::adjacent_find(fields, {}, &MappedField::number);
  if (twice != fields.end()) return wrong("field number " + std::to_string(twice->number) + " is given twice");
  FieldMap map(std::move(inputs), std::move(fields));
  map.any_repeated_ = std::ranges::any_of(map.inputs_, &MappedInput::repeated);
  return map;
}

bool FieldMap::fixed() const {
  return !any_repeated_ && std::ranges::none_of(inputs_, [](const MappedInput& input) { return IsText(input.dtype); });
}

const MappedField* FieldMap::Find(uint32_t number) const {
  const auto found = std::ranges::lower_bound(fields_, number, {}, &MappedField::number);
  return found != fields_.end() && found->number == number ? &*found : nullptr;
}

// How many elements each repeated input has.
Status FieldMap::Count(std::span<const std::byte> message, std::vector<size_t>* counts) const {
  pbf_reader reader(reinterpret_cast<const char*>(message.data()), message.size());
  try {
    while (reader.next()) {
      const MappedField* field = Find(reader.tag());
      if (field == nullptr || !inputs_[field->input].repeated) {
        reader.skip();
        continue;
      }
      size_t& count = (*counts)[field->input];
      const pbf_wire_type type = WireType(field->type);
      if (reader.wire_type() == type) {
        reader.skip();
        ++count;
      } else if (reader.wire_type() != pbf_wire_type::length_delimited) {
        reader.skip();
      } else if (const auto packed = reader.get_view(); type == pbf_wire_type::varint) {
        // A number's last byte alone has its highest bit clear.
        count += static_cast<size_t>(std::count_if(packed.data(), packed.data() + packed.size(),
                                                   [](char c) { return (static_cast<unsigned char>(c) & 0x80) == 0; }));
      } else {
        count += packed.size() / (type == pbf_wire_type::fixed64 ? 8 : 4);
      }
    }
  } catch (const protozero::exception& error) {
    return Malformed(message, reader, error);
  }
  return Status::Ok();
}

Status FieldMap::Read(std::span<const std::byte> message, const TensorOwner& owner, std::vector<Tensor>* inputs) const {
  inputs->assign(inputs_.size(), Tensor());
  std::vector<size_t> counts(any_repeated_ ? inputs_.size() : 0);
  if (any_repeated_) MS_RETURN_IF_ERROR(Count(message, &counts));
  Reading reading;
  reading.targets.resize(inputs_.size());
  const auto shape_of = [&](size_t i) {
    return inputs_[i].repeated ? Shape{static_cast<int64_t>(counts[i])} : inputs_[i].shape;
  };
  const auto fail = [&](Status status) {
    std::ranges::fill(*inputs, Tensor());
    return status;
  };
  for (size_t i = 0; i < inputs_.size(); ++i) {
    if (IsText(inputs_[i].dtype)) {
      reading.targets[i].elements.resize(inputs_[i].repeated ? counts[i] : *inputs_[i].shape.Elements());
      continue;
    }
    auto tensor = Tensor::Allocate(inputs_[i].dtype, shape_of(i), &reading.targets[i].bytes);
    if (!tensor.ok()) return fail(tensor.status());
    std::ranges::fill(reading.targets[i].bytes, std::byte{0});
    (*inputs)[i] = *std::move(tensor);
  }
  pbf_reader reader(reinterpret_cast<const char*>(message.data()), message.size());
  try {
    while (reader.next()) {
      const MappedField* field = Find(reader.tag());
      if (field == nullptr) {
        reader.skip();
        continue;
      }
      const MappedInput& input = inputs_[field->input];
      Reading::Target& target = reading.targets[field->input];
      const pbf_wire_type type = WireType(field->type);
      if (reader.wire_type() == type && type == pbf_wire_type::length_delimited) {
        const auto view = reader.get_view();
        const std::string_view text(view.data(), view.size());
        if ((field->type == FieldType::kString || input.dtype == DType::kString) && !IsUtf8(text)) {
          return fail({Code::kInvalidArgument, "its field '" + field->name + "' is not valid UTF-8"});
        }
        target.elements[input.repeated ? target.next++ : field->element] = text;
      } else if (reader.wire_type() == type) {
        // The reader has no way to give a number of a type that is known only now, but to its bytes.
        const char* at = reinterpret_cast<const char*>(message.data()) + (message.size() - reader.length());
        const char* const end = reinterpret_cast<const char*>(message.data()) + message.size();
        reading.Take(*field, input, input.repeated ? target.next++ : field->element, &at, end);
        reader.skip();
      } else if (input.repeated && reader.wire_type() == pbf_wire_type::length_delimited) {
        const auto packed = reader.get_view();
        const char* at = packed.data();
        const char* const end = at + packed.size();
        while (at != end) reading.Take(*field, input, target.next++, &at, end);
      } else {
        reader.skip();
      }
    }
  } catch (const protozero::exception& error) {
    return fail(Malformed(message, reader, error));
  }
  if (!reading.status.ok()) return fail(std::move(reading.status));
  for (size_t i = 0; i < inputs_.size(); ++i) {
    if (!IsText(inputs_[i].dtype)) continue;
    auto tensor = Tensor::TextView(inputs_[i].dtype, shape_of(i), std::move(reading.targets[i].elements), owner);
    if (!tensor.ok()) return fail(tensor.status());
    (*inputs)[i] = *std::move(tensor);
  }
  return Status::Ok();
}

}  // namespace mindserve::wire
