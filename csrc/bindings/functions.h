// Python functions as stages: the bodies of the function threads.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bindings/stage_request.h"
#include "bindings/values.h"
#include "pipeline/engine.h"

namespace mindserve::bindings {

// What a function gave for an instance, whose stage has `count` outputs: the value, or a tuple of so many; a list, too,
// if they are several. INVALID_ARGUMENT: it is something else.
// With kOurs `result` and all that it holds are only the caller's if nobody else refers to them.
pipeline::FunctionResult OutputsOf(const pybind11::object& result, size_t count, const Values& values, Keep keep);

// "ValueError: too large"; of a bounded length.
std::string Describe(pybind11::handle exception);

// What a client is told of a stage function that failed.
Status FunctionFailed(std::string_view name, std::string_view reason);
// The same, if what it raised says that its input is wrong: INVALID_ARGUMENT.
Status InputRefused(std::string_view name, pybind11::handle exception);

class StageFunction {
 public:
  // `name` is "servable.func", for messages. `batched`: the function takes a tuple of instances, each a tuple of
  // inputs, and gives or yields one result for each.
  // Classes of exceptions that say that the instance is wrong; None: there is no such class. `invalid_input`: the
  // function's, by which it is to be named. `refusal`: its text is all that is to be said.
  StageFunction(std::string name, pybind11::function function, bool batched, pybind11::object invalid_input,
                pybind11::object refusal)
      : name_(std::move(name)),
        function_(std::move(function)),
        batched_(batched),
        invalid_input_(std::move(invalid_input)),
        refusal_(std::move(refusal)) {}

  // Runs the function on every instance of `batch`, with the GIL. Python's exceptions become the instances' errors.
  // `copy_inputs`: hand out copies instead of views, since too much of old requests is still looked at.
  // `current` is set to the request of each instance.
  std::vector<pipeline::FunctionResult> Run(const pipeline::FunctionBatch& batch, const Values& values,
                                            CurrentRequest& current, bool copy_inputs);

 private:
  Result<pybind11::tuple> Inputs(const pipeline::FunctionBatch& batch, size_t i, const Values& values, bool copy) const;
  pipeline::FunctionResult RunOne(const pipeline::FunctionBatch& batch, size_t i, const Values& values,
                                  CurrentRequest& current, bool copy_inputs);
  void RunBatch(const pipeline::FunctionBatch& batch, const Values& values, CurrentRequest& current, bool copy_inputs,
                std::vector<pipeline::FunctionResult>* results);
  // Instances of a batch that the function is called with together.
  struct Part {
    const pipeline::FunctionBatch& batch;
    const Values& values;
    CurrentRequest& current;
    std::span<const pybind11::object> inputs;  // a tuple each
    std::span<const size_t> places;            // of each, in the batch and its results
    std::vector<pipeline::FunctionResult>& results;
    Part From(size_t begin, size_t count) const {
      return {batch, values, current, inputs.subspan(begin, count), places.subspan(begin, count), results};
    }
  };
  // How far a call came, and why not further.
  struct Ended {
    size_t done = 0;
    bool raised = false;
    Status status;
  };
  void RunPart(const Part& part);
  Ended Call(const Part& part);
  pipeline::FunctionResult Outputs(const pybind11::object& result, size_t count, const Values& values) const;
  template <typename T, typename Make>
  Result<T> Guarded(Make make);
  Status Failed(pybind11::error_already_set& error);
  Status Failed(const std::string& reason) const;

  const std::string name_;
  const pybind11::function function_;
  const bool batched_;
  const pybind11::object invalid_input_;
  const pybind11::object refusal_;
  std::chrono::steady_clock::time_point last_logged_;  // a traceback a second at most: clients cause these
};

}  // namespace mindserve::bindings
