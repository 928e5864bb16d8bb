#include "bindings/services.h"

#include <chrono>

#include "bindings/bindings.h"
#include "bindings/service_call.h"

namespace py = pybind11;

namespace mindserve::bindings {
namespace {

using worker::Handlers;
using worker::ServiceCall;

// One a process, as is the module; they live as long as it.
PyObject* result_error = nullptr;
PyObject* serialize_to_string = nullptr;

// Objects that other threads let go of are dropped so many at a time between calls.
constexpr size_t kBuriedPerCall = 16;
// An extra thread that has had no call for so long ends.
constexpr auto kExtraIdle = std::chrono::seconds(10);

py::object Steal(PyObject* object) {
  return py::reinterpret_steal<py::object>(object);
}

// The exception that is set, taken, with its traceback.
py::object TakeException() {
  PyObject* type = nullptr;
  PyObject* value = nullptr;
  PyObject* traceback = nullptr;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  if (traceback != nullptr) PyException_SetTraceback(value, traceback);
  Py_XDECREF(type);
  Py_XDECREF(traceback);
  return Steal(value);
}

// Raises ResultError with `text`, which it takes; null: with what kept it from being made.
void RaiseResultError(PyObject* text, py::object cause = {}) {
  const py::object error = Steal(text == nullptr ? nullptr : PyObject_CallOneArg(result_error, text));
  Py_XDECREF(text);
  if (!error) return;
  if (cause) PyException_SetCause(error.ptr(), cause.release().ptr());
  PyErr_SetObject(result_error, error.ptr());
}

// The message type's full name, or that of what is no message type.
py::object NameOfType(PyObject* type) {
  const py::object descriptor = Steal(PyObject_GetAttrString(type, "DESCRIPTOR"));
  py::object name;
  if (descriptor) name = Steal(PyObject_GetAttrString(descriptor.ptr(), "full_name"));
  if (!name) {
    PyErr_Clear();
    name = Steal(PyObject_GetAttrString(type, "__name__"));
  }
  if (!name) PyErr_Clear();
  return name ? name : py::str("?");
}

// The bytes of what a handler gave; null, with ResultError, if it gave something else.
py::object Serialize(PyObject* given, PyObject* response_class) {
  if (reinterpret_cast<PyObject*>(Py_TYPE(given)) != response_class) {
    const int fits = PyObject_IsInstance(given, response_class);
    if (fits < 0) return {};
    if (fits == 0) {
      RaiseResultError(PyUnicode_FromFormat("the handler gave a value of type '%U', expected '%U'",
                                            NameOfType(reinterpret_cast<PyObject*>(Py_TYPE(given))).ptr(),
                                            NameOfType(response_class).ptr()));
      return {};
    }
  }
  py::object bytes = Steal(PyObject_CallMethodNoArgs(given, serialize_to_string));
  if (bytes && PyBytes_Check(bytes.ptr())) return bytes;
  // Before anything else is asked of the interpreter, which would lose it.
  py::object cause = bytes ? py::object() : TakeException();
  RaiseResultError(PyUnicode_FromFormat("the handler gave a message of type '%U' that can't be serialized",
                                        NameOfType(response_class).ptr()),
                   std::move(cause));
  return {};
}

// While it lives, a context variable has a value.
class ContextValue {
 public:
  ContextValue(PyObject* variable, PyObject* value) : variable_(variable), token_(PyContextVar_Set(variable, value)) {}
  ~ContextValue() {
    if (token_ == nullptr || PyContextVar_Reset(variable_, token_) != 0) PyErr_WriteUnraisable(variable_);
    Py_XDECREF(token_);
  }
  ContextValue(const ContextValue&) = delete;
  ContextValue& operator=(const ContextValue&) = delete;

 private:
  PyObject* variable_;
  PyObject* token_;
};

// run_generator: see _native.pyi.
py::bool_ RunGenerator(const py::object& object, const py::object& iterator, const py::object& response_class) {
  ServiceCall* call = GetServiceCall(object.ptr());
  if (call == nullptr) throw py::error_already_set();
  if (PyIter_Check(iterator.ptr()) == 0) {
    throw py::type_error("a value of type '" + TypeName(iterator) + "' was given, expected an iterator");
  }
  auto next = Py_TYPE(iterator.ptr())->tp_iternext;
  while (!call->over()) {
    const py::object given = Steal(next(iterator.ptr()));
    if (!given) {
      if (PyErr_Occurred() == nullptr) return py::bool_(true);
      if (PyErr_ExceptionMatches(PyExc_StopIteration) == 0) throw py::error_already_set();
      PyErr_Clear();
      return py::bool_(true);
    }
    const py::object bytes = Serialize(given.ptr(), response_class.ptr());
    if (!bytes) throw py::error_already_set();
    switch (call->Write(ToOutMessage(bytes.ptr(), object.ptr(), false))) {
      case ServiceCall::Writing::kGoOn:
        break;
      case ServiceCall::Writing::kHoldBack:
        return py::bool_(false);
      case ServiceCall::Writing::kGone:
        RaiseCancelled();
        throw py::error_already_set();
    }
  }
  RaiseCancelled();
  throw py::error_already_set();
}

}  // namespace

int ServiceHandlers::Add(worker::HandlerSpec spec, const py::object& unary) {
  Unary& added = unary_.emplace_back();
  if (!unary.is_none()) {
    const bool plain = !spec.client_streaming && !spec.server_streaming && !spec.on_loop;
    const auto parts = py::cast<py::tuple>(unary);
    if (!plain || parts.size() != 3) {
      unary_.pop_back();
      throw py::value_error(
          "unary= is (parse, function, response_class), and for a handler on threads whose sides "
          "don't stream");
    }
    added = {parts[0], parts[1], parts[2]};
  }
  return handlers_.Add(std::move(spec));
}

void ServiceHandlers::Run(const py::function& dispatch, const py::function& on_error, const py::object& current,
                          bool extra) {
  if (PyContextVar_CheckExact(current.ptr()) == 0) throw py::type_error("current= is a contextvars.ContextVar");
  const Callbacks callbacks{dispatch.ptr(), on_error.ptr(), current.ptr()};
  for (bool step_back = false;;) {
    if (!step_back) {
      if (const std::shared_ptr<ServiceCall>& call = handlers_.TryTake()) {
        Handle(call, callbacks);
        graveyard_->Clear(kBuriedPerCall);
        continue;
      }
    }
    graveyard_->Clear();
    std::chrono::steady_clock::time_point woken;
    PyThreadState* state = PyEval_SaveThread();
    const bool more = extra ? handlers_.AwaitExtra(kExtraIdle) : handlers_.Await(step_back);
    woken = std::chrono::steady_clock::now();
    PyEval_RestoreThread(state);
    if (!more) return;
    step_back = !handlers_.Stay(std::chrono::steady_clock::now() - woken) && !extra;
  }
}

py::object ServiceHandlers::AwaitNeeds(bool stuck) {
  const Handlers::Needs needs = [&] {
    py::gil_scoped_release release;
    return handlers_.AwaitNeeds(stuck);
  }();
  if (needs.stopped) return py::none();
  return py::make_tuple(needs.threads, needs.stuck);
}

py::tuple ServiceHandlers::Held() const {
  py::list held;
  for (const auto& [thread, handler, time] : handlers_.held()) {
    held.append(py::make_tuple(thread, handlers_.spec(handler).path, std::chrono::duration<double>(time).count()));
  }
  return py::make_tuple(handlers_.waiting(), held);
}

void ServiceHandlers::Handle(const std::shared_ptr<ServiceCall>& call, const Callbacks& callbacks) {
  // One that was parked has been held since then.
  PyObject* object =
      call->executor_data != nullptr ? static_cast<PyObject*>(call->executor_data) : NewServiceCall(call, graveyard_);
  if (object == nullptr) {
    PyErr_Clear();
    return call->Finish(Code::kResourceExhausted, "out of memory", {});
  }
  {
    const ContextValue value(callbacks.current, object);
    const Unary& unary = unary_[static_cast<size_t>(call->handler())];
    if (unary.parse) {
      Answer(*call, object, unary, callbacks);
    } else {
      const py::object result = Steal(PyObject_CallOneArg(callbacks.dispatch, object));
      if (!result) PyErr_WriteUnraisable(callbacks.dispatch);
    }
  }
  if (call->Park() == ServiceCall::Parked::kNo) Py_DECREF(object);
}

void ServiceHandlers::Answer(ServiceCall& call, PyObject* object, const Unary& unary, const Callbacks& callbacks) {
  PyObject* request = nullptr;
  const auto reading = call.Read([&](std::span<const std::byte> bytes) {
    request =
        PyBytes_FromStringAndSize(reinterpret_cast<const char*>(bytes.data()), static_cast<Py_ssize_t>(bytes.size()));
  });
  if (reading != ServiceCall::Reading::kMessage) return;
  const char* stage = "parse";
  py::object message = Steal(request);
  if (message) message = Steal(PyObject_CallOneArg(unary.parse.ptr(), message.ptr()));
  py::object result;
  if (message) {
    stage = "handler";
    result = Steal(PyObject_CallOneArg(unary.function.ptr(), message.ptr()));
  }
  if (result) {
    stage = "result";
    result = Serialize(result.ptr(), unary.response_class.ptr());
  }
  if (result) return call.WriteLast(ToOutMessage(result.ptr(), object, false));
  const py::object error = TakeException();
  const py::object name = Steal(PyUnicode_FromString(stage));
  PyObject* arguments[] = {object, error.ptr(), name.ptr()};
  const py::object handled = Steal(name ? PyObject_Vectorcall(callbacks.on_error, arguments, 3, nullptr) : nullptr);
  if (!handled) PyErr_WriteUnraisable(callbacks.on_error);
}

py::list ServiceHandlers::TakeLoopEvents() {
  graveyard_->Clear();
  handlers_.TakeLoopEvents(&loop_events_);
  py::list events;
  for (const auto& [call, bits] : loop_events_) {
    const bool opened = (bits & Handlers::kOpened) != 0;
    const py::object object = Steal(opened ? NewServiceCall(call, graveyard_) : FindServiceCall(*call));
    if (object) {
      events.append(py::make_tuple(object, static_cast<int>(bits)));
    } else if (opened) {
      PyErr_Clear();
      call->Finish(Code::kResourceExhausted, "out of memory", {});
    }
  }
  loop_events_.clear();
  return events;
}

void RegisterServices(py::module_& module) {
  result_error = PyErr_NewExceptionWithDoc("mindserve._native.ResultError",
                                           "A handler gave something that is no message of its method's.",
                                           PyExc_TypeError, nullptr);
  if (result_error == nullptr) throw py::error_already_set();
  module.add_object("ResultError", py::handle(result_error));
  serialize_to_string = PyUnicode_InternFromString("SerializeToString");
  if (serialize_to_string == nullptr) throw py::error_already_set();
  module.def("run_generator", &RunGenerator, py::arg("call"), py::arg("iterator"), py::arg("response_class"));
}

}  // namespace mindserve::bindings
