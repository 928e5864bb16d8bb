#include "wire/tensor_message.h"

#include <bit>
#include <protozero/pbf_reader.hpp>
#include <protozero/varint.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "wire/fields.h"
#include "wire/tags.h"

namespace mindserve::wire {
namespace {

using protozero::pbf_reader;

namespace shape_field = field::tensor_shape;
namespace tensor_field = field::tensor;

static_assert(std::endian::native == std::endian::little, "Tensor.data is little-endian and used as it stands");

// What numpy can hold. Also keeps a hostile shape from costing eight times its bytes in memory.
constexpr size_t kMaxRank = 32;

pbf_reader Reader(std::string_view message) {
  return {message.data(), message.size()};
}

std::string_view View(pbf_reader* reader) {
  const auto view = reader->get_view();
  return {view.data(), view.size()};
}

Status TooManyDims() {
  return {Code::kInvalidArgument, "the shape has more than " + std::to_string(kMaxRank) + " dimensions"};
}

// Appends to `shape`: fields that stand several times are concatenated, packed or not.
Status ReadShape(std::string_view message, Shape* shape) {
  pbf_reader reader = Reader(message);
  while (reader.next()) {
    switch (reader.tag_and_type()) {
      case Delimited(shape_field::kDims): {
        const std::string_view packed = View(&reader);
        const char* at = packed.data();
        const char* const end = at + packed.size();
        while (at != end) {
          if (shape->rank() == kMaxRank) return TooManyDims();
          shape->push_back(static_cast<int64_t>(protozero::decode_varint(&at, end)));
        }
        break;
      }
      case Varint(shape_field::kDims):
        if (shape->rank() == kMaxRank) return TooManyDims();
        shape->push_back(reader.get_int64());
        break;
      default:
        reader.skip();
    }
  }
  return Status::Ok();
}

std::vector<std::string_view> ReadElements(std::string_view message, size_t count) {
  std::vector<std::string_view> elements;
  elements.reserve(count);
  pbf_reader reader = Reader(message);
  while (reader.next(tensor_field::kBytesVal, protozero::pbf_wire_type::length_delimited)) {
    elements.push_back(View(&reader));
  }
  return elements;
}

}  // namespace

Result<Tensor> ReadTensor(std::string_view message, const TensorOwner& owner) {
  Shape shape;
  int32_t number = 0;
  std::string_view data;
  // Kept only if they are what the shape says: an element of two bytes takes 16 here.
  std::string_view last;
  size_t count = 0;
  pbf_reader reader = Reader(message);
  while (reader.next()) {
    switch (reader.tag_and_type()) {
      case Delimited(tensor_field::kShape):
        MS_RETURN_IF_ERROR(ReadShape(View(&reader), &shape));
        break;
      case Varint(tensor_field::kDtype):
        number = reader.get_enum();
        break;
      case Delimited(tensor_field::kData):
        data = View(&reader);
        break;
      case Delimited(tensor_field::kBytesVal):
        last = View(&reader);
        ++count;
        break;
      default:
        reader.skip();
    }
  }
  // A negative number becomes one that the table lacks.
  const auto dtype = DTypeFromWire(static_cast<uint64_t>(int64_t{number}));
  if (!dtype) return Status(Code::kInvalidArgument, "unknown data type " + std::to_string(number));
  if (IsText(*dtype)) {
    MS_RETURN_IF_ERROR(Tensor::CheckElements(*dtype, shape, count));
    auto elements = count == 1 ? std::vector{last} : ReadElements(message, count);
    return Tensor::TextView(*dtype, std::move(shape), std::move(elements), owner);
  }
  return Tensor::View(*dtype, std::move(shape), std::as_bytes(std::span(data)), owner);
}

}  // namespace mindserve::wire
