#include "wire/json_request.h"

#include <simdjson.h>

#include <algorithm>
#include <protozero/varint.hpp>
#include <utility>
#include <vector>

#include "wire/fields.h"
#include "wire/json_array.h"
#include "wire/json_scalar.h"
#include "wire/json_syntax.h"
#include "wire/predict.h"
#include "wire/tags.h"

namespace mindserve::wire {
namespace {

size_t VarintSize(uint64_t value) {
  return static_cast<size_t>(protozero::length_of_varint(value));
}

// Of a length-delimited field whose tag takes one byte.
size_t FieldSize(size_t content) {
  return 1 + VarintSize(content) + content;
}

void AppendVarint(uint64_t value, std::string* out) {
  char bytes[10];
  out->append(bytes, static_cast<size_t>(protozero::add_varint_to_buffer(bytes, value)));
}

// The head of a length-delimited field, whose content comes next.
void Open(uint32_t number, size_t content, std::string* out) {
  out->push_back(static_cast<char>(Delimited(number)));
  AppendVarint(content, out);
}

void AppendField(uint32_t number, std::string_view content, std::string* out) {
  Open(number, content.size(), out);
  out->append(content);
}

// Appends the items field of an Instance. Sizes are known ahead, so that nothing is moved.
void AppendItem(std::string_view name, const JsonTensor& value, std::string* out) {
  size_t packed = 0;
  for (int64_t dim : value.shape.dims()) packed += VarintSize(static_cast<uint64_t>(dim));
  const size_t shape = packed == 0 ? 0 : FieldSize(packed);
  const auto dtype = static_cast<uint64_t>(value.dtype);
  const size_t tensor = FieldSize(shape) + 1 + VarintSize(dtype) + FieldSize(value.bytes.size());
  const size_t entry = FieldSize(name.size()) + FieldSize(tensor);

  Open(field::instance::kItems, entry, out);
  AppendField(field::map_entry::kKey, name, out);
  Open(field::map_entry::kValue, tensor, out);
  Open(field::tensor::kShape, shape, out);
  if (packed > 0) {
    Open(field::tensor_shape::kDims, packed, out);
    for (int64_t dim : value.shape.dims()) AppendVarint(static_cast<uint64_t>(dim), out);
  }
  out->push_back(static_cast<char>(Varint(field::tensor::kDtype)));
  AppendVarint(dtype, out);
  AppendField(IsText(value.dtype) ? field::tensor::kBytesVal : field::tensor::kData, value.bytes, out);
}

Status Invalid(std::string_view text) {
  return {Code::kInvalidArgument, std::string(text)};
}

// The memory that a conversion takes besides its result. Reused, since for a body of a megabyte the kernel takes as
// long to bring new pages as all the rest does.
struct Workspace {
  std::string text;  // the body, and behind it the room that simdjson asks for
  ondemand::parser parser;
  std::string instance;
  std::vector<std::string_view> names;  // of the present instance's inputs
  JsonTensor value;
};

// Bodies up to this size leave their workspace to the thread: up to some 40 MB then, for the worst of them.
constexpr size_t kReusedBody = size_t{4} << 20;

// Turns a document into the instances of a request, one after the other.
class RequestReader {
 public:
  RequestReader(Workspace* workspace, std::string* request)
      : request_(request), instance_(workspace->instance), names_(workspace->names), value_(workspace->value) {}

  Status Read(ondemand::document& document);

 private:
  Status ReadInstances(ondemand::value& instances);
  Status ReadInstance(ondemand::object& object, size_t number);
  Status ReadInput(ondemand::field& field);

  std::string* request_;
  std::string& instance_;
  std::vector<std::string_view>& names_;
  JsonTensor& value_;
};

Status RequestReader::Read(ondemand::document& document) {
  ondemand::object object;
  size_t count = 0;
  if (document.get_object().get(object) == simdjson::SUCCESS) {
    for (auto result : object) {
      ondemand::field field;
      if (const auto error = std::move(result).get(field)) return IllegalJson(error);
      std::string_view key;
      if (const auto error = field.unescaped_key().get(key)) return IllegalJson(error);
      if (key == "instances" && ++count == 1) {
        MS_RETURN_IF_ERROR(ReadInstances(field.value()));
      } else {
        MS_RETURN_IF_ERROR(CheckValue(field.value(), 1));
      }
    }
  }
  if (count != 1) {
    return Invalid("key 'instances' expects to exist once, but actually " + std::to_string(count) + " times");
  }
  return CheckEnd(document);
}

Status RequestReader::ReadInstances(ondemand::value& instances) {
  ondemand::object object;
  const std::string_view token = Token(instances);
  if (token.starts_with('{')) {
    if (const auto error = instances.get_object().get(object)) return IllegalJson(error);
    return ReadInstance(object, 0);
  }
  if (!token.starts_with('[')) return Invalid("instances no key mode is not supported");
  ondemand::array array;
  if (const auto error = instances.get_array().get(array)) return IllegalJson(error);
  size_t count = 0;
  for (auto result : array) {
    ondemand::value value;
    if (const auto error = std::move(result).get(value)) return IllegalJson(error);
    if (!Token(value).starts_with('{')) {
      return Invalid(count == 0 ? "instances no key mode is not supported" : "json array, instance is not object type");
    }
    if (const auto error = value.get_object().get(object)) return IllegalJson(error);
    MS_RETURN_IF_ERROR(ReadInstance(object, count++));
  }
  return count == 0 ? Invalid("instances value is array type, but no value") : Status::Ok();
}

Status RequestReader::ReadInstance(ondemand::object& object, size_t number) {
  instance_.clear();
  names_.clear();
  const auto in = [number](const Status& status, std::string_view what) {
    return Status(status.code(),
                  status.message() + " (" + std::string(what) + "instance " + std::to_string(number) + ")");
  };
  for (auto result : object) {
    ondemand::field field;
    if (const auto error = std::move(result).get(field)) return IllegalJson(error);
    std::string_view name;
    if (const auto error = field.unescaped_key().get(name)) return IllegalJson(error);
    if (name.empty()) return in(Invalid("string key is empty"), "");
    names_.push_back(name);
    if (const Status status = ReadInput(field); !status.ok()) {
      return in(status, "input '" + Excerpt(name) + "' of ");
    }
  }
  if (names_.empty()) return in(Invalid("json array, instance is object type, but no value"), "");
  std::ranges::sort(names_);
  if (const auto twice = std::ranges::adjacent_find(names_); twice != names_.end()) {
    return in({Code::kOutOfRange, "the input '" + Excerpt(*twice) + "' stands twice"}, "");
  }
  AppendField(field::predict_request::kInstances, instance_, request_);
  return Status::Ok();
}

Status RequestReader::ReadInput(ondemand::field& field) {
  const std::string_view name = names_.back();
  if (Token(field.value()).starts_with('[')) {
    MS_RETURN_IF_ERROR(ReadArray(field.value(), &value_));
  } else {
    MS_RETURN_IF_ERROR(ReadScalar(field.value(), &value_));
  }
  AppendItem(name, value_, &instance_);
  return Status::Ok();
}

Result<std::string> Convert(std::string_view body, const JsonRoute& route, Workspace* workspace) {
  workspace->text.reserve(body.size() + simdjson::SIMDJSON_PADDING);
  workspace->text.assign(body).append(simdjson::SIMDJSON_PADDING, '\0');
  const simdjson::padded_string_view text(workspace->text.data(), body.size(), workspace->text.size());
  ondemand::document document;
  if (const auto error = workspace->parser.iterate(text).get(document)) return IllegalJson(error);

  std::string request;
  AppendField(field::predict_request::kServableSpec, SpecContent(route.servable, route.method, route.version),
              &request);
  const Status status = RequestReader(workspace, &request).Read(document);
  if (status.ok()) return request;
  // What is wrong with a value is of interest only if all of the text is JSON.
  if (const auto error = workspace->parser.iterate(text).get(document)) return IllegalJson(error);
  const std::string_view all(workspace->text.data(), body.size());
  if (const Status illegal = CheckDocument(document, all); !illegal.ok()) {
    const char* at = nullptr;
    if (document.current_location().get(at) != simdjson::SUCCESS || at < all.begin() || at > all.end()) return illegal;
    return Status(illegal.code(), illegal.message() + " (at about byte " + std::to_string(at - all.begin()) + ")");
  }
  if (status.code() != Code::kInvalidArgument) return status;
  return Invalid("Parser request failed, " + status.message());
}

}  // namespace

Result<std::string> PredictRequestFromJson(std::string_view body, const JsonRoute& route) {
  // Which some programs begin UTF-8 with.
  if (body.starts_with("\xef\xbb\xbf")) body.remove_prefix(3);
  if (body.size() > kReusedBody) {
    Workspace workspace;
    return Convert(body, route, &workspace);
  }
  thread_local Workspace workspace;
  return Convert(body, route, &workspace);
}

}  // namespace mindserve::wire
