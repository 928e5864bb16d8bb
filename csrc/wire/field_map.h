// Messages of scalar fields read as a method's inputs, without their Python classes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "tensor/tensor.h"

namespace mindserve::wire {

// The numbers are those of FieldDescriptorProto.Type.
enum class FieldType : uint8_t {
  kDouble = 1,
  kFloat = 2,
  kInt64 = 3,
  kUint64 = 4,
  kInt32 = 5,
  kFixed64 = 6,
  kFixed32 = 7,
  kBool = 8,
  kString = 9,
  kBytes = 12,
  kUint32 = 13,
  kEnum = 14,
  kSfixed32 = 15,
  kSfixed64 = 16,
  kSint32 = 17,
  kSint64 = 18,
};

// An input that is made of fields.
struct MappedInput {
  DType dtype = DType::kUnknown;
  Shape shape = {};       // as many elements as fields
  bool repeated = false;  // one repeated field: its shape is (n,), whatever n is
};

struct MappedField {
  std::string name;  // for messages
  uint32_t number = 0;
  FieldType type = FieldType::kFloat;
  size_t input = 0;    // whose element it is
  size_t element = 0;  // there
};

// Which fields of a message are which elements of which inputs. A value; thread-safe.
class FieldMap {
 public:
  // INVALID_ARGUMENT: numbers and texts mixed, elements that no field fills, or two do.
  static Result<FieldMap> Create(std::vector<MappedInput> inputs, std::vector<MappedField> fields);

  // Reads `message` into `inputs` (resized). A field that is not there is 0 or empty, of one that stands several times
  // the last counts, as protobuf says; other fields are skipped. Texts are views that hold `owner`. INVALID_ARGUMENT:
  // the bytes don't parse, a string, or bytes for an input of strings, is no UTF-8, or a number doesn't fit its input's
  // type; there are no tensors then.
  Status Read(std::span<const std::byte> message, const TensorOwner& owner, std::vector<Tensor>* inputs) const;

  // Whether inputs are of the same types, shapes and sizes whatever the message has: there is no text and nothing
  // repeated.
  bool fixed() const;

 private:
  struct Reading;
  FieldMap(std::vector<MappedInput> inputs, std::vector<MappedField> fields)
      : inputs_(std::move(inputs)), fields_(std::move(fields)) {}
  const MappedField* Find(uint32_t number) const;
  Status Count(std::span<const std::byte> message, std::vector<size_t>* counts) const;

  std::vector<MappedInput> inputs_;
  std::vector<MappedField> fields_;  // by number
  bool any_repeated_ = false;
};

}  // namespace mindserve::wire
