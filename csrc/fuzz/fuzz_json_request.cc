// A REST body of Predict. Whatever it is, what it becomes is a request that workers can read.
#include <string>
#include <vector>

#include "fuzz/input.h"
#include "wire/json_reply.h"
#include "wire/json_request.h"
#include "wire/predict.h"

namespace mindserve::fuzz {

static void Run(std::string_view body) {
  const auto request = wire::PredictRequestFromJson(body, {"servable", "method", 3});
  if (!request.ok()) {
    FUZZ_REQUIRE(request.status().code() == Code::kInvalidArgument || request.status().code() == Code::kOutOfRange);
    FUZZ_REQUIRE(!request.status().message().empty() && request.status().message().size() <= 512);
    return;
  }
  // A number of one digit and its comma become 4 bytes.
  FUZZ_REQUIRE(request->size() <= 64 + 4 * body.size());
  wire::Route route;
  FUZZ_REQUIRE(wire::ReadRoute(AsBytes(*request), body.size(), &route).ok());
  FUZZ_REQUIRE(route.servable == "servable" && route.method == "method" && route.version == 3);
  const std::vector<std::string> names = {"x"};
  wire::InstanceReader reader(AsBytes(*request), names, nullptr);
  std::vector<Tensor> slots;
  while (reader.Next()) {
    if (const Status status = reader.Read(&slots); !status.ok()) {
      FUZZ_REQUIRE(status.message().starts_with("Cannot find input"));
    }
  }
  FUZZ_REQUIRE(reader.status().ok());

  // The same instances as an answer, which names every tensor.
  std::string reply;
  constexpr char kInstancesOfReply = 0x1a;
  for (const wire::Extent& instance : route.instances) {
    reply += kInstancesOfReply;
    reply += request->substr(instance.offset + 1, instance.length - 1);
  }
  FUZZ_REQUIRE(wire::PredictReplyToJson(AsBytes(reply)).ok());
}

}  // namespace mindserve::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  mindserve::fuzz::Run({reinterpret_cast<const char*>(data), size});
  return 0;
}
