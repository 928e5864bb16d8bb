// What a servable makes of the Classifier's messages: which of them it takes, and what of a method's outputs it
// answers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/request_key.h"
#include "base/status.h"
#include "tensor/tensor.h"
#include "wire/classifier.h"
#include "wire/field_map.h"

namespace mindserve::worker {

// A method of the engine that takes a message as it is.
struct HandlerMethod {
  int number = 0;
  // Its inputs are the bytes of the request, and its puid, which is the client's or made of the key, as the gateway
  // does. Else it has one: the bytes of the message alone.
  bool takes_request = false;
  // Messages have nothing but single numbers: what becomes of them does not depend on their size.
  bool fixed = false;
};

// Where a request goes.
struct ClassificationTarget {
  int method = 0;  // the engine's
  // Its client has a say in types and shapes, not just in the numbers.
  bool shaped_by_client = false;
};

// A value; immutable once serving.
class Classifier {
 public:
  // `method` is the engine's, whose inputs are named `inputs`. Replies call the model `model_name`.
  Classifier(int method, std::vector<std::string> inputs, wire::ClassificationOutputs outputs, std::string model_name);

  // Messages of this type, by its full name, are read as inputs by `fields`.
  void AddFields(const std::string& type, wire::FieldMap fields);
  // Messages of this type go to a method of the engine, whose results are `method`'s.
  void AddHandler(const std::string& type, HandlerMethod method);

  // The number of the method that answers.
  int method() const { return method_; }

  // The method that a request goes to, and the inputs (resized). Tensors may hold `owner`. INVALID_ARGUMENT: the
  // message's type is not known, or it doesn't parse, or doesn't fit. `key` is the request's.
  Result<ClassificationTarget> Read(std::span<const std::byte> request, const RequestKey& key, const TensorOwner& owner,
                                    std::vector<Tensor>* inputs) const;

  // An answer, of results of `method`, whose outputs have these names. They make none: INVALID_ARGUMENT if the request
  // was shaped by its client, else INTERNAL.
  Result<wire::ClassificationWriter> Write(std::span<const std::string> names, std::span<const Tensor> outputs,
                                           bool shaped_by_client) const;

 private:
  static Status ReadForHandler(const HandlerMethod& handler, std::span<const std::byte> request,
                               std::span<const std::byte> value, const RequestKey& key, const TensorOwner& owner,
                               std::vector<Tensor>* inputs);
  Status Wrong(std::string_view type, const std::string& what) const;

  int method_;
  std::vector<std::string> inputs_;
  wire::ClassificationOutputs outputs_;
  std::string model_name_;
  std::map<std::string, std::variant<wire::FieldMap, HandlerMethod>, std::less<>> types_;
};

}  // namespace mindserve::worker
