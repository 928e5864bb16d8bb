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

Result<ClassificationTarget> Classifier::Read(std::span<const std::byte> request, const RequestKey& key,
                                              const TensorOwner& owner, std::vector<Tensor>* inputs) const {
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
    return ClassificationTarget{method_, true};
  }
  if (const auto* handler = std::get_if<HandlerMethod>(&found->second)) {
    MS_RETURN_IF_ERROR(ReadForHandler(*handler, request, data->value, key, owner, inputs));
    return ClassificationTarget{handler->number, !handler->fixed};
  }
  const auto& fields = std::get<wire::FieldMap>(found->second);
  Status status = fields.Read(data->value, owner, inputs);
  if (!status.ok()) return Wrong(data->type, "is wrong: " + status.message());
  return ClassificationTarget{method_, !fields.fixed()};
}

Result<wire::ClassificationWriter> Classifier::Write(std::span<const std::string> names,
                                                     std::span<const Tensor> outputs, bool shaped_by_client) const {
  auto writer = wire::ClassificationWriter::Create(outputs_, names, outputs, model_name_);
  if (writer.ok() || !shaped_by_client) return writer;
  return Status(Code::kInvalidArgument,
                "the data of the ClassificationRequest leads to no reply: " + writer.status().message());
}

}  // namespace mindserve::worker
