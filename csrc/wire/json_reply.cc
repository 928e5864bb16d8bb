#include "wire/json_reply.h"

#include <protozero/pbf_reader.hpp>
#include <string_view>
#include <vector>

#include "wire/fields.h"
#include "wire/json_text.h"
#include "wire/malformed.h"
#include "wire/predict.h"
#include "wire/tags.h"
#include "wire/tensor_message.h"

namespace mindserve::wire {
namespace {

using protozero::pbf_reader;

std::string_view View(pbf_reader* reader) {
  const auto view = reader->get_view();
  return {view.data(), view.size()};
}

struct Error {
  uint64_t code = 0;
  std::string_view text;
};

// What stands at a reply's top level.
struct Reply {
  std::vector<std::string_view> instances;
  std::vector<Error> errors;
};

Error ReadError(pbf_reader reader) {
  Error error;
  while (reader.next()) {
    switch (reader.tag_and_type()) {
      case Varint(field::error_msg::kErrorCode):
        error.code = static_cast<uint64_t>(reader.get_int64());
        break;
      case Delimited(field::error_msg::kErrorMsg):
        error.text = View(&reader);
        break;
      default:
        reader.skip();
    }
  }
  return error;
}

Reply ReadReply(std::span<const std::byte> bytes) {
  Reply reply;
  pbf_reader reader(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  while (reader.next()) {
    switch (reader.tag_and_type()) {
      case Delimited(field::predict_reply::kInstances):
        reply.instances.push_back(View(&reader));
        break;
      case Delimited(field::predict_reply::kErrorMsg):
        reply.errors.push_back(ReadError(reader.get_message()));
        break;
      default:
        reader.skip();
    }
  }
  return reply;
}

void AppendError(std::string_view text, std::string* json) {
  json->append("{\"error_msg\":");
  AppendJsonString(text, json);
  json->push_back('}');
}

Status AppendOutput(std::string_view name, std::string_view tensor, std::string* json) {
  AppendJsonString(name, json);
  json->push_back(':');
  auto value = ReadTensor(tensor, nullptr);
  Status status = value.ok() ? AppendJsonTensor(*value, json) : value.status();
  return status.ok() ? status : Status(status.code(), "output " + std::string(name) + ": " + status.message());
}

Status AppendOutputs(std::string_view instance, std::string* json) {
  json->push_back('{');
  pbf_reader items(instance.data(), instance.size());
  bool first = true;
  while (items.next(field::instance::kItems, protozero::pbf_wire_type::length_delimited)) {
    pbf_reader reader = items.get_message();
    std::string_view name;
    std::string_view tensor;
    while (reader.next()) {
      switch (reader.tag_and_type()) {
        case Delimited(field::map_entry::kKey):
          name = View(&reader);
          break;
        case Delimited(field::map_entry::kValue):
          tensor = View(&reader);
          break;
        default:
          reader.skip();
      }
    }
    if (!first) json->push_back(',');
    first = false;
    MS_RETURN_IF_ERROR(AppendOutput(name, tensor, json));
  }
  json->push_back('}');
  return Status::Ok();
}

Result<std::string> ToJson(const Reply& reply) {
  std::string json;
  if (reply.instances.empty() && reply.errors.size() == 1 && reply.errors[0].code != 0) {
    AppendError(reply.errors[0].text, &json);
    return json;
  }
  if (!reply.errors.empty() && reply.errors.size() != reply.instances.size()) {
    return Status(Code::kInternal, "the PredictReply has " + std::to_string(reply.instances.size()) +
                                       " instances, but " + std::to_string(reply.errors.size()) + " errors");
  }
  json.append("{\"instances\":[");
  for (size_t i = 0; i < reply.instances.size(); ++i) {
    if (i > 0) json.push_back(',');
    if (!reply.errors.empty() && reply.errors[i].code != 0) {
      AppendError(reply.errors[i].text, &json);
      continue;
    }
    const size_t begin = json.size();
    if (const Status status = AppendOutputs(reply.instances[i], &json); !status.ok()) {
      json.resize(begin);
      AppendError("Failed to construct the response: " + status.message(), &json);
    }
  }
  json.append("]}");
  return json;
}

}  // namespace

Result<std::string> PredictReplyToJson(std::span<const std::byte> reply) {
  try {
    return ToJson(ReadReply(reply));
  } catch (const protozero::exception& error) {
    return Status(Code::kInternal, std::string("the PredictReply doesn't parse: ") + Explain(error));
  }
}

}  // namespace mindserve::wire
