#include "wire/predict.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <protozero/pbf_reader.hpp>
#include <protozero/varint.hpp>

#include "base/utf8.h"
#include "wire/fields.h"
#include "wire/malformed.h"
#include "wire/tags.h"
#include "wire/tensor_message.h"

namespace mindserve::wire {
namespace {

using protozero::pbf_reader;
using protozero::pbf_wire_type;

namespace entry_field = field::map_entry;
namespace error_field = field::error_msg;
namespace reply_field = field::predict_reply;
namespace request_field = field::predict_request;
namespace shape_field = field::tensor_shape;
namespace spec_field = field::servable_spec;
namespace tensor_field = field::tensor;

pbf_reader Reader(std::string_view message) {
  return {message.data(), message.size()};
}

std::string_view View(pbf_reader* reader) {
  const auto view = reader->get_view();
  return {view.data(), view.size()};
}

std::string_view Chars(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Status Malformed(Code code, std::string_view what, size_t size, const pbf_reader& reader,
                 const protozero::exception& error) {
  return {code, "the " + std::string(what) + " doesn't parse at byte " + std::to_string(size - reader.length()) +
                    " of " + std::to_string(size) + ": " + Explain(error)};
}

// The reply repeats these names, and other readers of protobuf refuse a message with a string that is no UTF-8.
Status ReadName(std::string_view field, pbf_reader* reader, std::string_view* name) {
  *name = View(reader);
  if (IsUtf8(*name)) return Status::Ok();
  return {Code::kInvalidArgument, "the " + std::string(field) + " of the request's servable_spec is not valid UTF-8"};
}

Status ReadSpec(std::string_view spec, Route* route) {
  pbf_reader reader = Reader(spec);
  while (reader.next()) {
    switch (reader.tag_and_type()) {
      case Delimited(spec_field::kName):
        MS_RETURN_IF_ERROR(ReadName("name", &reader, &route->servable));
        break;
      case Delimited(spec_field::kMethodName):
        MS_RETURN_IF_ERROR(ReadName("method_name", &reader, &route->method));
        break;
      case Varint(spec_field::kVersionNumber):
        route->version = reader.get_uint64();
        break;
      default:
        reader.skip();
    }
  }
  return Status::Ok();
}

}  // namespace

ErrorCode ErrorCodeOf(Code code) {
  switch (code) {
    case Code::kOk:
      return ErrorCode::kSuccess;
    case Code::kInvalidArgument:
    case Code::kOutOfRange:
    case Code::kDataLoss:
      return ErrorCode::kInvalidInput;
    case Code::kUnavailable:
      return ErrorCode::kWorkerUnavailable;
    case Code::kResourceExhausted:
      return ErrorCode::kSystemError;
    default:
      return ErrorCode::kFailed;
  }
}

Code CodeOf(ErrorCode code) {
  switch (code) {
    case ErrorCode::kSuccess:
      return Code::kOk;
    case ErrorCode::kInvalidInput:
      return Code::kInvalidArgument;
    case ErrorCode::kSystemError:
      return Code::kResourceExhausted;
    case ErrorCode::kWorkerUnavailable:
    case ErrorCode::kServableUnavailable:
      return Code::kUnavailable;
    default:
      return Code::kInternal;
  }
}

Status ReadRoute(std::span<const std::byte> request, size_t max_instances, Route* route) {
  route->servable = {};
  route->method = {};
  route->version = 0;
  route->spec = {};
  route->merged = false;
  route->instances.clear();
  const std::string_view bytes = Chars(request);
  pbf_reader reader = Reader(bytes);
  try {
    size_t field = 0;  // where the field that is being read begins
    size_t specs = 0;
    size_t spec_bytes = 0;  // of all of them: a reply may repeat the names of one and another
    while (reader.next()) {
      switch (reader.tag_and_type()) {
        case Delimited(request_field::kServableSpec): {
          const std::string_view spec = View(&reader);
          route->spec = {static_cast<size_t>(spec.data() - bytes.data()), spec.size()};
          route->merged = ++specs > 1;
          if ((spec_bytes += spec.size()) > kMostSpecBytes) {
            return {Code::kInvalidArgument, "the request's servable_spec has " + std::to_string(spec_bytes) +
                                                " bytes, expected at most " + std::to_string(kMostSpecBytes)};
          }
          MS_RETURN_IF_ERROR(ReadSpec(spec, route));
          field = bytes.size() - reader.length();
          break;
        }
        case Delimited(request_field::kInstances): {
          reader.skip();
          if (route->instances.size() >= max_instances) {
            return {Code::kResourceExhausted, "the request has more instances than max_instances_per_request allows (" +
                                                  std::to_string(max_instances) + ")"};
          }
          const size_t end = bytes.size() - reader.length();
          route->instances.push_back({field, end - field});
          field = end;
          break;
        }
        default:
          reader.skip();
          field = bytes.size() - reader.length();
      }
    }
  } catch (const protozero::exception& error) {
    return Malformed(Code::kInvalidArgument, "PredictRequest", bytes.size(), reader, error);
  }
  return Status::Ok();
}

std::optional<size_t> FirstLargeData(std::span<const std::byte> begin) {
  constexpr size_t kLarge = 4096;
  // From the request down to a tensor: the field by which it goes on. A field that is passed over on the way is
  // delimited or a varint, else this gives up.
  constexpr uint32_t kWay[] = {Delimited(request_field::kInstances), Delimited(field::instance::kItems),
                               Delimited(entry_field::kValue), Delimited(tensor_field::kData)};
  constexpr size_t kDepth = std::size(kWay);
  const char* const bytes = reinterpret_cast<const char*>(begin.data());
  const char* const end = bytes + begin.size();
  const char* at = bytes;
  size_t ends[kDepth] = {SIZE_MAX};  // of the message at each depth; most lie beyond what is here
  size_t depth = 0;
  try {
    while (at < end) {
      while (static_cast<size_t>(at - bytes) >= ends[depth]) --depth;  // the request has no end
      const auto tag = static_cast<uint32_t>(protozero::decode_varint(&at, end));
      const uint64_t value = protozero::decode_varint(&at, end);
      const auto position = static_cast<size_t>(at - bytes);
      if (tag == kWay[depth] && depth + 1 == kDepth && value >= kLarge) return position;
      if (tag == kWay[depth] && depth + 1 < kDepth) {
        ends[++depth] = position + std::min<uint64_t>(value, SIZE_MAX - position);
      } else if ((tag & 7) == static_cast<uint32_t>(pbf_wire_type::length_delimited)) {
        if (value > static_cast<uint64_t>(end - at)) return std::nullopt;
        at += value;
      } else if ((tag & 7) != static_cast<uint32_t>(pbf_wire_type::varint)) {
        return std::nullopt;
      }
    }
  } catch (const protozero::exception&) {
    // The bytes end here, or are none of a request: whoever reads all of them will say so.
  }
  return std::nullopt;
}

InstanceReader::InstanceReader(std::span<const std::byte> request, std::span<const std::string> names,
                               TensorOwner owner)
    : request_(request), names_(names), owner_(std::move(owner)) {}

bool InstanceReader::Next() {
  if (!status_.ok()) return false;
  pbf_reader reader = Reader(Chars(request_.subspan(position_)));
  try {
    if (reader.next(request_field::kInstances, pbf_wire_type::length_delimited)) {
      instance_ = std::as_bytes(std::span(View(&reader)));
      position_ = request_.size() - reader.length();
      return true;
    }
    position_ = request_.size();
  } catch (const protozero::exception& error) {
    status_ = Malformed(Code::kInvalidArgument, "PredictRequest", request_.size(), reader, error);
  }
  instance_ = {};
  return false;
}

Status InstanceReader::Read(std::vector<Tensor>* slots) {
  slots->resize(names_.size());
  Status status = ReadItems();
  for (size_t slot = 0; status.ok() && slot < names_.size(); ++slot) status = ReadSlot(slot, &(*slots)[slot]);
  // A failed instance must not keep the request's memory, nor show another one's tensors.
  if (!status.ok()) std::ranges::fill(*slots, Tensor());
  return status;
}

Status InstanceReader::ReadAlone(std::span<const std::byte> instance, std::vector<Tensor>* slots) {
  instance_ = instance;
  return Read(slots);
}

Status InstanceReader::ReadItems() {
  values_.assign(names_.size(), {});
  size_t likely = 0;
  pbf_reader items = Reader(Chars(instance_));
  try {
    while (items.next(field::instance::kItems, pbf_wire_type::length_delimited)) {
      const std::string_view entry = View(&items);
      std::string_view key;
      // Where the entry has no value, an empty Tensor stands for it. Not null: null says that there is no entry.
      std::string_view value = entry.substr(0, 0);
      pbf_reader reader = Reader(entry);
      while (reader.next()) {
        switch (reader.tag_and_type()) {
          case Delimited(entry_field::kKey):
            key = View(&reader);
            break;
          case Delimited(entry_field::kValue):
            value = View(&reader);
            break;
          default:
            reader.skip();
        }
      }
      // Names come in much the same order each time: the next one's slot is most often the one after the last's.
      for (size_t i = 0; i < names_.size(); ++i, ++likely) {
        if (likely >= names_.size()) likely = 0;
        if (names_[likely] != key) continue;
        values_[likely++] = value;
        break;
      }
    }
  } catch (const protozero::exception& error) {
    return Malformed(Code::kDataLoss, "instance", instance_.size(), items, error);
  }
  return Status::Ok();
}

Status InstanceReader::ReadSlot(size_t slot, Tensor* tensor) const {
  const std::string_view value = values_[slot];
  if (value.data() == nullptr) {
    return {Code::kInvalidArgument, "Cannot find input " + names_[slot] + " in instance input"};
  }
  try {
    auto read = ReadTensor(value, owner_);
    if (!read.ok()) return {read.status().code(), "input " + names_[slot] + ": " + read.status().message()};
    *tensor = *std::move(read);
    return Status::Ok();
  } catch (const protozero::exception& error) {
    return {Code::kDataLoss, "input " + names_[slot] + ": the Tensor of " + std::to_string(value.size()) +
                                 " bytes doesn't parse: " + Explain(error)};
  }
}

namespace {

// Tag and wire type in one byte.
consteval char Tag(uint32_t number, pbf_wire_type type) {
  if (number >= 16) throw "the sizes below count one byte a tag";
  return static_cast<char>(protozero::tag_and_type(number, type));
}
consteval char DelimitedTag(uint32_t number) {
  return Tag(number, pbf_wire_type::length_delimited);
}

size_t VarintSize(uint64_t value) {
  return static_cast<size_t>(protozero::length_of_varint(value));
}

// Of a length-delimited field with this much content: tag, length, content.
size_t FieldSize(size_t content) {
  return 1 + VarintSize(content) + content;
}

size_t PackedSize(const Shape& shape) {
  size_t size = 0;
  for (int64_t dim : shape.dims()) size += VarintSize(static_cast<uint64_t>(dim));
  return size;
}

// Of a TensorShape whose packed dims take this much. An empty one is a scalar's.
size_t ShapeSize(size_t packed) {
  return packed == 0 ? 0 : FieldSize(packed);
}

size_t TensorSize(const Tensor& tensor, size_t packed) {
  size_t size = FieldSize(ShapeSize(packed));
  if (tensor) size += 1 + VarintSize(static_cast<uint64_t>(tensor.dtype()));
  if (!IsText(tensor.dtype())) return size + FieldSize(tensor.data().size());
  for (std::string_view element : tensor.elements()) size += FieldSize(element.size());
  return size;
}

size_t EntrySize(std::string_view name, size_t tensor) {
  return FieldSize(name.size()) + FieldSize(tensor);
}

size_t ErrorSize(ErrorCode code, std::string_view message) {
  if (code == ErrorCode::kSuccess) return 0;
  return 1 + VarintSize(static_cast<uint64_t>(code)) + FieldSize(message.size());
}

// How many outputs of `reply` are written.
size_t OutputCount(const InstanceReply& reply, std::span<const std::string> names) {
  return reply.code == ErrorCode::kSuccess ? std::min(reply.outputs.size(), names.size()) : 0;
}

// Writes fields one after the other. The caller has made room.
class Cursor {
 public:
  explicit Cursor(char* at, std::vector<LaterCopy>* later = nullptr) : at_(at), later_(later) {}

  const char* at() const { return at_; }

  void AddVarint(char tag, uint64_t value) {
    *at_++ = tag;
    at_ += protozero::add_varint_to_buffer(at_, value);
  }

  // The head of a length-delimited field, whose content comes next.
  void Open(char tag, size_t content) { AddVarint(tag, content); }

  void AddDelimited(char tag, std::string_view content) {
    Open(tag, content.size());
    if (!content.empty()) std::memcpy(at_, content.data(), content.size());
    at_ += content.size();
  }

  void AddTensor(const Tensor& tensor, size_t packed) {
    Open(DelimitedTag(tensor_field::kShape), ShapeSize(packed));
    if (packed > 0) {
      Open(DelimitedTag(shape_field::kDims), packed);
      for (int64_t dim : tensor.shape().dims()) at_ += protozero::add_varint_to_buffer(at_, static_cast<uint64_t>(dim));
    }
    if (tensor) {
      AddVarint(Tag(tensor_field::kDtype, pbf_wire_type::varint), static_cast<uint64_t>(tensor.dtype()));
    }
    if (IsText(tensor.dtype())) {
      for (std::string_view element : tensor.elements()) AddDelimited(DelimitedTag(tensor_field::kBytesVal), element);
    } else {
      AddData(DelimitedTag(tensor_field::kData), tensor.data());
    }
  }

  void AddError(ErrorCode code, std::string_view message) {
    Open(DelimitedTag(reply_field::kErrorMsg), ErrorSize(code, message));
    if (code == ErrorCode::kSuccess) return;
    AddVarint(Tag(error_field::kErrorCode, pbf_wire_type::varint), static_cast<uint64_t>(code));
    AddDelimited(DelimitedTag(error_field::kErrorMsg), message);
  }

 private:
  static constexpr size_t kMany = size_t{64} << 10;

  void AddData(char tag, std::span<const std::byte> data) {
    if (later_ == nullptr || data.size() < kMany) return AddDelimited(tag, Chars(data));
    Open(tag, data.size());
    later_->push_back({reinterpret_cast<std::byte*>(at_), data});
    at_ += data.size();
  }

  char* at_;
  std::vector<LaterCopy>* later_;
};

size_t SpecFieldSize(std::string_view spec) {
  return spec.empty() ? 0 : FieldSize(spec.size());
}

}  // namespace

ReplyWriter::ReplyWriter(std::span<const std::string> names, std::span<const InstanceReply> replies)
    : names_(names), replies_(replies) {
  size_t count = 0;
  for (const InstanceReply& reply : replies_) count += 1 + 2 * OutputCount(reply, names_);
  sizes_.reserve(count);
  for (const InstanceReply& reply : replies_) {
    has_errors_ = has_errors_ || reply.code != ErrorCode::kSuccess;
    const size_t place = sizes_.size();
    sizes_.push_back(0);
    size_t instance = 0;
    for (size_t i = 0; i < OutputCount(reply, names_); ++i) {
      const size_t packed = PackedSize(reply.outputs[i].shape());
      const size_t tensor = TensorSize(reply.outputs[i], packed);
      sizes_.push_back(tensor);
      sizes_.push_back(packed);
      instance += FieldSize(EntrySize(names_[i], tensor));
    }
    sizes_[place] = instance;
    size_ += FieldSize(instance);
  }
  if (!has_errors_) return;
  for (const InstanceReply& reply : replies_) size_ += FieldSize(ErrorSize(reply.code, reply.error));
}

void ReplyWriter::WriteTo(std::span<std::byte> out, std::vector<LaterCopy>* later) const {
  assert(out.size() >= size_);
  Cursor cursor(reinterpret_cast<char*>(out.data()), later);
  auto size = sizes_.begin();
  for (const InstanceReply& reply : replies_) {
    cursor.Open(DelimitedTag(reply_field::kInstances), *size++);
    for (size_t i = 0; i < OutputCount(reply, names_); ++i) {
      const size_t tensor = *size++;
      const size_t packed = *size++;
      cursor.Open(DelimitedTag(field::instance::kItems), EntrySize(names_[i], tensor));
      cursor.AddDelimited(DelimitedTag(entry_field::kKey), names_[i]);
      cursor.Open(DelimitedTag(entry_field::kValue), tensor);
      cursor.AddTensor(reply.outputs[i], packed);
    }
  }
  if (has_errors_) {
    for (const InstanceReply& reply : replies_) cursor.AddError(reply.code, reply.error);
  }
  assert(cursor.at() == reinterpret_cast<const char*>(out.data()) + size_);
}

std::string ErrorReply(std::string_view spec, ErrorCode code, std::string_view message) {
  std::string reply(SpecFieldSize(spec) + FieldSize(ErrorSize(code, message)), '\0');
  Cursor cursor(reply.data());
  if (!spec.empty()) cursor.AddDelimited(DelimitedTag(reply_field::kServableSpec), spec);
  cursor.AddError(code, message);
  return reply;
}

std::string SpecField(std::string_view spec) {
  std::string field(SpecFieldSize(spec), '\0');
  if (!spec.empty()) Cursor(field.data()).AddDelimited(DelimitedTag(reply_field::kServableSpec), spec);
  return field;
}

std::string SpecContent(std::string_view servable, std::string_view method, uint64_t version) {
  const auto name_size = [](std::string_view name) { return name.empty() ? 0 : FieldSize(name.size()); };
  const size_t version_size = version == 0 ? 0 : 1 + VarintSize(version);
  std::string spec(name_size(servable) + name_size(method) + version_size, '\0');
  Cursor cursor(spec.data());
  if (!servable.empty()) cursor.AddDelimited(DelimitedTag(spec_field::kName), servable);
  if (!method.empty()) cursor.AddDelimited(DelimitedTag(spec_field::kMethodName), method);
  if (version != 0) cursor.AddVarint(Tag(spec_field::kVersionNumber, pbf_wire_type::varint), version);
  assert(cursor.at() == spec.data() + spec.size());
  return spec;
}

void CountErrorCodes(std::span<const std::byte> reply, std::span<uint64_t, kErrorCodes> counts) {
  pbf_reader reader = Reader(Chars(reply));
  try {
    while (reader.next(reply_field::kErrorMsg, pbf_wire_type::length_delimited)) {
      uint64_t code = 0;
      pbf_reader error = Reader(View(&reader));
      while (error.next()) {
        if (error.tag_and_type() == Varint(error_field::kErrorCode)) {
          code = static_cast<uint64_t>(error.get_int64());
        } else {
          error.skip();
        }
      }
      ++counts[code < kErrorCodes ? code : static_cast<size_t>(ErrorCode::kFailed)];
    }
  } catch (const protozero::exception&) {
    // Whoever gets the reply will say so.
  }
}

std::string SuccessErrors(size_t count) {
  std::string errors(count * FieldSize(0), '\0');
  Cursor cursor(errors.data());
  for (size_t i = 0; i < count; ++i) cursor.AddError(ErrorCode::kSuccess, {});
  return errors;
}

}  // namespace mindserve::wire
