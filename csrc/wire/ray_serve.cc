#include "wire/ray_serve.h"

#include <protozero/pbf_reader.hpp>
#include <protozero/pbf_writer.hpp>

#include "wire/fields.h"
#include "wire/malformed.h"

namespace mindserve::wire {

Status CheckEmptyMessage(std::span<const std::byte> request, std::string_view type) {
  protozero::pbf_reader reader(reinterpret_cast<const char*>(request.data()), request.size());
  try {
    while (reader.next()) reader.skip();
  } catch (const protozero::exception& error) {
    return {Code::kInvalidArgument, "the " + std::string(type) + " doesn't parse at byte " +
                                        std::to_string(request.size() - reader.length()) + " of " +
                                        std::to_string(request.size()) + ": " + Explain(error)};
  }
  return Status::Ok();
}

std::string WriteListApplicationsResponse(const std::vector<std::string>& names) {
  std::string response;
  protozero::pbf_writer writer(response);
  for (const std::string& name : names) {
    writer.add_string(field::list_applications_response::kApplicationNames, name);
  }
  return response;
}

std::string WriteHealthzResponse(std::string_view message) {
  std::string response;
  protozero::pbf_writer(response).add_string(field::healthz_response::kMessage, message.data(), message.size());
  return response;
}

}  // namespace mindserve::wire
