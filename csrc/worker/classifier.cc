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

void Classifier::AddHandler(const std::string& type, int method) {
  types_.insert_or_assign(type, method);
}

Status Classifier::Wrong(std::string_view type, const std::string& what) const {
  return {Code::kInvalidArgument,
          "the data of the ClassificationRequest, of type '" + std::string(CutUtf8(type, 256)) + "', " + what};
}

Result<int> Classifier::Read(std::span<const std::byte> request, const TensorOwner& owner,
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
  if (const int* handler = std::get_if<int>(&found->second)) {
    const std::string_view value(reinterpret_cast<const char*>(data->value.data()), data->value.size());
    auto tensor = Tensor::TextView(DType::kBytes, Shape{1}, {value}, owner);
    if (!tensor.ok()) return tensor.status();
    inputs->resize(1);
    inputs->front() = *std::move(tensor);
    return *handler;
  }
  Status status = std::get<wire::FieldMap>(found->second).Read(data->value, owner, inputs);
  if (!status.ok()) return Wrong(data->type, "is wrong: " + status.message());
  return method_;
}

}  // namespace mindserve::worker
