#include <span>
#include <string>
#include <string_view>

#include "bindings/bindings.h"
#include "wire/json_reply.h"
#include "wire/json_request.h"

namespace py = pybind11;

namespace mindserve::bindings {
namespace {

std::string_view View(const py::bytes& bytes) {
  return {PyBytes_AS_STRING(bytes.ptr()), static_cast<size_t>(PyBytes_GET_SIZE(bytes.ptr()))};
}

py::bytes ToBytes(Result<std::string> result) {
  return py::bytes(Unwrap(std::move(result)));
}

}  // namespace

void RegisterJson(py::module_& module) {
  // bytes don't change, and the caller's argument keeps them: they may be read without the GIL.
  module.def(
      "predict_request_from_json",
      [](const py::bytes& body, const std::string& servable, const std::string& method, uint64_t version) {
        const std::string_view text = View(body);
        Result<std::string> request = [&] {
          py::gil_scoped_release release;
          return wire::PredictRequestFromJson(text, {servable, method, version});
        }();
        return ToBytes(std::move(request));
      },
      py::arg("body"), py::arg("servable"), py::arg("method"), py::arg("version"));
  module.def(
      "predict_reply_to_json",
      [](const py::bytes& reply) {
        const std::span<const std::byte> bytes = std::as_bytes(std::span(View(reply)));
        Result<std::string> json = [&] {
          py::gil_scoped_release release;
          return wire::PredictReplyToJson(bytes);
        }();
        return ToBytes(std::move(json));
      },
      py::arg("reply"));
}

}  // namespace mindserve::bindings
