// What the parts of the extension module share. Each topic registers itself in a file of its own; module.cc is the
// table.
#pragma once

#include <pybind11/pybind11.h>

#include <utility>

#include "base/status.h"

namespace mindserve::bindings {

void RegisterErrors(pybind11::module_& module);
void RegisterLog(pybind11::module_& module);
void RegisterDirect(pybind11::module_& module);
void RegisterGateway(pybind11::module_& module);
void RegisterJson(pybind11::module_& module);
void RegisterLocalMethods(pybind11::module_& module);
void RegisterStreamMethods(pybind11::module_& module);
void RegisterRuntime(pybind11::module_& module);
void RegisterServiceCall(pybind11::module_& module);
void RegisterServices(pybind11::module_& module);
void RegisterStageRequest(pybind11::module_& module);

pybind11::handle NativeErrorType();
// Raises mindserve._native.NativeError unless `status` is OK. Holds the GIL.
void Raise(const Status& status);

template <typename T>
T Unwrap(Result<T> result) {
  if (!result.ok()) Raise(result.status());
  return *std::move(result);
}

}  // namespace mindserve::bindings
