// mindserve._native.ServiceCall: what Python sees of one call of a user's service. A type of its own, without pybind11,
// since there is one for each call and its methods are what a stream's messages pass through.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "bindings/values.h"
#include "worker/service_call.h"

namespace mindserve::bindings {

// A new object for a call that has none. When Python drops it, the call ends if it has no end. Null, with a Python
// exception: there is no memory.
PyObject* NewServiceCall(std::shared_ptr<worker::ServiceCall> call, std::shared_ptr<Graveyard> graveyard);
// The object of a call that has one which Python has not dropped: a new reference, or null.
PyObject* FindServiceCall(const worker::ServiceCall& call);
// The call of such an object; null if it is none.
worker::ServiceCall* AsServiceCall(PyObject* object);
// The same, with TypeError.
worker::ServiceCall* GetServiceCall(PyObject* object);

// A message of the answer of such an object's call: large ones are not copied.
worker::OutMessage ToOutMessage(PyObject* bytes, PyObject* service_call, bool compressed);

// mindserve._native.Cancelled; returns null.
PyObject* RaiseCancelled();

}  // namespace mindserve::bindings
