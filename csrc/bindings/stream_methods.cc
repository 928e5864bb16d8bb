#include "bindings/stream_methods.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>

#include "bindings/bindings.h"
#include "bindings/functions.h"
#include "bindings/service_call.h"
#include "wire/predict.h"

namespace py = pybind11;

namespace mindserve::bindings {
namespace {

std::string_view ViewOf(const py::bytes& bytes) {
  return {PyBytes_AS_STRING(bytes.ptr()), static_cast<size_t>(PyBytes_GET_SIZE(bytes.ptr()))};
}

// The code of a NativeError; INTERNAL for another one.
Code CodeOf(const py::object& error) {
  const std::string name = ToUtf8(py::str(error.attr("code")));
  for (int code = 0; code < kCodeCount; ++code) {
    if (CodeName(static_cast<Code>(code)) == name) return static_cast<Code>(code);
  }
  return Code::kInternal;
}

// What a ServiceCall says of itself; of anything else nothing is known.
std::shared_ptr<const pipeline::RequestOrigin> OriginOf(py::handle object) {
  const worker::ServiceCall* call = AsServiceCall(object.ptr());
  if (call == nullptr) return nullptr;
  const wire::CallHead head = call->head();
  return std::make_shared<const pipeline::RequestOrigin>(pipeline::RequestOrigin{
      .request_id = std::string(head.request_id), .depth = head.depth, .callers = head.callers, .call = call->tag()});
}

}  // namespace

std::vector<Tensor> StreamMethod::Read(const py::bytes& request) const {
  // The tensors look into the request, which nobody can change.
  PyObject* kept = py::object(request).release().ptr();
  const TensorOwner owner(kept, [graveyard = graveyard_](PyObject* object) { graveyard->Bury(object); });
  wire::InstanceReader reader(std::as_bytes(std::span(ViewOf(request))), spec_.inputs, owner);
  std::vector<Tensor> inputs;
  if (!reader.Next()) {
    Raise(reader.status());
    Raise({Code::kInvalidArgument, "instances count is 0, expected one"});
  }
  Raise(reader.Read(&inputs));
  if (reader.Next()) Raise({Code::kInvalidArgument, "there are several instances, expected one"});
  return inputs;
}

py::object StreamMethod::Call(const py::bytes& request, const CallTerms& terms) {
  std::vector<Tensor> inputs = Read(request);
  if (stages_ != nullptr) return stages_->CallWith(std::move(inputs), terms);
  py::tuple values(spec_.arguments.size());
  for (size_t i = 0; i < values.size(); ++i) values[i] = values_.ToPython(inputs[spec_.arguments[i]], Give::kView);
  return values;
}

PendingCall StreamMethod::Start(const py::bytes& request, std::shared_ptr<pipeline::DoneCalls> done, uint64_t tag,
                                const CallTerms& terms) {
  if (stages_ == nullptr) Raise({Code::kFailedPrecondition, "the method has no other stages"});
  return stages_->StartWith(Read(request), std::move(done), tag, terms);
}

py::bytes StreamMethod::Encode(const py::object& item) const {
  // The arrays are looked at until this returns.
  auto given = OutputsOf(item, spec_.items, values_, Keep::kWhileUsed);
  if (!given.ok()) Raise(FunctionFailed(spec_.function, given.status().message()));
  wire::InstanceReply reply;
  reply.outputs.reserve(spec_.order.size());
  for (const size_t at : spec_.order) reply.outputs.push_back((*given)[at]);
  const wire::ReplyWriter writer(spec_.outputs, std::span(&reply, 1));
  auto message =
      py::reinterpret_steal<py::bytes>(PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(writer.size())));
  if (!message) throw py::error_already_set();
  writer.WriteTo(std::as_writable_bytes(std::span(PyBytes_AS_STRING(message.ptr()), writer.size())));
  return message;
}

py::bytes StreamMethod::Failed(const py::object& error, bool invalid_input) const {
  Status status;
  if (py::isinstance(error, NativeErrorType())) {
    status = Status(CodeOf(error), ToUtf8(py::str(error)));
  } else if (invalid_input) {
    status = InputRefused(spec_.function, error);
  } else {
    status = FunctionFailed(spec_.function, Describe(error));
  }
  std::string text = status.message();
  if (!spec_.tag.empty()) text = spec_.tag + ": " + text;
  const std::string reply = wire::ErrorReply("", wire::ErrorCodeOf(status.code()), text);
  return {reply.data(), reply.size()};
}

void RegisterStreamMethods(py::module_& module) {
  const double never = CallTerms().deadline;
  py::class_<StreamMethod>(module, "StreamMethod")
      .def_property_readonly("has_stages", &StreamMethod::has_stages)
      .def(
          "call",
          [](StreamMethod& self, const py::bytes& request, double deadline, uint64_t client, py::handle call) {
            return self.Call(request, {deadline, client, OriginOf(call)});
          },
          py::arg("request"), py::arg("deadline") = never, py::arg("client") = 0, py::arg("call") = py::none())
      .def(
          "start",
          [](StreamMethod& self, const py::bytes& request, std::shared_ptr<pipeline::DoneCalls> done, uint64_t tag,
             double deadline, uint64_t client,
             py::handle call) { return self.Start(request, std::move(done), tag, {deadline, client, OriginOf(call)}); },
          py::keep_alive<0, 1>(), py::arg("request"), py::arg("done"), py::arg("tag"), py::arg("deadline") = never,
          py::arg("client") = 0, py::arg("call") = py::none())
      .def("encode", &StreamMethod::Encode, py::arg("item"))
      .def("failed", &StreamMethod::Failed, py::arg("error"), py::kw_only(), py::arg("invalid_input"));
}

}  // namespace mindserve::bindings
