#include "wire/classifier.h"

#include <protozero/pbf_reader.hpp>
#include <protozero/pbf_writer.hpp>

#include "base/utf8.h"
#include "wire/fields.h"
#include "wire/malformed.h"
#include "wire/tags.h"

namespace mindserve::wire {
namespace {

using protozero::pbf_reader;

namespace any_field = field::any;
namespace meta_field = field::classification_reply_meta;
namespace reply_field = field::classification_reply;
namespace request_field = field::classification_request;

pbf_reader Reader(std::span<const std::byte> message) {
  return {reinterpret_cast<const char*>(message.data()), message.size()};
}

std::span<const std::byte> Bytes(pbf_reader* reader) {
  const auto view = reader->get_view();
  return std::as_bytes(std::span(view.data(), view.size()));
}

std::string_view Chars(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Status Malformed(std::span<const std::byte> request, const pbf_reader& reader, const protozero::exception& error) {
  return {Code::kInvalidArgument, "the ClassificationRequest doesn't parse at byte " +
                                      std::to_string(request.size() - reader.length()) + " of " +
                                      std::to_string(request.size()) + ": " + Explain(error)};
}

}  // namespace

Status ReadClassificationRoute(std::span<const std::byte> request, ClassificationRoute* route) {
  *route = {};
  pbf_reader reader = Reader(request);
  try {
    size_t field = 0;  // where the field that is being read begins
    for (; reader.next(); field = request.size() - reader.length()) {
      switch (reader.tag_and_type()) {
        case Delimited(request_field::kMeta): {
          pbf_reader meta = Reader(Bytes(&reader));
          while (meta.next()) {
            if (meta.tag_and_type() == Delimited(field::classification_request_meta::kPuid)) {
              route->puid = Chars(Bytes(&meta));
            } else {
              meta.skip();
            }
          }
          if (IsUtf8(route->puid)) break;
          return {Code::kInvalidArgument, "the puid of the ClassificationRequest is not valid UTF-8"};
        }
        case Delimited(request_field::kData): {
          reader.skip();
          if (route->data.length == 0) route->data.offset = field;
          route->data.length = request.size() - reader.length() - route->data.offset;
          break;
        }
        default:
          reader.skip();
      }
    }
  } catch (const protozero::exception& error) {
    return Malformed(request, reader, error);
  }
  return Status::Ok();
}

Result<AnyView> ReadClassificationData(std::span<const std::byte> request) {
  std::string_view type_url;
  AnyView any;
  pbf_reader reader = Reader(request);
  try {
    while (reader.next(request_field::kData, protozero::pbf_wire_type::length_delimited)) {
      pbf_reader data = Reader(Bytes(&reader));
      while (data.next()) {
        switch (data.tag_and_type()) {
          case Delimited(any_field::kTypeUrl):
            type_url = Chars(Bytes(&data));
            break;
          case Delimited(any_field::kValue):
            any.value = Bytes(&data);
            break;
          default:
            data.skip();
        }
      }
    }
  } catch (const protozero::exception& error) {
    return Malformed(request, reader, error);
  }
  if (!IsUtf8(type_url)) {
    return Status(Code::kInvalidArgument, "the type_url of the ClassificationRequest's data is not valid UTF-8");
  }
  const size_t slash = type_url.rfind('/');
  any.type = type_url.substr(slash + 1);
  if (!any.type.empty() && slash == std::string_view::npos) {
    // As Any has it, and so do the Unpack functions of handlers.
    return Status(Code::kInvalidArgument, "the type_url of the ClassificationRequest's data has no '/': expected a " +
                                              ("prefix, as type.googleapis.com/" + std::string(any.type)));
  }
  if (any.type.empty()) {
    return Status(Code::kInvalidArgument, "the ClassificationRequest has no data: expected an Any with a message" +
                                              std::string(any.value.empty() ? "" : ", but its type_url names none"));
  }
  return any;
}

Result<std::string> WriteClassificationMeta(std::string_view puid, std::string_view variation,
                                            std::span<const std::byte> part) {
  size_t name = 0;  // the first field's length
  pbf_reader reader = Reader(part);
  try {
    if (reader.next(meta_field::kModelName, protozero::pbf_wire_type::length_delimited)) {
      reader.skip();
      name = part.size() - reader.length();
    }
  } catch (const protozero::exception&) {
    name = 0;
  }
  constexpr auto kTag = static_cast<std::byte>(Delimited(meta_field::kModelName));
  if (name == 0 || part.front() != kTag) {
    return Status(Code::kInternal, "the worker's answer is broken: it does not begin with the name of its model");
  }
  std::string fields;
  protozero::pbf_writer meta(fields);
  meta.add_string(meta_field::kPuid, puid.data(), puid.size());
  meta.add_string(meta_field::kVariation, variation.data(), variation.size());
  std::string field;
  protozero::pbf_writer(field).add_bytes(reply_field::kMeta, "", 0);
  field.pop_back();  // the length is that of all three
  protozero::add_varint_to_buffer(&field, fields.size() + name);
  return field + fields;
}

}  // namespace mindserve::wire
