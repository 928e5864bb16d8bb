#include "worker/classifier.h"

#include <utility>

#include "base/utf8.h"

namespace mindserve::worker {

Classifier::Classifier(int method, std::vector<std::string> inputs, wire::ClassificationOutputs outputs,
                       std::string model_name)
    : method_(method), inputs_(std::move(inputs)), outputs_(std::move(outputs)), model_name_(std::move(model_name)) {}

void Classifier::AddFields(const std::string& type, wire::FieldMap fields) {
  types_.insert_or_assign(type, std::move(fields));
}

void Classifier::AddHandler(const std::string& type, HandlerMethod method) {
  types_.insert_or_assign(type, method);
}

Status Classifier::Wrong(std::string_view type, const std::string& what) const {
  return {Code::kInvalidArgument,
          "the data of the ClassificationRequest, of type '" + std::string(CutUtf8(type, 256)) + "', " + what};
}

Status Classifier::ReadForHandler(const HandlerMethod& handler, std::span<const std::byte> request,
                                  std::span<const std::byte> value, const RequestKey& key, const TensorOwner& owner,
                                  std::vector<Tensor>* inputs) {
  inputs->clear();
  const auto add = [&](DType dtype, std::string_view text) {
    auto tensor = Tensor::TextView(dtype, Shape{1}, {text}, owner);
    if (tensor.ok()) inputs->push_back(*std::move(tensor));
    return tensor.status();
  };
  const std::span<const std::byte> bytes = handler.takes_request ? request : value;
  MS_RETURN_IF_ERROR(add(DType::kBytes, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}));
  if (!handler.takes_request) return Status::Ok();
  wire::ClassificationRoute route;
  MS_RETURN_IF_ERROR(wire::ReadClassificationRoute(request, &route));
  if (!route.puid.empty()) return add(DType::kString, route.puid);
  const RequestKeyPuid made = PuidOf(key);
  inputs->push_back(Tensor::Text(DType::kString, std::string(made.data(), made.size())));
  return Status::Ok();
}

Result<int> Classifier::Read(std::span<const std::byte> request, const RequestKey& key, const TensorOwner& owner,
                             std::vector<Tensor>* inputs) const {
  const auto data = wire::ReadClassificationData(request);
  if (!data.ok()) return data.status();
  const auto found = types_.find(data->type);
  if (found == types_.end() && data->type != wire::kInstanceType) {
    std::string known;
    for (const auto& [name, how] : types_) known.append("'").append(name).append("', ");
    return Wrong(data->type,
                 "can't be taken: this servable takes " + known + "'" + std::string(wire::kInstanceType) + "'");
  }
  if (found == types_.end()) {
    Status status = wire::InstanceReader({}, inputs_, owner).ReadAlone(data->value, inputs);
    if (!status.ok()) return Wrong(data->type, "is wrong: " + status.message());
    return method_;
  }
  if (const auto* handler = std::get_if<HandlerMethod>(&found->second)) {
    MS_RETURN_IF_ERROR(ReadForHandler(*handler, request, data->value, key, owner, inputs));
    return handler->number;
  }
  Status status = std::get<wire::FieldMap>(found->second).Read(data->value, owner, inputs);
  if (!status.ok()) return Wrong(data->type, "is wrong: " + status.message());
  return method_;
}

}  // namespace mindserve::worker
