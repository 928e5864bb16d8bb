#include <string>

#include "bindings/bindings.h"

namespace py = pybind11;

namespace mindserve::bindings {
namespace {

// Carries a Status through pybind11's translation.
struct StatusException final : std::exception {
  explicit StatusException(Status failed) : status(std::move(failed)) {}
  const char* what() const noexcept override { return status.message().c_str(); }
  Status status;
};

PyObject* native_error = nullptr;  // one a process, as is the module; lives as long as it

}  // namespace

py::handle NativeErrorType() {
  return native_error;
}

void RegisterErrors(py::module_& module) {
  native_error = PyErr_NewExceptionWithDoc(
      "mindserve._native.NativeError", "A failure in the native core: args[0] is the text, code the gRPC status name.",
      PyExc_RuntimeError, nullptr);
  if (native_error == nullptr) throw py::error_already_set();
  module.add_object("NativeError", py::handle(native_error));
  py::register_local_exception_translator([](std::exception_ptr failed) {
    try {
      if (failed) std::rethrow_exception(failed);
    } catch (const StatusException& error) {
      // A message may hold bytes that are not UTF-8: a file's name, an engine's text.
      const std::string& message = error.status.message();
      py::object text = py::reinterpret_steal<py::object>(
          PyUnicode_DecodeUTF8(message.data(), static_cast<Py_ssize_t>(message.size()), "replace"));
      py::object instance = py::reinterpret_borrow<py::object>(native_error)(text);
      instance.attr("code") = py::str(std::string(CodeName(error.status.code())));
      PyErr_SetObject(native_error, instance.ptr());
    }
  });
}

void Raise(const Status& status) {
  if (!status.ok()) throw StatusException(status);
}

}  // namespace mindserve::bindings
