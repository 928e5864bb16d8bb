#include "bindings/service_call.h"

#include <structmember.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/stage_request.h"

namespace py = pybind11;

namespace mindserve::bindings {
namespace {

using worker::OutMessage;
using worker::ServiceCall;

// Below this, copying a message is cheaper than keeping it.
constexpr size_t kKeepFrom = 64 * 1024;

struct Object {
  PyObject ob_base;                      // as PyObject_HEAD has it
  std::shared_ptr<ServiceCall> call;     // shared as it says
  std::shared_ptr<Graveyard> graveyard;  // shared with messages that are kept
  PyObject* state;
  PyObject* weak_references;
};

// One a process, as is the module; they live as long as it.
PyTypeObject* type = nullptr;
PyObject* cancelled_error = nullptr;

Object* ToObject(PyObject* self) {
  return reinterpret_cast<Object*>(self);
}

ServiceCall& CallOf(PyObject* self) {
  return *ToObject(self)->call;
}

// Nothing that C++ throws may come to the interpreter.
template <typename Make>
auto Guarded(Make make) -> decltype(make()) {
  try {
    return make();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const py::builtin_exception& error) {
    error.set_error();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return {};
}

// The arguments of a call by vector, positional and by their names, into `values`, those not given being null.
template <size_t kCount>
bool ReadArguments(const char* function, PyObject* const* arguments, Py_ssize_t positional, PyObject* names,
                   const std::array<const char*, kCount>& known, size_t required,
                   std::array<PyObject*, kCount>* values) {
  values->fill(nullptr);
  const auto given = static_cast<size_t>(positional);
  if (given > kCount) {
    PyErr_Format(PyExc_TypeError, "%s() takes %zu arguments, %zu were given", function, kCount, given);
    return false;
  }
  for (size_t i = 0; i < given; ++i) (*values)[i] = arguments[i];
  const Py_ssize_t named = names == nullptr ? 0 : PyTuple_GET_SIZE(names);
  for (Py_ssize_t k = 0; k < named; ++k) {
    PyObject* name = PyTuple_GET_ITEM(names, k);
    size_t i = 0;
    while (i < kCount && PyUnicode_CompareWithASCIIString(name, known[i]) != 0) ++i;
    if (i == kCount || (*values)[i] != nullptr) {
      PyErr_Format(PyExc_TypeError, "%s() was given the argument %R twice, or has none of that name", function, name);
      return false;
    }
    (*values)[i] = arguments[positional + k];
  }
  for (size_t i = 0; i < required; ++i) {
    if ((*values)[i] != nullptr) continue;
    PyErr_Format(PyExc_TypeError, "%s() needs the argument '%s'", function, known[i]);
    return false;
  }
  return true;
}

// False for an absent one; nothing, with an exception, if its truth can't be had.
bool IsTrue(PyObject* value, bool* failed) {
  if (value == nullptr) return false;
  const int truth = PyObject_IsTrue(value);
  if (truth < 0) *failed = true;
  return truth > 0;
}

class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  ~WithoutGil() { PyEval_RestoreThread(state_); }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* state_;
};

// Metadata is Latin-1 at most; of a client's own invention everything has a form in it.
py::object ToStr(std::string_view text) {
  PyObject* made = PyUnicode_DecodeLatin1(text.data(), static_cast<Py_ssize_t>(text.size()), nullptr);
  if (made == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(made);
}

// What a user gives as metadata: the owner of the views.
class GivenMetadata {
 public:
  // Throws TypeError or ValueError that says what was expected.
  explicit GivenMetadata(PyObject* metadata) {
    if (metadata == nullptr || metadata == Py_None) return;
    entries_ = py::reinterpret_steal<py::object>(
        PySequence_Fast(metadata, "metadata is a sequence of (key, value) pairs, expected one"));
    if (!entries_) throw py::error_already_set();
    const Py_ssize_t count = PySequence_Fast_GET_SIZE(entries_.ptr());
    for (Py_ssize_t i = 0; i < count; ++i) {
      PyObject* each = PySequence_Fast_GET_ITEM(entries_.ptr(), i);
      pairs_.push_back(py::reinterpret_steal<py::object>(
          PySequence_Fast(each, "an entry of metadata is a (key, value) pair, expected one")));
      if (!pairs_.back()) throw py::error_already_set();
      PyObject* pair = pairs_.back().ptr();
      if (PySequence_Fast_GET_SIZE(pair) != 2) {
        throw py::type_error("an entry of metadata is a (key, value) pair, given one of " +
                             std::to_string(PySequence_Fast_GET_SIZE(pair)));
      }
      const std::string_view key = Text(PySequence_Fast_GET_ITEM(pair, 0), "key", {});
      PyObject* value = PySequence_Fast_GET_ITEM(pair, 1);
      if (PyBytes_Check(value)) {
        view_.emplace_back(key,
                           std::string_view(PyBytes_AS_STRING(value), static_cast<size_t>(PyBytes_GET_SIZE(value))));
      } else {
        view_.emplace_back(key, Text(value, "value", key));
      }
    }
  }
  const wire::MetadataView& view() const { return view_; }

 private:
  static std::string_view Text(PyObject* value, const char* what, std::string_view key) {
    const std::string of = key.empty() ? std::string() : " of '" + std::string(key) + "'";
    if (!PyUnicode_Check(value)) {
      throw py::type_error("a metadata " + std::string(what) + of + " is of type '" + TypeName(value) +
                           "', expected str" + (key.empty() ? "" : " or bytes"));
    }
    if (PyUnicode_IS_ASCII(value) == 0) {
      throw py::value_error("a metadata " + std::string(what) + of +
                            " has characters that are not ASCII; for such values take a key that ends in '-bin', and "
                            "bytes");
    }
    return {reinterpret_cast<const char*>(PyUnicode_1BYTE_DATA(value)),
            static_cast<size_t>(PyUnicode_GET_LENGTH(value))};
  }

  py::object entries_;
  std::vector<py::object> pairs_;  // what the views look at
  wire::MetadataView view_;
};

PyObject* Read(PyObject* self, PyObject* const* arguments, Py_ssize_t positional, PyObject* names) {
  std::array<PyObject*, 1> values;
  if (!ReadArguments("read", arguments, positional, names, std::array{"wait"}, 1, &values)) return nullptr;
  bool failed = false;
  const bool wait = IsTrue(values[0], &failed);
  if (failed) return nullptr;
  ServiceCall& call = CallOf(self);
  for (;;) {
    PyObject* message = nullptr;
    switch (call.Read([&](std::span<const std::byte> bytes) {
      message =
          PyBytes_FromStringAndSize(reinterpret_cast<const char*>(bytes.data()), static_cast<Py_ssize_t>(bytes.size()));
    })) {
      case ServiceCall::Reading::kMessage:
        return message;
      case ServiceCall::Reading::kHalfClosed:
        Py_RETURN_NONE;
      case ServiceCall::Reading::kGone:
        return RaiseCancelled();
      case ServiceCall::Reading::kNotYet:
        break;
    }
    if (!wait) Py_RETURN_FALSE;
    const WithoutGil released;
    call.AwaitReadable();
  }
}

PyObject* Write(PyObject* self, PyObject* const* arguments, Py_ssize_t positional, PyObject* names) {
  std::array<PyObject*, 3> values;
  if (!ReadArguments("write", arguments, positional, names, std::array{"message", "wait", "compressed"}, 2, &values)) {
    return nullptr;
  }
  if (!PyBytes_Check(values[0])) {
    PyErr_Format(PyExc_TypeError, "a message of type '%s' was given, expected bytes", Py_TYPE(values[0])->tp_name);
    return nullptr;
  }
  bool failed = false;
  const bool wait = IsTrue(values[1], &failed);
  const bool compressed = IsTrue(values[2], &failed);
  if (failed) return nullptr;
  return Guarded([&]() -> PyObject* {
    ServiceCall& call = CallOf(self);
    switch (call.Write(ToOutMessage(values[0], self, compressed))) {
      case ServiceCall::Writing::kGoOn:
        Py_RETURN_TRUE;
      case ServiceCall::Writing::kGone:
        return RaiseCancelled();
      case ServiceCall::Writing::kHoldBack:
        break;
    }
    if (!wait) Py_RETURN_FALSE;
    bool writable = false;
    {
      const WithoutGil released;
      writable = call.AwaitWritable();
    }
    if (!writable) return RaiseCancelled();
    Py_RETURN_TRUE;
  });
}

PyObject* WriteLast(PyObject* self, PyObject* message) {
  if (!PyBytes_Check(message)) {
    PyErr_Format(PyExc_TypeError, "a message of type '%s' was given, expected bytes", Py_TYPE(message)->tp_name);
    return nullptr;
  }
  return Guarded([&]() -> PyObject* {
    CallOf(self).WriteLast(ToOutMessage(message, self, false));
    Py_RETURN_NONE;
  });
}

PyObject* SendInitial(PyObject* self, PyObject* const* arguments, Py_ssize_t positional, PyObject* names) {
  std::array<PyObject*, 2> values;
  if (!ReadArguments("send_initial", arguments, positional, names, std::array{"metadata", "compressed"}, 1, &values)) {
    return nullptr;
  }
  bool failed = false;
  const bool compressed = IsTrue(values[1], &failed);
  if (failed) return nullptr;
  return Guarded([&]() -> PyObject* {
    const GivenMetadata metadata(values[0]);
    if (!CallOf(self).SendInitial(metadata.view(), compressed)) {
      PyErr_SetString(PyExc_ValueError, "initial metadata was sent already: it goes before the first message, once");
      return nullptr;
    }
    Py_RETURN_NONE;
  });
}

PyObject* Finish(PyObject* self, PyObject* const* arguments, Py_ssize_t positional, PyObject* names) {
  std::array<PyObject*, 3> values;
  if (!ReadArguments("finish", arguments, positional, names, std::array{"code", "details", "trailing"}, 0, &values)) {
    return nullptr;
  }
  return Guarded([&]() -> PyObject* {
    const long code = values[0] == nullptr ? 0 : PyLong_AsLong(values[0]);
    if (code == -1 && PyErr_Occurred() != nullptr) return nullptr;
    if (code < 0 || code >= kCodeCount) {
      PyErr_Format(PyExc_ValueError, "there is no gRPC status code %ld", code);
      return nullptr;
    }
    std::string details;
    if (values[1] != nullptr) {
      if (!PyUnicode_Check(values[1])) {
        PyErr_Format(PyExc_TypeError, "details of type '%s' were given, expected str", Py_TYPE(values[1])->tp_name);
        return nullptr;
      }
      details = ToUtf8(values[1]);
    }
    const GivenMetadata trailing(values[2]);
    CallOf(self).Finish(static_cast<Code>(code), details, trailing.view());
    Py_RETURN_NONE;
  });
}

PyObject* Metadata(PyObject* self, PyObject*) {
  return Guarded([&]() -> PyObject* {
    const wire::CallHead head = CallOf(self).head();
    py::list list;
    for (const auto& [key, value] : head.metadata) {
      if (key.ends_with("-bin")) {
        list.append(py::make_tuple(ToStr(key), py::bytes(value.data(), value.size())));
      } else {
        list.append(py::make_tuple(ToStr(key), ToStr(value)));
      }
    }
    return list.release().ptr();
  });
}

PyObject* Auth(PyObject* self, PyObject*) {
  return Guarded([&]() -> PyObject* {
    const wire::CallHead head = CallOf(self).head();
    py::dict properties;
    for (const auto& [key, value] : head.auth) {
      const py::object name = ToStr(key);
      if (!properties.contains(name)) properties[name] = py::list();
      py::list(properties[name]).append(py::bytes(value.data(), value.size()));
    }
    return properties.release().ptr();
  });
}

PyObject* WatchCancel(PyObject* self, PyObject*) {
  CallOf(self).WatchCancel();
  Py_RETURN_NONE;
}

PyObject* GetMethod(PyObject* self, void*) {
  return PyLong_FromLong(CallOf(self).handler());
}

PyObject* GetClient(PyObject* self, void*) {
  return PyLong_FromUnsignedLongLong(CallOf(self).client());
}

PyObject* GetDeadline(PyObject* self, void*) {
  return DeadlineToPython(CallOf(self).deadline());
}

template <std::string_view wire::CallHead::* kField>
PyObject* GetText(PyObject* self, void*) {
  return Guarded([&] { return Utf8ToPython(CallOf(self).head().*kField); });
}

PyObject* GetDepth(PyObject* self, void*) {
  return Guarded([&] { return PyLong_FromUnsignedLong(CallOf(self).head().depth); });
}

PyObject* GetPlain(PyObject* self, void*) {
  return Guarded([&] { return PyBool_FromLong(CallOf(self).head().plain ? 1 : 0); });
}

PyObject* GetParent(PyObject* self, void*) {
  return Guarded([&] { return CallersToPython(CallOf(self).tag(), CallOf(self).head().callers); });
}

PyObject* GetCancelled(PyObject* self, void*) {
  return PyBool_FromLong(CallOf(self).cancelled() ? 1 : 0);
}

int Traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(ToObject(self)->state);
  return 0;
}

// Nobody will answer the call any more.
void LetGo(PyObject* self) {
  ServiceCall& call = CallOf(self);
  call.executor_data = nullptr;
  call.Drop();
}

int Clear(PyObject* self) {
  LetGo(self);
  Py_CLEAR(ToObject(self)->state);
  return 0;
}

void Deallocate(PyObject* self) {
  Object* object = ToObject(self);
  PyObject_GC_UnTrack(self);
  if (object->weak_references != nullptr) PyObject_ClearWeakRefs(self);
  LetGo(self);
  Py_CLEAR(object->state);
  std::destroy_at(&object->call);
  std::destroy_at(&object->graveyard);
  PyTypeObject* own = Py_TYPE(self);
  PyObject_GC_Del(self);
  Py_DECREF(own);
}

template <typename Function>
PyCFunction AsMethod(Function* function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyTypeObject* MakeType() {
  constexpr int kByVector = METH_FASTCALL | METH_KEYWORDS;
  static std::array methods = {
      PyMethodDef{"read", AsMethod(Read), kByVector, nullptr},
      PyMethodDef{"write", AsMethod(Write), kByVector, nullptr},
      PyMethodDef{"write_last", WriteLast, METH_O, nullptr},
      PyMethodDef{"send_initial", AsMethod(SendInitial), kByVector, nullptr},
      PyMethodDef{"finish", AsMethod(Finish), kByVector, nullptr},
      PyMethodDef{"metadata", Metadata, METH_NOARGS, nullptr},
      PyMethodDef{"auth", Auth, METH_NOARGS, nullptr},
      PyMethodDef{"watch_cancel", WatchCancel, METH_NOARGS, nullptr},
      PyMethodDef{},
  };
  static std::array properties = {
      PyGetSetDef{"method", GetMethod, nullptr, nullptr, nullptr},
      PyGetSetDef{"client", GetClient, nullptr, nullptr, nullptr},
      PyGetSetDef{"deadline", GetDeadline, nullptr, nullptr, nullptr},
      PyGetSetDef{"request_id", GetText<&wire::CallHead::request_id>, nullptr, nullptr, nullptr},
      PyGetSetDef{"model_id", GetText<&wire::CallHead::model_id>, nullptr, nullptr, nullptr},
      PyGetSetDef{"peer", GetText<&wire::CallHead::peer>, nullptr, nullptr, nullptr},
      PyGetSetDef{"depth", GetDepth, nullptr, nullptr, nullptr},
      PyGetSetDef{"plain", GetPlain, nullptr, nullptr, nullptr},
      PyGetSetDef{"parent", GetParent, nullptr, nullptr, nullptr},
      PyGetSetDef{"cancelled", GetCancelled, nullptr, nullptr, nullptr},
      PyGetSetDef{},
  };
  // Object is no standard-layout type, but what is asked for here lies where any compiler puts it.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winvalid-offsetof"
  static std::array members = {
      PyMemberDef{"state", T_OBJECT, offsetof(Object, state), 0, nullptr},
      PyMemberDef{"__weaklistoffset__", T_PYSSIZET, offsetof(Object, weak_references), READONLY, nullptr},
      PyMemberDef{},
  };
#pragma GCC diagnostic pop
  static std::array slots = {
      PyType_Slot{Py_tp_doc, const_cast<char*>("A call of a user's service, as its handler sees it.")},
      PyType_Slot{Py_tp_methods, methods.data()},
      PyType_Slot{Py_tp_getset, properties.data()},
      PyType_Slot{Py_tp_members, members.data()},
      PyType_Slot{Py_tp_traverse, reinterpret_cast<void*>(Traverse)},
      PyType_Slot{Py_tp_clear, reinterpret_cast<void*>(Clear)},
      PyType_Slot{Py_tp_dealloc, reinterpret_cast<void*>(Deallocate)},
      PyType_Slot{},
  };
  unsigned flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC;
#ifdef Py_TPFLAGS_DISALLOW_INSTANTIATION
  flags |= Py_TPFLAGS_DISALLOW_INSTANTIATION;
#endif
  PyType_Spec spec{"mindserve._native.ServiceCall", sizeof(Object), 0, flags, slots.data()};
  PyObject* made = PyType_FromSpec(&spec);
  if (made == nullptr) throw py::error_already_set();
  return reinterpret_cast<PyTypeObject*>(made);
}

}  // namespace

PyObject* NewServiceCall(std::shared_ptr<ServiceCall> call, std::shared_ptr<Graveyard> graveyard) {
  Object* object = PyObject_GC_New(Object, type);
  if (object == nullptr) return nullptr;
  call->executor_data = object;
  new (&object->call) std::shared_ptr<ServiceCall>(std::move(call));
  new (&object->graveyard) std::shared_ptr<Graveyard>(std::move(graveyard));
  object->state = nullptr;
  object->weak_references = nullptr;
  auto* made = reinterpret_cast<PyObject*>(object);
  PyObject_GC_Track(made);
  return made;
}

PyObject* FindServiceCall(const ServiceCall& call) {
  auto* object = static_cast<PyObject*>(call.executor_data);
  Py_XINCREF(object);
  return object;
}

ServiceCall* AsServiceCall(PyObject* object) {
  return Py_TYPE(object) == type ? &CallOf(object) : nullptr;
}

ServiceCall* GetServiceCall(PyObject* object) {
  if (ServiceCall* call = AsServiceCall(object)) return call;
  PyErr_Format(PyExc_TypeError, "a value of type '%s' was given, expected a ServiceCall", Py_TYPE(object)->tp_name);
  return nullptr;
}

OutMessage ToOutMessage(PyObject* bytes, PyObject* service_call, bool compressed) {
  const std::string_view text(PyBytes_AS_STRING(bytes), static_cast<size_t>(PyBytes_GET_SIZE(bytes)));
  if (text.size() < kKeepFrom) return OutMessage(std::string(text), compressed);
  const Object& object = *ToObject(service_call);
  Py_INCREF(bytes);
  std::shared_ptr<const void> owner(bytes, [graveyard = object.graveyard, handlers = object.call->handlers(),
                                            loop = object.call->spec().on_loop](const PyObject* message) {
    graveyard->Bury(const_cast<PyObject*>(message));
    // Without a call that comes, nobody would let go of it.
    handlers->Nudge(loop);
  });
  return {std::as_bytes(std::span(text)), std::move(owner), compressed};
}

PyObject* RaiseCancelled() {
  PyErr_SetString(cancelled_error, "the call is over: cancelled by the client, or finished");
  return nullptr;
}

void RegisterServiceCall(py::module_& module) {
  type = MakeType();
  module.add_object("ServiceCall", py::handle(reinterpret_cast<PyObject*>(type)));
  cancelled_error = PyErr_NewExceptionWithDoc(
      "mindserve._native.Cancelled", "The call is over: nobody waits for what its handler does.", nullptr, nullptr);
  if (cancelled_error == nullptr) throw py::error_already_set();
  module.add_object("Cancelled", py::handle(cancelled_error));
}

}  // namespace mindserve::bindings
