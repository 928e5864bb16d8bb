// Methods whose last stage is a generator: what comes before it, and the messages that it becomes.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <vector>

#include "bindings/local_methods.h"
#include "bindings/values.h"

namespace mindserve::bindings {

class StreamMethod {
 public:
  struct Spec {
    std::string function;              // "servable.func", for messages
    std::string tag;                   // put before what it raises; may be empty
    std::vector<std::string> inputs;   // names
    std::vector<size_t> arguments;     // without other stages: which of them the function takes
    std::vector<std::string> outputs;  // names
    size_t items = 1;                  // outputs of the function's stage
    std::vector<size_t> order;         // which of them each output is
  };
  // `stages` gives what the function takes; null: there are none before it. `values` and `graveyard` outlive it.
  StreamMethod(Spec spec, std::unique_ptr<LocalMethod> stages, const Values& values,
               std::shared_ptr<Graveyard> graveyard)
      : spec_(std::move(spec)), stages_(std::move(stages)), values_(values), graveyard_(std::move(graveyard)) {}

  bool has_stages() const { return stages_ != nullptr; }
  // A tuple of what the function takes for a PredictRequest of one instance.
  pybind11::object Call(const pybind11::bytes& request, const CallTerms& terms);
  // The same without waiting; needs stages.
  PendingCall Start(const pybind11::bytes& request, std::shared_ptr<pipeline::DoneCalls> done, uint64_t tag,
                    const CallTerms& terms);

  // A PredictReply with what the function gave.
  pybind11::bytes Encode(const pybind11::object& item) const;
  // One with what was raised, be it by the function or by one of these.
  pybind11::bytes Failed(const pybind11::object& error, bool invalid_input) const;

 private:
  std::vector<Tensor> Read(const pybind11::bytes& request) const;

  const Spec spec_;
  const std::unique_ptr<LocalMethod> stages_;
  const Values& values_;
  const std::shared_ptr<Graveyard> graveyard_;  // shared with tensors that look into requests
};

}  // namespace mindserve::bindings
