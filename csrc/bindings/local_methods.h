// Methods of the engine as Python calls them: a model from any thread, or from a task of asyncio.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "bindings/values.h"
#include "pipeline/engine.h"
#include "pipeline/local_call.h"
#include "worker/handlers.h"

namespace mindserve::bindings {

class LocalMethod;

// What a call's results are in Python.
enum class Form : uint8_t {
  kOne,    // of one instance: its output, a tuple if the method has several
  kMany,   // a list with a tuple of outputs for each instance
  kViews,  // of one instance: a tuple of outputs, which can't be written to
};

// A call under way whose caller does not wait on its thread.
class PendingCall {
 public:
  PendingCall(const LocalMethod& method, std::shared_ptr<pipeline::LocalCall> call, Form form)
      : method_(method), call_(std::move(call)), form_(form) {}
  // Once it is done: what LocalMethod::Call returns, or raises.
  pybind11::object Result() const;
  void Cancel() const;

 private:
  const LocalMethod& method_;                  // which Python keeps alive
  std::shared_ptr<pipeline::LocalCall> call_;  // shared with the engine until it is done
  const Form form_;
};

// What a call is made for if no stage makes it.
struct CallTerms {
  double deadline = std::numeric_limits<double>::infinity();  // on time.monotonic()
  uint64_t client = 0;
  // Known to the stage functions that it comes to; null: nothing is. Shared with the call.
  std::shared_ptr<const pipeline::RequestOrigin> origin = nullptr;
};

class LocalMethod {
 public:
  // All that it refers to outlives it. `prefix` begins all errors: "Model(net.onnx).call() failed: ".
  LocalMethod(pipeline::Engine& engine, worker::Handlers& handlers, const Values& values, Graveyard& graveyard,
              int method, std::string prefix)
      : engine_(engine),
        handlers_(handlers),
        values_(values),
        graveyard_(graveyard),
        method_(method),
        inputs_(engine.method(method).inputs.size()),
        outputs_(engine.method(method).outputs.size()),
        prefix_(std::move(prefix)) {}

  // `arguments`: one instance's inputs; or one list or tuple of instances, each a list or tuple of its inputs.
  pybind11::object Call(const pybind11::tuple& arguments, const CallTerms& terms);
  // The same without waiting: `done` gives the call, with `tag`, once it is done.
  PendingCall Start(const pybind11::tuple& arguments, std::shared_ptr<pipeline::DoneCalls> done, uint64_t tag,
                    const CallTerms& terms);

  // The same of one instance that is there as tensors; gives views.
  pybind11::object CallWith(std::vector<Tensor> inputs, const CallTerms& terms);
  PendingCall StartWith(std::vector<Tensor> inputs, std::shared_ptr<pipeline::DoneCalls> done, uint64_t tag,
                        const CallTerms& terms);

 private:
  friend class PendingCall;
  struct Arguments {
    std::vector<Tensor> inputs;
    size_t instances = 1;
    Form form = Form::kOne;
  };
  Arguments Read(const pybind11::tuple& arguments, Keep keep) const;
  void ReadInstance(pybind11::handle instance, size_t index, Keep keep, Arguments* into) const;
  pybind11::object Run(Arguments arguments, const pipeline::LocalCaller& caller);
  PendingCall Begin(Arguments arguments, std::shared_ptr<pipeline::DoneCalls> done, uint64_t tag,
                    const pipeline::LocalCaller& caller);
  pybind11::object Result(pipeline::LocalCall& call, Form form) const;
  pybind11::tuple Outputs(pipeline::LocalCall& call, size_t instance, Give give) const;
  [[noreturn]] void Fail(Code code, const std::string& text) const;

  pipeline::Engine& engine_;
  worker::Handlers& handlers_;  // whose threads call
  const Values& values_;
  Graveyard& graveyard_;
  const int method_;
  const size_t inputs_;
  const size_t outputs_;
  const std::string prefix_;
};

}  // namespace mindserve::bindings
