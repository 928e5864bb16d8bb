// What a worker reads of a PredictRequest, and what it writes of the same tensors.
#include <string>
#include <vector>

#include "fuzz/input.h"
#include "wire/json_reply.h"
#include "wire/predict.h"

namespace mindserve::fuzz {
namespace {

// As the seeds have them.
const std::vector<std::string> kNames = {"x1", "x2", "s"};

// A tensor's bytes are as many as its shape says, and lie in the request.
void Check(std::string_view request, const Tensor& tensor) {
  const auto inside = [&](const void* begin, size_t size) {
    const auto* at = static_cast<const char*>(begin);
    return size == 0 || (at >= request.data() && size <= static_cast<size_t>(request.data() + request.size() - at));
  };
  const auto count = tensor.shape().Elements();
  FUZZ_REQUIRE(tensor && count.has_value());
  if (IsText(tensor.dtype())) {
    FUZZ_REQUIRE(tensor.elements().size() == *count);
    for (const std::string_view element : tensor.elements()) FUZZ_REQUIRE(inside(element.data(), element.size()));
  } else {
    FUZZ_REQUIRE(tensor.data().size() == *count * Info(tensor.dtype()).size);
    FUZZ_REQUIRE(inside(tensor.data().data(), tensor.data().size()));
  }
}

void Run(std::string_view text) {
  wire::InstanceReader reader(AsBytes(text), kNames, nullptr);
  std::vector<wire::InstanceReply> replies;
  std::vector<Tensor> slots;
  while (reader.Next()) {
    wire::InstanceReply reply;
    const Status status = reader.Read(&slots);
    FUZZ_REQUIRE(slots.size() == kNames.size());
    if (status.ok()) {
      for (const Tensor& tensor : slots) Check(text, tensor);
      reply.outputs = slots;
    } else {
      FUZZ_REQUIRE(!status.message().empty());
      reply.code = wire::ErrorCodeOf(status.code());
      reply.error = status.message();
    }
    replies.push_back(std::move(reply));
  }
  wire::Route route;
  const bool routed = wire::ReadRoute(AsBytes(text), text.size(), &route).ok();
  // The gateway forwards only what it could read, and says how many instances that is.
  if (routed) FUZZ_REQUIRE(reader.status().ok() && route.instances.size() == replies.size());

  const wire::ReplyWriter writer(kNames, replies);
  std::string written(writer.size(), '\0');
  std::vector<wire::LaterCopy> later;
  writer.WriteTo(std::as_writable_bytes(std::span(written)), &later);
  for (const wire::LaterCopy& copy : later) std::ranges::copy(copy.from, copy.to);
  // What was written is a reply, of as many instances.
  const auto json = wire::PredictReplyToJson(AsBytes(written));
  FUZZ_REQUIRE(json.ok());
}

}  // namespace
}  // namespace mindserve::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  mindserve::fuzz::Run({reinterpret_cast<const char*>(data), size});
  return 0;
}
