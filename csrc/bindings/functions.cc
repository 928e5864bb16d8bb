#include "bindings/functions.h"

#include <algorithm>

#include "base/log.h"
#include "pipeline/local_call.h"

namespace py = pybind11;

namespace mindserve::bindings {
namespace {

// A user's exception may hold as much text as it likes; an answer has it for each instance.
constexpr size_t kMaxReasonBytes = 4096;

std::string Shortened(std::string text) {
  if (text.size() <= kMaxReasonBytes) return text;
  size_t end = kMaxReasonBytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;  // not within a character
  text.resize(end);
  return text + "...";
}

// What a batch function gave, to be iterated over. Text and dicts can be, too, but are never one result an instance.
py::object Results(const py::object& given) {
  PyObject* object = given.ptr();
  PyObject* iterator = nullptr;
  if (!PyDict_Check(object) && !PyUnicode_Check(object) && !PyBytes_Check(object)) iterator = PyObject_GetIter(object);
  if (iterator == nullptr) {
    PyErr_Clear();
    throw py::type_error("it gave a value of type '" + TypeName(given) +
                         "', expected a list, tuple or generator with one result for each instance");
  }
  return py::reinterpret_steal<py::object>(iterator);
}

}  // namespace

std::string Describe(py::handle exception) {
  std::string reason;
  try {
    reason = ToUtf8(py::str(py::type::handle_of(exception).attr("__name__")));
    const std::string text = ToUtf8(py::str(exception));
    if (!text.empty()) reason += ": " + text;
  } catch (py::error_already_set&) {
    reason += " (whose text can't be had)";
  }
  return Shortened(std::move(reason));
}

Status FunctionFailed(std::string_view name, std::string_view reason) {
  return {Code::kInternal, "Call Function '" + std::string(name) + "' Failed: " + std::string(reason)};
}

Status InputRefused(std::string_view name, py::handle exception) {
  std::string text;
  try {
    text = Shortened(ToUtf8(py::str(exception)));
  } catch (py::error_already_set&) {
  }
  if (text.empty()) text = Describe(exception);
  return {Code::kInvalidArgument, FunctionFailed(name, text).message()};
}

pipeline::FunctionResult OutputsOf(const py::object& result, size_t count, const Values& values, Keep keep) {
  if (keep == Keep::kOurs && Py_REFCNT(result.ptr()) > 1) keep = Keep::kCopy;
  const auto wrong = [](std::string text) { return Status(Code::kInvalidArgument, std::move(text)); };
  std::vector<Tensor> outputs;
  const bool several = PyTuple_Check(result.ptr()) || (count != 1 && PyList_Check(result.ptr()));
  if (!several) {
    if (count != 1) return wrong("the stage has " + std::to_string(count) + " outputs, the function gave one");
    auto tensor = values.FromPython(result, keep);
    if (!tensor.ok()) return wrong(tensor.status().message());
    outputs.push_back(*std::move(tensor));
    return outputs;
  }
  const auto items = py::reinterpret_borrow<py::sequence>(result);
  const size_t given = items.size();
  if (given != count) {
    return wrong("the stage has " + std::to_string(count) + " outputs, the function gave " + std::to_string(given));
  }
  outputs.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const auto at = static_cast<Py_ssize_t>(i);
    PyObject* item =
        PyTuple_Check(result.ptr()) ? PyTuple_GET_ITEM(result.ptr(), at) : PyList_GET_ITEM(result.ptr(), at);
    auto tensor = values.FromPython(item, keep == Keep::kOurs && Py_REFCNT(item) > 1 ? Keep::kCopy : keep);
    if (!tensor.ok()) return wrong("output " + std::to_string(i) + ": " + tensor.status().message());
    outputs.push_back(*std::move(tensor));
  }
  return outputs;
}

// INVALID_ARGUMENT for a value that has no form in Python: text that is not UTF-8, or a shape beyond what numpy takes.
Result<py::tuple> StageFunction::Inputs(const pipeline::FunctionBatch& batch, size_t i, const Values& values,
                                        bool copy) const {
  const auto inputs = batch.inputs(i);
  py::tuple arguments(inputs.size());
  for (size_t k = 0; k < inputs.size(); ++k) {
    try {
      arguments[k] = values.ToPython(inputs[k], copy ? Give::kCopy : Give::kView);
    } catch (py::error_already_set& error) {
      if (!error.matches(PyExc_ValueError)) throw;  // UnicodeDecodeError is one
      return Status(Code::kInvalidArgument, "Given function '" + name_ + "' input " + std::to_string(k) + " " +
                                                inputs[k].Describe() +
                                                " has no form in Python: " + Describe(error.value()));
    }
  }
  return arguments;
}

Status StageFunction::Failed(const std::string& reason) const {
  return FunctionFailed(name_, reason);
}

Status StageFunction::Failed(py::error_already_set& error) {
  if (!invalid_input_.is_none() && error.matches(invalid_input_)) return InputRefused(name_, error.value());
  if (!refusal_.is_none() && error.matches(refusal_)) {
    return {Code::kInvalidArgument, Shortened(ToUtf8(py::str(error.value())))};
  }
  const auto now = std::chrono::steady_clock::now();
  if (now - last_logged_ >= std::chrono::seconds(1)) {
    last_logged_ = now;
    Log(LogLevel::kWarning, "stage function '" + name_ + "' raised:\n" + error.what());
  }
  return Failed(Describe(error.value()));
}

// What `make` gives, or what it throws as the instance's own failure: whatever a user's objects do, the function's
// thread goes on.
template <typename T, typename Make>
Result<T> StageFunction::Guarded(Make make) {
  try {
    return make();
  } catch (py::error_already_set& error) {
    return Failed(error);
  } catch (const std::exception& error) {
    return Failed(error.what());
  }
}

pipeline::FunctionResult StageFunction::Outputs(const py::object& result, size_t count, const Values& values) const {
  auto outputs = OutputsOf(result, count, values, Keep::kOurs);
  if (!outputs.ok()) return Failed(outputs.status().message());
  return outputs;
}

pipeline::FunctionResult StageFunction::RunOne(const pipeline::FunctionBatch& batch, size_t i, const Values& values,
                                               CurrentRequest& current, bool copy_inputs) {
  return Guarded<std::vector<Tensor>>([&] {
    const auto arguments = Inputs(batch, i, values, copy_inputs);
    if (!arguments.ok()) return pipeline::FunctionResult(arguments.status());
    const py::tuple& given = *arguments;
    const pipeline::CallerScope scope({batch.client(i), batch.deadline(i), true});
    current.Set(batch, i);
    return Outputs(function_(*given), batch.outputs_count(i), values);
  });
}

void StageFunction::RunBatch(const pipeline::FunctionBatch& batch, const Values& values, CurrentRequest& current,
                             bool copy_inputs, std::vector<pipeline::FunctionResult>* results) {
  // An instance whose inputs have no Python form fails alone: the function doesn't see it.
  std::vector<size_t> passed;
  std::vector<py::object> instances;
  results->assign(batch.size(), Status(Code::kInternal, "it gave no result"));
  for (size_t i = 0; i < batch.size(); ++i) {
    auto inputs = Guarded<py::tuple>([&] { return Inputs(batch, i, values, copy_inputs); });
    if (!inputs.ok()) {
      (*results)[i] = inputs.status();
      continue;
    }
    instances.push_back(*std::move(inputs));
    passed.push_back(i);
  }
  if (!passed.empty()) RunPart({batch, values, current, instances, passed, *results});
}

// What has a result when the function raises keeps it. The others are called again in halves, if they may be, until it
// is known whose fault it is: at most twice as many calls as instances.
void StageFunction::RunPart(const Part& part) {
  const size_t count = part.places.size();
  const Ended ended = Call(part);
  if (ended.done == count) return;
  const Part rest = part.From(ended.done, count - ended.done);
  const size_t left = rest.places.size();
  if (!ended.raised || count == 1 || !part.batch.repeatable()) {
    for (const size_t place : rest.places) part.results[place] = ended.status;
    return;
  }
  const size_t middle = left / 2;
  if (middle > 0) RunPart(rest.From(0, middle));
  RunPart(rest.From(middle, left - middle));
}

StageFunction::Ended StageFunction::Call(const Part& part) {
  Ended ended;
  const size_t count = part.places.size();
  part.batch.BeginCall();
  // What the function calls is for all of them: for as long as the last of them has time.
  TimePoint deadline{};
  for (const size_t place : part.places) deadline = std::max(deadline, part.batch.deadline(place));
  const pipeline::CallerScope scope({part.batch.client(part.places.front()), deadline, true});
  try {
    part.current.Set(part.batch, part.places);
    py::tuple instances(count);
    for (size_t i = 0; i < count; ++i) instances[i] = part.inputs[i];
    const py::object iterator = Results(function_(std::move(instances)));
    for (; ended.done < count; ++ended.done) {
      py::object result = py::reinterpret_steal<py::object>(PyIter_Next(iterator.ptr()));
      if (!result) {
        if (PyErr_Occurred() != nullptr) throw py::error_already_set();
        break;
      }
      const size_t place = part.places[ended.done];
      part.results[place] =
          Guarded<std::vector<Tensor>>([&] { return Outputs(result, part.batch.outputs_count(place), part.values); });
    }
    ended.status = Failed("it gave " + std::to_string(ended.done) + " results for the " + std::to_string(count) +
                          " instances that it was given");
  } catch (py::error_already_set& error) {
    ended.raised = true;
    ended.status = Failed(error);
  } catch (const std::exception& error) {
    ended.status = Failed(error.what());
  }
  return ended;
}

std::vector<pipeline::FunctionResult> StageFunction::Run(const pipeline::FunctionBatch& batch, const Values& values,
                                                         CurrentRequest& current, bool copy_inputs) {
  std::vector<pipeline::FunctionResult> results;
  results.reserve(batch.size());
  if (batched_) {
    RunBatch(batch, values, current, copy_inputs, &results);
  } else {
    for (size_t i = 0; i < batch.size(); ++i) {
      if (i > 0) batch.BeginCall();
      results.push_back(RunOne(batch, i, values, current, copy_inputs));
    }
  }
  return results;
}

}  // namespace mindserve::bindings
