#include "gateway/served.h"

#include <algorithm>
#include <array>
#include <set>
#include <utility>

namespace mindserve::gateway {
namespace {

constexpr std::array<std::string_view, 8> kBuiltIn = {
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "io.seldon.api.rpc.Classifier",
    "mindserve.StreamService",
    "mindspore.serving.proto.MSService",
    "ray.serve.PredictAPIsService",
    "ray.serve.RayServeAPIService",
};

bool IsIdentifier(std::string_view text) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  return !text.empty() && !digit(text.front()) &&
         std::ranges::all_of(text, [&](char c) { return letter(c) || digit(c); });
}

bool IsFullName(std::string_view name) {
  while (true) {
    const size_t dot = name.find('.');
    if (!IsIdentifier(name.substr(0, dot))) return false;
    if (dot == std::string_view::npos) return true;
    name.remove_prefix(dot + 1);
  }
}

Status Check(const ServiceSpec& service) {
  const auto refuse = [&](const std::string& why) {
    return Status(Code::kInvalidArgument, "service '" + service.name + "' " + why);
  };
  if (!IsFullName(service.name)) return refuse("has no name that protobuf allows; expected one like 'package.Service'");
  if (std::ranges::find(kBuiltIn, service.name) != kBuiltIn.end()) {
    return refuse("is built in: the server answers it itself; leave it out");
  }
  std::set<std::string_view> methods;
  for (const ServiceSpec::Method& method : service.methods) {
    if (!IsIdentifier(method.name)) {
      return refuse("has a method '" + method.name + "', whose name protobuf does not allow");
    }
    if (!methods.insert(method.name).second) return refuse("has the method '" + method.name + "' twice");
  }
  return Status::Ok();
}

}  // namespace

Result<std::shared_ptr<const Served>> Served::Create(std::vector<ServiceSpec> services, std::string_view descriptors,
                                                     std::string_view built_in) {
  std::set<std::string_view> names(kBuiltIn.begin(), kBuiltIn.end());
  for (const ServiceSpec& service : services) {
    MS_RETURN_IF_ERROR(Check(service));
    if (!names.insert(service.name).second) {
      return Status(Code::kInvalidArgument, "service '" + service.name + "' is given twice");
    }
  }
  auto index = wire::DescriptorIndex::Create(descriptors, built_in);
  if (!index.ok()) return index.status();
  Served served;
  served.names.assign(names.begin(), names.end());
  served.services = std::move(services);
  served.descriptors = *std::move(index);
  return std::make_shared<const Served>(std::move(served));
}

}  // namespace mindserve::gateway
