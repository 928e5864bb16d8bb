#include "bindings/local_methods.h"

#include <algorithm>
#include <utility>

#include "bindings/bindings.h"

namespace py = pybind11;

namespace mindserve::bindings {
namespace {

// Later deadlines are none.
constexpr double kNoDeadlineSeconds = 1e9;
// So many arrays that calls looked at are let go of after each.
constexpr size_t kClearedPerCall = 64;

bool IsSequence(py::handle value) {
  return PyTuple_Check(value.ptr()) || PyList_Check(value.ptr());
}

pipeline::LocalCaller CallerOf(const CallTerms& terms) {
  pipeline::LocalCaller caller = pipeline::CallerScope::current();
  if (caller.in_stage) return caller;
  caller.client = terms.client;
  caller.origin = terms.origin;
  if (terms.deadline < kNoDeadlineSeconds) {
    caller.deadline = TimePoint(std::chrono::duration_cast<Duration>(std::chrono::duration<double>(terms.deadline)));
  }
  return caller;
}

}  // namespace

void LocalMethod::Fail(Code code, const std::string& text) const {
  Raise({code, prefix_ + text});
  std::abort();  // not reached: the code is none of success
}

void LocalMethod::ReadInstance(py::handle instance, size_t index, Keep keep, Arguments* into) const {
  const bool list = PyList_Check(instance.ptr());
  const auto count = static_cast<size_t>(list ? PyList_GET_SIZE(instance.ptr()) : PyTuple_GET_SIZE(instance.ptr()));
  if (count != inputs_) {
    Fail(Code::kInvalidArgument, "The inputs count " + std::to_string(count) + " of instance " + std::to_string(index) +
                                     " is not equal to the inputs count " + std::to_string(inputs_) + " of the model");
  }
  for (size_t i = 0; i < count; ++i) {
    const auto at = static_cast<Py_ssize_t>(i);
    // Its own share: what a conversion runs may change the list.
    const auto value = py::reinterpret_borrow<py::object>(
        list ? (at < PyList_GET_SIZE(instance.ptr()) ? PyList_GET_ITEM(instance.ptr(), at) : Py_None)
             : PyTuple_GET_ITEM(instance.ptr(), at));
    auto tensor = values_.FromPython(value, keep);
    if (!tensor.ok()) {
      Fail(Code::kInvalidArgument,
           "input " + std::to_string(i) + " of instance " + std::to_string(index) + ": " + tensor.status().message());
    }
    into->inputs.push_back(*std::move(tensor));
  }
}

LocalMethod::Arguments LocalMethod::Read(const py::tuple& arguments, Keep keep) const {
  Arguments read;
  if (arguments.empty()) {
    Fail(Code::kInvalidArgument,
         "no inputs provided, the inputs can be call(x1, x2) for one instance or call([[x1, x2], [x1, x2]]) for many");
  }
  const py::handle first = PyTuple_GET_ITEM(arguments.ptr(), 0);
  if (arguments.size() == 1 && IsSequence(first)) read.form = Form::kMany;
  if (read.form == Form::kOne) {
    read.inputs.reserve(inputs_);
    ReadInstance(arguments, 0, keep, &read);
    return read;
  }
  // A tuple of our own: see ReadInstance.
  const auto instances = py::reinterpret_steal<py::tuple>(PySequence_Tuple(first.ptr()));
  if (!instances) throw py::error_already_set();
  read.instances = instances.size();
  if (read.instances == 0) Fail(Code::kInvalidArgument, "Input instances count is 0");
  if (read.instances > UINT32_MAX) Fail(Code::kInvalidArgument, "too many instances");
  for (size_t i = 0; i < read.instances; ++i) {
    const py::handle instance = PyTuple_GET_ITEM(instances.ptr(), static_cast<Py_ssize_t>(i));
    if (!IsSequence(instance)) {
      Fail(Code::kInvalidArgument, "inputs format invalid, instance " + std::to_string(i) + " is of type '" +
                                       TypeName(instance) +
                                       "', the inputs can be call(x1, x2) for one instance or "
                                       "call([[x1, x2], [x1, x2]]) for many");
    }
  }
  read.inputs.reserve(read.instances * inputs_);
  for (size_t i = 0; i < read.instances; ++i) {
    ReadInstance(PyTuple_GET_ITEM(instances.ptr(), static_cast<Py_ssize_t>(i)), i, keep, &read);
  }
  return read;
}

py::object LocalMethod::Call(const py::tuple& arguments, const CallTerms& terms) {
  const pipeline::LocalCaller caller = CallerOf(terms);
  // Who goes when the deadline comes may write to its arrays while the model still reads them: those are copied.
  return Run(Read(arguments, caller.deadline == kNever ? Keep::kWhileUsed : Keep::kCopy), caller);
}

py::object LocalMethod::CallWith(std::vector<Tensor> inputs, const CallTerms& terms) {
  return Run({.inputs = std::move(inputs), .form = Form::kViews}, CallerOf(terms));
}

py::object LocalMethod::Run(Arguments arguments, const pipeline::LocalCaller& caller) {
  const auto call = std::make_shared<pipeline::LocalCall>(
      pipeline::LocalCall::Terms{
          .method = method_, .instances = arguments.instances, .outputs = outputs_, .caller = caller},
      std::move(arguments.inputs));
  Status status;
  {
    py::gil_scoped_release release;
    status = engine_.Start(call);
    handlers_.BeginBlocked();
    if (status.ok() && caller.deadline == kNever) {
      call->Wait();
    } else if (status.ok() && !call->WaitFor(caller.deadline - SystemTime().Now())) {
      engine_.CancelCall(call);
      status = Status(Code::kDeadlineExceeded, "the deadline passed before it was done");
    }
    handlers_.EndBlocked();
  }
  graveyard_.Clear(kClearedPerCall);
  if (!status.ok()) Fail(status.code(), status.message());
  return Result(*call, arguments.form);
}

PendingCall LocalMethod::Start(const py::tuple& arguments, std::shared_ptr<pipeline::DoneCalls> done, uint64_t tag,
                               const CallTerms& terms) {
  return Begin(Read(arguments, Keep::kCopy), std::move(done), tag, CallerOf(terms));
}

PendingCall LocalMethod::StartWith(std::vector<Tensor> inputs, std::shared_ptr<pipeline::DoneCalls> done, uint64_t tag,
                                   const CallTerms& terms) {
  return Begin({.inputs = std::move(inputs), .form = Form::kViews}, std::move(done), tag, CallerOf(terms));
}

PendingCall LocalMethod::Begin(Arguments arguments, std::shared_ptr<pipeline::DoneCalls> done, uint64_t tag,
                               const pipeline::LocalCaller& caller) {
  auto call = std::make_shared<pipeline::LocalCall>(pipeline::LocalCall::Terms{.method = method_,
                                                                               .instances = arguments.instances,
                                                                               .outputs = outputs_,
                                                                               .caller = caller,
                                                                               .done = std::move(done),
                                                                               .tag = tag},
                                                    std::move(arguments.inputs));
  const Status status = engine_.Start(call);
  if (!status.ok()) Fail(status.code(), status.message());
  return {*this, std::move(call), arguments.form};
}

py::tuple LocalMethod::Outputs(pipeline::LocalCall& call, size_t instance, Give give) const {
  const auto outputs = call.outputs(instance);
  py::tuple values(outputs.size());
  for (size_t i = 0; i < outputs.size(); ++i) values[i] = values_.ToPython(outputs[i], give);
  return values;
}

py::object LocalMethod::Result(pipeline::LocalCall& call, Form form) const {
  if (!call.status().ok()) {
    const std::string which = form == Form::kMany ? "instance " + std::to_string(call.failed()) + ": " : "";
    Fail(call.status().code(), which + call.status().message());
  }
  if (form == Form::kViews) return Outputs(call, 0, Give::kView);
  if (form == Form::kOne) {
    if (outputs_ == 1) return values_.ToPython(call.outputs(0)[0], Give::kOwn);
    return Outputs(call, 0, Give::kOwn);
  }
  py::list results(call.instances());
  for (size_t i = 0; i < call.instances(); ++i) results[i] = Outputs(call, i, Give::kOwn);
  return results;
}

py::object PendingCall::Result() const {
  return method_.Result(*call_, form_);
}

void PendingCall::Cancel() const {
  method_.engine_.CancelCall(call_);
}

void RegisterLocalMethods(py::module_& module) {
  py::class_<pipeline::DoneCalls, std::shared_ptr<pipeline::DoneCalls>>(module, "DoneCalls")
      .def(py::init([] { return Unwrap(pipeline::DoneCalls::Create()); }))
      .def("fd", &pipeline::DoneCalls::fd)
      .def("take", [](pipeline::DoneCalls& self) {
        std::vector<std::shared_ptr<pipeline::LocalCall>> calls;
        self.Take(&calls);
        py::list tags(calls.size());
        for (size_t i = 0; i < calls.size(); ++i) tags[i] = calls[i]->tag();
        return tags;
      });
  py::class_<PendingCall>(module, "PendingCall")
      .def("result", &PendingCall::Result)
      .def("cancel", &PendingCall::Cancel);
  py::class_<LocalMethod>(module, "LocalMethod")
      .def(
          "call",
          [](LocalMethod& self, const py::tuple& arguments, double deadline, uint64_t client) {
            return self.Call(arguments, {deadline, client});
          },
          py::arg("arguments"), py::arg("deadline") = CallTerms().deadline, py::arg("client") = 0)
      .def(
          "start",
          [](LocalMethod& self, const py::tuple& arguments, std::shared_ptr<pipeline::DoneCalls> done, uint64_t tag,
             double deadline,
             uint64_t client) { return self.Start(arguments, std::move(done), tag, {deadline, client}); },
          py::keep_alive<0, 1>(), py::arg("arguments"), py::arg("done"), py::arg("tag"),
          py::arg("deadline") = CallTerms().deadline, py::arg("client") = 0);
}

}  // namespace mindserve::bindings
