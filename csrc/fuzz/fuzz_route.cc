// What the gateway reads of a PredictRequest: where it goes, and where its instances lie.
#include "fuzz/input.h"
#include "wire/predict.h"

namespace mindserve::fuzz {

static void Run(std::string_view text) {
  const auto bytes = AsBytes(text);
  constexpr size_t kMostInstances = 64;
  static wire::Route route;  // reused, as by the gateway
  const Status status = wire::ReadRoute(bytes, kMostInstances, &route);
  const auto aligned_at = wire::FirstLargeData(bytes);
  if (aligned_at) FUZZ_REQUIRE(*aligned_at < (size_t{1} << 40));
  if (!status.ok()) return;

  FUZZ_REQUIRE(route.instances.size() <= kMostInstances);
  FUZZ_REQUIRE(route.spec.offset <= bytes.size() && route.spec.length <= bytes.size() - route.spec.offset);
  size_t end = 0;
  std::string joined;
  for (const wire::Extent& instance : route.instances) {
    FUZZ_REQUIRE(instance.offset >= end && instance.length > 0);
    FUZZ_REQUIRE(instance.length <= bytes.size() - instance.offset);
    end = instance.offset + instance.length;
    joined.append(text.substr(instance.offset, instance.length));
  }

  // A run of instances is itself a request: what a worker is given.
  wire::Route again;
  FUZZ_REQUIRE(wire::ReadRoute(AsBytes(joined), kMostInstances, &again).ok());
  FUZZ_REQUIRE(again.instances.size() == route.instances.size() && again.servable.empty());

  // What a reply repeats says the same as what came.
  const std::string spec = wire::SpecContent(route.servable, route.method, route.version);
  std::string request = wire::SpecField(spec);
  FUZZ_REQUIRE(wire::ReadRoute(AsBytes(request), kMostInstances, &again).ok());
  FUZZ_REQUIRE(again.servable == route.servable && again.method == route.method && again.version == route.version);
  if (!route.merged) {
    request = wire::SpecField(text.substr(route.spec.offset, route.spec.length));
    FUZZ_REQUIRE(wire::ReadRoute(AsBytes(request), kMostInstances, &again).ok());
    FUZZ_REQUIRE(again.servable == route.servable && again.method == route.method && again.version == route.version);
  }
}

}  // namespace mindserve::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  mindserve::fuzz::Run({reinterpret_cast<const char*>(data), size});
  return 0;
}
