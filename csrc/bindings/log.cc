#include "base/log.h"

#include <pybind11/stl.h>

#include <memory>
#include <string>

#include "bindings/bindings.h"

namespace py = pybind11;

namespace mindserve::bindings {
namespace {

// A Python callable that native threads may hold and drop. Shared by the copies of the sink.
class PythonSink {
 public:
  explicit PythonSink(py::function sink) : sink_(std::move(sink)) {}
  ~PythonSink() {
    if (Py_IsInitialized() == 0) {
      sink_.release();
      return;
    }
    py::gil_scoped_acquire gil;
    sink_ = py::function();
  }
  void operator()(LogLevel level, std::string_view message) const {
    if (Py_IsInitialized() == 0) return;
    py::gil_scoped_acquire gil;
    try {
      py::object text = py::reinterpret_steal<py::object>(
          PyUnicode_DecodeUTF8(message.data(), static_cast<Py_ssize_t>(message.size()), "replace"));
      sink_(static_cast<int>(level), text);
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable("the log sink");
    }
  }

 private:
  py::function sink_;
};

}  // namespace

void RegisterLog(py::module_& module) {
  module.def(
      "set_log_sink",
      [](std::optional<py::function> sink) {
        LogSink native;
        if (sink) {
          auto shared = std::make_shared<const PythonSink>(*std::move(sink));
          native = [shared](LogLevel level, std::string_view message) { (*shared)(level, message); };
        }
        // The old sink may be in use by a thread that waits for the GIL.
        py::gil_scoped_release release;
        SetLogSink(std::move(native));
      },
      py::arg("sink").none(true));
  module.def("set_log_level", [](int level) {
    if (level < 0) level = 0;
    SetLogLevel(static_cast<LogLevel>(level));
  });
}

}  // namespace mindserve::bindings
