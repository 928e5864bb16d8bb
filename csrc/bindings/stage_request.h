// mindserve._native.StageRequest: the request whose instances a stage function has, as handlers have their ServiceCall.
// Made for each request that a function's thread comes to, so it is a plain type without pybind11.
#pragma once

#include <pybind11/pybind11.h>

#include <span>
#include <string_view>

#include "base/clock.h"
#include "base/execution.h"
#include "pipeline/engine.h"

namespace mindserve::bindings {

// What `current`, a context variable, has on a stage function's thread.
class CurrentRequest {
 public:
  // Throws TypeError if `current` is no ContextVar.
  explicit CurrentRequest(pybind11::object current);

  // With the GIL, before the function is called for these instances of the batch: those that are of one request act for
  // it; of others nothing is known but how deep they are.
  void Set(const pipeline::FunctionBatch& batch, size_t instance);
  void Set(const pipeline::FunctionBatch& batch, std::span<const size_t> instances);

 private:
  void Replace(PyObject* value);

  const pybind11::object current_;
  const pipeline::RequestContext* request_ = nullptr;  // that it is set to, which lives as long; null: to another
};

// In Python's form; null, with an exception: there is no memory.
PyObject* DeadlineToPython(TimePoint deadline);  // on time.monotonic(); None: there is none
PyObject* Utf8ToPython(std::string_view text);   // what is none is replaced
// A call and those that wait for it, 16 hexadecimal digits each.
PyObject* CallersToPython(ExecutionTag call, std::span<const ExecutionTag> callers);

}  // namespace mindserve::bindings
