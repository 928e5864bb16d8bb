// The Classifier's messages (protos/seldon.proto, package io.seldon.api.rpc), read without copies.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tensor/tensor.h"
#include "wire/predict.h"

namespace mindserve::wire {

// What an Any may hold for every servable.
inline constexpr std::string_view kInstanceType = "mindspore.serving.proto.Instance";

// What the gateway needs to know of a ClassificationRequest. The view looks into the request.
struct ClassificationRoute {
  std::string_view puid;
  // From the first `data` field (tag, length, content) to the end of the last: itself a ClassificationRequest. Empty:
  // there is none.
  Extent data;
};

// INVALID_ARGUMENT if the bytes don't parse as far as this looks, or a puid is no UTF-8.
Status ReadClassificationRoute(std::span<const std::byte> request, ClassificationRoute* route);

// What an Any holds. The views look into the message.
struct AnyView {
  std::string_view type;  // full name: what stands behind the last '/' of its type_url
  std::span<const std::byte> value;
};

// A request's `data`. INVALID_ARGUMENT: there is none, its type_url has no type or no '/', or the bytes don't parse.
Result<AnyView> ReadClassificationData(std::span<const std::byte> request);

// Which of a method's outputs are what of a reply. Indices are those of outputs.
struct ClassificationOutputs {
  size_t prediction = 0;                       // numbers: one for each class
  std::optional<size_t> predicted_class = {};  // texts, as many. None: `classes`
  std::optional<size_t> confidence = {};       // numbers, as many. None: the predictions
  std::optional<size_t> custom = {};           // a text: a serialized message. None: `custom` stays an empty Any
  // Their names, of which there are as many; none: their numbers, from 0.
  std::vector<std::string> classes = {};
  std::string custom_type = {};  // full name of that message; empty: it is an Any, or of no bytes none
};

// Writes what a worker answers: the model's name as meta's field (what WriteClassificationMeta expects), then
// `predictions` and `custom` as fields of a ClassificationReply. Two steps, so that the bytes are written once,
// straight into shared memory.
class ClassificationWriter {
 public:
  // `names` are the outputs', for messages. All but that outlive the writer. INTERNAL: the outputs are none of a
  // reply; says which, what it is, and what was expected.
  static Result<ClassificationWriter> Create(const ClassificationOutputs& map, std::span<const std::string> names,
                                             std::span<const Tensor> outputs, std::string_view model_name);
  size_t size() const { return size_; }
  // Writes exactly size() bytes.
  void WriteTo(std::span<std::byte> out) const;

 private:
  // One entry of `predictions`.
  struct Entry {
    double prediction;
    double confidence;
    std::string_view name;
    char digits[20];  // the name, if it is a number
    size_t digits_count;
    std::string_view Name() const { return digits_count > 0 ? std::string_view(digits, digits_count) : name; }
  };

  ClassificationWriter() = default;
  static size_t ContentSize(const Entry& entry);

  std::vector<Entry> entries_;
  std::string_view model_name_;
  std::string custom_head_;        // of the field: all but the value's bytes
  std::string_view custom_value_;  // that follow
  size_t size_ = 0;
};

// The `meta` field of a reply, whose last field is what `part`, written by ClassificationWriter, begins with. INTERNAL:
// it begins with something else.
Result<std::string> WriteClassificationMeta(std::string_view puid, std::string_view variation,
                                            std::span<const std::byte> part);

}  // namespace mindserve::wire
