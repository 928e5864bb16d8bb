#include "bindings/stage_request.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings/bindings.h"

namespace py = pybind11;

namespace mindserve::bindings {
namespace {

using pipeline::RequestContext;

struct Object {
  PyObject ob_base;                               // as PyObject_HEAD has it
  std::shared_ptr<const RequestContext> request;  // null: of several; shared with its instances
  uint32_t depth;
  uint64_t client;
};

PyTypeObject* type = nullptr;  // one a process, as is the module

const Object& ToObject(PyObject* self) {
  return *reinterpret_cast<Object*>(self);
}

PyObject* GetRequestId(PyObject* self, void*) {
  const auto& request = ToObject(self).request;
  if (!request) return Utf8ToPython({});
  if (request->origin && !request->origin->request_id.empty()) return Utf8ToPython(request->origin->request_id);
  if (!request->key.known()) return Utf8ToPython({});
  const RequestKeyText text = TextOf(request->key);
  return Utf8ToPython(std::string_view(text.data(), text.size()));
}

PyObject* GetModelId(PyObject*, void*) {
  return Utf8ToPython({});
}

PyObject* GetDeadline(PyObject* self, void*) {
  const auto& request = ToObject(self).request;
  return DeadlineToPython(request ? request->deadline : kNever);
}

PyObject* GetClient(PyObject* self, void*) {
  return PyLong_FromUnsignedLongLong(ToObject(self).client);
}

PyObject* GetDepth(PyObject* self, void*) {
  return PyLong_FromUnsignedLong(ToObject(self).depth);
}

PyObject* GetParent(PyObject* self, void*) {
  const auto& request = ToObject(self).request;
  if (!request) return Utf8ToPython({});
  const pipeline::RequestOrigin* origin = request->origin.get();
  const ExecutionTag call = origin != nullptr && origin->call != 0 ? origin->call : request->mark.tag;
  if (call == 0) return Utf8ToPython({});
  return CallersToPython(call, origin != nullptr ? origin->callers : std::vector<ExecutionTag>());
}

PyObject* GetCancelled(PyObject* self, void*) {
  const auto& request = ToObject(self).request;
  return PyBool_FromLong(request && request->cancelled.load(std::memory_order_relaxed) ? 1 : 0);
}

void Deallocate(PyObject* self) {
  std::destroy_at(&reinterpret_cast<Object*>(self)->request);
  PyTypeObject* own = Py_TYPE(self);
  PyObject_Free(self);
  Py_DECREF(own);
}

PyTypeObject* MakeType() {
  static std::array properties = {
      PyGetSetDef{"request_id", GetRequestId, nullptr, nullptr, nullptr},
      PyGetSetDef{"model_id", GetModelId, nullptr, nullptr, nullptr},
      PyGetSetDef{"deadline", GetDeadline, nullptr, nullptr, nullptr},
      PyGetSetDef{"client", GetClient, nullptr, nullptr, nullptr},
      PyGetSetDef{"depth", GetDepth, nullptr, nullptr, nullptr},
      PyGetSetDef{"parent", GetParent, nullptr, nullptr, nullptr},
      PyGetSetDef{"cancelled", GetCancelled, nullptr, nullptr, nullptr},
      PyGetSetDef{},
  };
  static std::array slots = {
      PyType_Slot{Py_tp_doc, const_cast<char*>("The request that a stage function works for.")},
      PyType_Slot{Py_tp_getset, properties.data()},
      PyType_Slot{Py_tp_dealloc, reinterpret_cast<void*>(Deallocate)},
      PyType_Slot{},
  };
  unsigned flags = Py_TPFLAGS_DEFAULT;
#ifdef Py_TPFLAGS_DISALLOW_INSTANTIATION
  flags |= Py_TPFLAGS_DISALLOW_INSTANTIATION;
#endif
  PyType_Spec spec{"mindserve._native.StageRequest", sizeof(Object), 0, flags, slots.data()};
  PyObject* made = PyType_FromSpec(&spec);
  if (made == nullptr) throw py::error_already_set();
  return reinterpret_cast<PyTypeObject*>(made);
}

uint32_t DepthOf(const RequestContext& request) {
  return request.origin ? request.origin->depth : 0;
}

PyObject* New(std::shared_ptr<const RequestContext> request, uint32_t depth, uint64_t client) {
  Object* object = PyObject_New(Object, type);
  if (object == nullptr) throw py::error_already_set();
  new (&object->request) std::shared_ptr<const RequestContext>(std::move(request));
  object->depth = depth;
  object->client = client;
  return reinterpret_cast<PyObject*>(object);
}

}  // namespace

CurrentRequest::CurrentRequest(py::object current) : current_(std::move(current)) {
  if (PyContextVar_CheckExact(current_.ptr()) == 0) throw py::type_error("current= is a contextvars.ContextVar");
}

void CurrentRequest::Set(const pipeline::FunctionBatch& batch, size_t instance) {
  const std::shared_ptr<RequestContext>& request = batch.request(instance);
  // The object keeps the request: as long as it is set, no other has its address.
  if (request_ == request.get()) return;
  Replace(New(request, DepthOf(*request), request->client));
  request_ = request.get();
}

void CurrentRequest::Set(const pipeline::FunctionBatch& batch, std::span<const size_t> instances) {
  const RequestContext* first = batch.request(instances.front()).get();
  uint32_t depth = 0;
  bool one = true;
  for (const size_t instance : instances) {
    const RequestContext& request = *batch.request(instance);
    one = one && &request == first;
    depth = std::max(depth, DepthOf(request));
  }
  if (one) return Set(batch, instances.front());
  Replace(New(nullptr, depth, first->client));
  request_ = nullptr;
}

// Each object is one request's for ever: a copy of the context that a function has made stays true when its thread is
// at the next request.
void CurrentRequest::Replace(PyObject* value) {
  const auto owned = py::reinterpret_steal<py::object>(value);
  PyObject* token = PyContextVar_Set(current_.ptr(), value);
  if (token == nullptr) throw py::error_already_set();
  Py_DECREF(token);
}

PyObject* DeadlineToPython(TimePoint deadline) {
  if (deadline == kNever) Py_RETURN_NONE;
  return PyFloat_FromDouble(std::chrono::duration<double>(deadline.time_since_epoch()).count());
}

PyObject* CallersToPython(ExecutionTag call, std::span<const ExecutionTag> callers) {
  std::string text;
  const auto add = [&](ExecutionTag tag) {
    std::array<char, 17> digits;
    std::snprintf(digits.data(), digits.size(), "%016llx", static_cast<unsigned long long>(tag));
    text.append(text.empty() ? "" : " ").append(digits.data());
  };
  add(call);
  for (const ExecutionTag caller : callers) add(caller);
  return Utf8ToPython(text);
}

PyObject* Utf8ToPython(std::string_view text) {
  return PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace");
}

void RegisterStageRequest(py::module_& module) {
  type = MakeType();
  module.add_object("StageRequest", py::handle(reinterpret_cast<PyObject*>(type)));
}

}  // namespace mindserve::bindings
