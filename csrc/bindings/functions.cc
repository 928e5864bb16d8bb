#include "bindings/functions.h"

#include "base/log.h"

namespace py = pybind11;

namespace mindserve::bindings {
namespace {

py::tuple Inputs(const pipeline::FunctionBatch& batch, size_t i, const Values& values, bool copy) {
  const auto inputs = batch.inputs(i);
  py::tuple arguments(inputs.size());
  for (size_t k = 0; k < inputs.size(); ++k) arguments[k] = values.ToPython(inputs[k], copy);
  return arguments;
}

}  // namespace

Status StageFunction::Failed(const std::string& reason) const {
  return {Code::kInternal, "Call Function '" + name_ + "' Failed: " + reason};
}

Status StageFunction::Failed(py::error_already_set& error) {
  std::string reason = py::str(error.type().attr("__name__")).cast<std::string>();
  try {
    const auto text = py::str(error.value()).cast<std::string>();
    if (!text.empty()) reason += ": " + text;
  } catch (py::error_already_set&) {
    reason += " (whose text can't be had)";
  }
  const auto now = std::chrono::steady_clock::now();
  if (now - last_logged_ >= std::chrono::seconds(1)) {
    last_logged_ = now;
    Log(LogLevel::kWarning, "stage function '" + name_ + "' raised:\n" + error.what());
  }
  return Failed(reason);
}

pipeline::FunctionResult StageFunction::Outputs(py::object result, size_t count, const Values& values) const {
  std::vector<Tensor> outputs;
  const bool several = PyTuple_Check(result.ptr()) || (count != 1 && PyList_Check(result.ptr()));
  if (!several) {
    if (count != 1) {
      return Failed("the stage has " + std::to_string(count) + " outputs, the function gave one");
    }
    // Handed over, so that `result` holds the only reference if the function kept none.
    auto tensor = values.FromPython(result);
    if (!tensor.ok()) return Failed(tensor.status().message());
    outputs.push_back(*std::move(tensor));
    return outputs;
  }
  const auto items = py::reinterpret_borrow<py::sequence>(result);
  const size_t given = items.size();
  if (given != count) {
    return Failed("the stage has " + std::to_string(count) + " outputs, the function gave " + std::to_string(given));
  }
  outputs.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const auto at = static_cast<Py_ssize_t>(i);
    PyObject* item =
        PyTuple_Check(result.ptr()) ? PyTuple_GET_ITEM(result.ptr(), at) : PyList_GET_ITEM(result.ptr(), at);
    auto tensor = values.FromPython(item);
    if (!tensor.ok()) return Failed("output " + std::to_string(i) + ": " + tensor.status().message());
    outputs.push_back(*std::move(tensor));
  }
  return outputs;
}

pipeline::FunctionResult StageFunction::RunOne(const pipeline::FunctionBatch& batch, size_t i, const Values& values,
                                               bool copy_inputs) {
  try {
    const py::tuple arguments = Inputs(batch, i, values, copy_inputs);
    return Outputs(function_(*arguments), batch.outputs_count(i), values);
  } catch (py::error_already_set& error) {
    return Failed(error);
  }
}

void StageFunction::RunBatch(const pipeline::FunctionBatch& batch, const Values& values, bool copy_inputs,
                             std::vector<pipeline::FunctionResult>* results) {
  const size_t size = batch.size();
  Status rest = Failed("it gave fewer results than the " + std::to_string(size) + " instances it was given");
  try {
    py::tuple instances(size);
    for (size_t i = 0; i < size; ++i) instances[i] = Inputs(batch, i, values, copy_inputs);
    const py::object given = function_(std::move(instances));
    const py::object iterator = py::reinterpret_steal<py::object>(PyObject_GetIter(given.ptr()));
    if (!iterator) throw py::error_already_set();
    while (results->size() < size) {
      py::object result = py::reinterpret_steal<py::object>(PyIter_Next(iterator.ptr()));
      if (!result) {
        if (PyErr_Occurred() != nullptr) throw py::error_already_set();
        break;
      }
      const size_t outputs = batch.outputs_count(results->size());
      results->push_back(Outputs(std::move(result), outputs, values));
    }
  } catch (py::error_already_set& error) {
    rest = Failed(error);
  }
  while (results->size() < size) results->push_back(rest);
}

std::vector<pipeline::FunctionResult> StageFunction::Run(const pipeline::FunctionBatch& batch, const Values& values,
                                                         bool copy_inputs) {
  std::vector<pipeline::FunctionResult> results;
  results.reserve(batch.size());
  if (batched_) {
    RunBatch(batch, values, copy_inputs, &results);
  } else {
    for (size_t i = 0; i < batch.size(); ++i) results.push_back(RunOne(batch, i, values, copy_inputs));
  }
  return results;
}

}  // namespace mindserve::bindings
