#include "wire/health.h"

#include <protozero/pbf_reader.hpp>
#include <protozero/pbf_writer.hpp>

#include "base/utf8.h"
#include "wire/fields.h"
#include "wire/malformed.h"

namespace mindserve::wire {

namespace health_request = field::health_check_request;
namespace health_response = field::health_check_response;

Result<std::string_view> ReadHealthRequest(std::span<const std::byte> request) {
  std::string_view service;
  protozero::pbf_reader reader(reinterpret_cast<const char*>(request.data()), request.size());
  try {
    while (reader.next(health_request::kService, protozero::pbf_wire_type::length_delimited)) {
      const auto view = reader.get_view();
      service = {view.data(), view.size()};
      if (!IsUtf8(service)) {
        return Status(Code::kInvalidArgument, "the HealthCheckRequest's service is not valid UTF-8");
      }
    }
  } catch (const protozero::exception& error) {
    return Status(Code::kInvalidArgument, "the HealthCheckRequest doesn't parse at byte " +
                                              std::to_string(request.size() - reader.length()) + " of " +
                                              std::to_string(request.size()) + ": " + Explain(error));
  }
  return service;
}

std::string WriteHealthResponse(ServingStatus status) {
  std::string response;
  // As proto3 writes it: nothing for the value 0.
  if (status != ServingStatus::kUnknown) {
    protozero::pbf_writer(response).add_enum(health_response::kStatus, static_cast<int32_t>(status));
  }
  return response;
}

}  // namespace mindserve::wire
