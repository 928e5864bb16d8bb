#include "wire/reflection.h"

#include <protozero/pbf_reader.hpp>
#include <protozero/pbf_writer.hpp>

#include "base/utf8.h"
#include "wire/fields.h"
#include "wire/malformed.h"
#include "wire/tags.h"

namespace mindserve::wire {

namespace reflection_request = field::reflection_request;
namespace extension_request = field::extension_request;
namespace reflection_response = field::reflection_response;

namespace {

using Kind = ReflectionRequest::Kind;
using protozero::pbf_reader;
using protozero::pbf_writer;

struct NotUtf8 : protozero::exception {
  const char* what() const noexcept override { return "a text is not valid UTF-8"; }
};

std::string_view Text(pbf_reader& reader) {
  const auto view = reader.get_view();
  const std::string_view text(view.data(), view.size());
  if (!IsUtf8(text)) throw NotUtf8();
  return text;
}

void Set(ReflectionRequest& request, Kind kind, std::string_view text) {
  request.kind = kind;
  request.text = text;
}

void SetExtension(ReflectionRequest& request, pbf_reader reader) {
  // Given twice, messages are merged; other members of the oneof are replaced.
  if (request.kind != Kind::kFileContainingExtension) {
    Set(request, Kind::kFileContainingExtension, {});
    request.extension_number = 0;
  }
  while (reader.next()) {
    switch (reader.tag_and_type()) {
      case Delimited(extension_request::kContainingType):
        request.text = Text(reader);
        break;
      case Varint(extension_request::kExtensionNumber):
        request.extension_number = reader.get_int32();
        break;
      default:
        reader.skip();
    }
  }
}

void Read(pbf_reader& reader, ReflectionRequest& request) {
  while (reader.next()) {
    switch (reader.tag_and_type()) {
      case Delimited(reflection_request::kHost):
        request.host = Text(reader);
        break;
      case Delimited(reflection_request::kFileByFilename):
        Set(request, Kind::kFileByFilename, Text(reader));
        break;
      case Delimited(reflection_request::kFileContainingSymbol):
        Set(request, Kind::kFileContainingSymbol, Text(reader));
        break;
      case Delimited(reflection_request::kFileContainingExtension):
        SetExtension(request, reader.get_message());
        break;
      case Delimited(reflection_request::kAllExtensionNumbersOfType):
        Set(request, Kind::kAllExtensionNumbersOfType, Text(reader));
        break;
      case Delimited(reflection_request::kListServices):
        Set(request, Kind::kListServices, Text(reader));
        break;
      default:
        reader.skip();
    }
  }
}

// A response, but for what it answers.
std::string Begin(const ReflectionRequest& request) {
  std::string response;
  pbf_writer writer(response);
  if (!request.host.empty())
    writer.add_string(reflection_response::kValidHost, request.host.data(), request.host.size());
  writer.add_message(reflection_response::kOriginalRequest, reinterpret_cast<const char*>(request.bytes.data()),
                     request.bytes.size());
  return response;
}

}  // namespace

Result<ReflectionRequest> ReadReflectionRequest(std::span<const std::byte> bytes) {
  ReflectionRequest request;
  request.bytes = bytes;
  pbf_reader reader(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  try {
    Read(reader, request);
  } catch (const protozero::exception& error) {
    return Status(Code::kInvalidArgument, "the ServerReflectionRequest doesn't parse at byte " +
                                              std::to_string(bytes.size() - reader.length()) + " of " +
                                              std::to_string(bytes.size()) + ": " + Explain(error));
  }
  return request;
}

std::string WriteFiles(const ReflectionRequest& request, const std::vector<std::string_view>& files) {
  std::string response = Begin(request);
  pbf_writer outer(response);
  pbf_writer inner(outer, reflection_response::kFileDescriptorResponse);
  for (const std::string_view file : files) {
    inner.add_bytes(field::file_descriptor_response::kFileDescriptorProto, file.data(), file.size());
  }
  inner.commit();
  return response;
}

std::string WriteExtensionNumbers(const ReflectionRequest& request, const std::vector<int32_t>& numbers) {
  std::string response = Begin(request);
  pbf_writer outer(response);
  pbf_writer inner(outer, reflection_response::kAllExtensionNumbersResponse);
  inner.add_string(field::extension_number_response::kBaseTypeName, request.text.data(), request.text.size());
  inner.add_packed_int32(field::extension_number_response::kExtensionNumber, numbers.begin(), numbers.end());
  inner.commit();
  return response;
}

std::string WriteServices(const ReflectionRequest& request, const std::vector<std::string>& services) {
  std::string response = Begin(request);
  pbf_writer outer(response);
  pbf_writer inner(outer, reflection_response::kListServicesResponse);
  for (const std::string& service : services) {
    pbf_writer(inner, field::list_service_response::kService).add_string(field::service_response::kName, service);
  }
  inner.commit();
  return response;
}

std::string WriteReflectionError(const ReflectionRequest& request, const Status& error) {
  std::string response = Begin(request);
  pbf_writer outer(response);
  pbf_writer inner(outer, reflection_response::kErrorResponse);
  inner.add_int32(field::error_response::kErrorCode, static_cast<int32_t>(error.code()));
  inner.add_string(field::error_response::kErrorMessage, error.message());
  inner.commit();
  return response;
}

}  // namespace mindserve::wire
