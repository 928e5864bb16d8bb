#include "worker/runtime.h"

#include <pybind11/stl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <ctime>
#include <map>
#include <memory>

#include "bindings/bindings.h"
#include "bindings/functions.h"
#include "bindings/local_methods.h"
#include "bindings/service_call.h"
#include "bindings/services.h"
#include "bindings/stream_methods.h"
#include "bindings/values.h"
#include "device/onnxruntime.h"

namespace py = pybind11;

namespace mindserve::bindings {
namespace {

// When so much of answered requests is still looked at by Python, functions get copies of their inputs.
constexpr size_t kRetainAtMost = size_t{64} << 20;

device::DeviceType ToDeviceType(const std::string& name) {
  for (const auto type : {device::DeviceType::kCpu, device::DeviceType::kGpu, device::DeviceType::kAscend}) {
    if (device::DeviceTypeName(type) == name) return type;
  }
  throw py::value_error("there is no device type '" + name + "'");
}

device::GraphOptimization ToOptimization(const std::string& name) {
  static const std::map<std::string, device::GraphOptimization> kNames = {
      {"off", device::GraphOptimization::kOff},
      {"basic", device::GraphOptimization::kBasic},
      {"extended", device::GraphOptimization::kExtended},
      {"all", device::GraphOptimization::kAll},
  };
  const auto found = kNames.find(name);
  if (found == kNames.end()) throw py::value_error("there is no graph optimisation level '" + name + "'");
  return found->second;
}

py::list Describe(const std::vector<device::TensorSpec>& specs) {
  py::list result;
  for (const device::TensorSpec& spec : specs) {
    const auto dims = spec.shape.dims();
    const std::string type = IsText(spec.dtype) ? "str" : std::string(Info(spec.dtype).numpy);
    result.append(py::make_tuple(spec.name, type, std::vector<int64_t>(dims.begin(), dims.end())));
  }
  return result;
}

// Functions of one instance are handed over as many at a time as run in about so long: enough that the handing over
// costs little, few enough that a client with few waits little for one with many.
constexpr Duration kTurn = std::chrono::milliseconds(1);

Duration ToDuration(double seconds) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

// The last words of a worker of which a stage hangs. A line of the log is written here and not by Python's logging: the
// stage may hold the GIL. `signal` is what faulthandler writes all threads' stacks at, on this thread, without the GIL.
[[noreturn]] void EndHung(const worker::HungStage& hung, const std::string& servable, int signal, int status) {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  std::tm local{};
  ::localtime_r(&now.tv_sec, &local);
  char time[64];
  const size_t length = std::strftime(time, sizeof(time), "%Y-%m-%d %H:%M:%S", &local);
  const std::string line = "[ERROR] " + std::string(time, length) + "." +
                           std::to_string(1000 + now.tv_nsec / 1000000).substr(1) + " mindserve.native: servable '" +
                           servable + "': " + hung.report + "; this process ends with status " +
                           std::to_string(status) + ", the stacks of its threads are:\n";
  for (size_t written = 0; written < line.size();) {
    const ssize_t wrote = ::write(STDERR_FILENO, line.data() + written, line.size() - written);
    if (wrote <= 0) break;
    written += static_cast<size_t>(wrote);
  }
  // Without somebody who takes it, the signal would be what ends the process.
  struct sigaction action{};
  if (::sigaction(signal, nullptr, &action) == 0 && action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN) {
    std::raise(signal);
  }
  ::_exit(status);
}

using StageTuple = std::tuple<std::string, int, std::vector<std::pair<int, int>>, int, std::string>;

// Of the Classifier: which outputs are predictions, classes, confidences and custom; and of a message's fields, which
// elements of which inputs they are: type, shape and repeated, and name, number, type, input and element.
using OutputsTuple = std::tuple<size_t, std::optional<size_t>, std::optional<size_t>, std::optional<size_t>>;
using FieldsTuple = std::pair<std::vector<std::tuple<std::string, std::vector<int64_t>, bool>>,
                              std::vector<std::tuple<std::string, uint32_t, int, size_t, size_t>>>;

// Of a message that a function takes: the stages and results of its method, whether it takes the request, and whether
// the message has single numbers alone.
using HandledTuple = std::tuple<std::vector<StageTuple>, std::vector<std::pair<int, int>>, bool, bool>;

DType ToDType(const std::string& name) {
  if (name == "str") return DType::kString;
  if (name == "bytes") return DType::kBytes;
  const auto found = std::ranges::find(kDTypes, name, &DTypeInfo::numpy);
  if (found == kDTypes.end() || name.empty()) throw py::value_error("there is no type '" + name + "'");
  return found->dtype;
}

wire::FieldMap ToFieldMap(const FieldsTuple& tuple) {
  std::vector<wire::MappedInput> inputs;
  for (const auto& [type, shape, repeated] : tuple.first) inputs.push_back({ToDType(type), Shape(shape), repeated});
  std::vector<wire::MappedField> fields;
  for (const auto& [name, number, type, input, element] : tuple.second) {
    fields.push_back({name, number, static_cast<wire::FieldType>(type), input, element});
  }
  return Unwrap(wire::FieldMap::Create(std::move(inputs), std::move(fields)));
}

class PythonRuntime {
 public:
  explicit PythonRuntime(worker::RuntimeOptions options)
      : runtime_(std::make_unique<worker::Runtime>(time_, std::move(options))),
        graveyard_(std::make_shared<Graveyard>()),
        values_(graveyard_),
        services_(runtime_->handlers(), graveyard_) {}
  PythonRuntime(const PythonRuntime&) = delete;
  PythonRuntime& operator=(const PythonRuntime&) = delete;
  ~PythonRuntime() {
    // Without the GIL: the models' threads, which are waited for, may be logging, for which they need it.
    py::gil_scoped_release release;
    runtime_.reset();
    models_.clear();
    engine_.reset();
  }

  std::vector<std::string> OpenOnnxRuntime(const std::string& library) {
    auto engine = [&] {
      py::gil_scoped_release release;
      return device::OpenOnnxRuntime(library);
    }();
    engine_ = Unwrap(std::move(engine));
    std::vector<std::string> names;
    for (const auto type : engine_->DeviceTypes()) names.emplace_back(device::DeviceTypeName(type));
    return names;
  }

  int LoadModel(const std::string& path, const device::DeviceConfig& config, pipeline::ModelOptions options) {
    if (!engine_) Raise({Code::kFailedPrecondition, "open_onnxruntime comes before load_model"});
    auto loaded = [&] {
      py::gil_scoped_release release;
      return engine_->Load(path, config);
    }();
    std::shared_ptr<device::Model> model = Unwrap(std::move(loaded));
    const int index = Unwrap(runtime_->engine().AddModel(model, std::move(options)));
    models_.push_back(std::move(model));
    return index;
  }

  const device::Model& model(int index) const { return *models_.at(static_cast<size_t>(index)); }

  std::string WarmUp(int index) {
    const Status status = [&] {
      py::gil_scoped_release release;
      return runtime_->engine().WarmUp(index);
    }();
    if (status.code() == Code::kFailedPrecondition) return status.message();
    Raise(status);
    return "";
  }

  int AddFunction(std::string name, py::function function, bool batched, size_t max_batch_size, int64_t delay_us,
                  double timeout, py::object invalid_input, py::object refusal) {
    const int index = runtime_->engine().AddFunction({.name = name,
                                                      .max_batch_size = max_batch_size,
                                                      .max_queue_delay = std::chrono::microseconds(delay_us),
                                                      .same_shapes = batched,
                                                      .turn = batched ? Duration::zero() : kTurn,
                                                      .timeout = ToDuration(timeout)});
    functions_.push_back(std::make_unique<StageFunction>(std::move(name), std::move(function), batched,
                                                         std::move(invalid_input), std::move(refusal)));
    return index;
  }

  std::unique_ptr<LocalMethod> AddLocalMethod(pipeline::MethodSpec spec, std::string prefix) {
    const int index = Unwrap(runtime_->engine().AddLocalMethod(std::move(spec)));
    return std::make_unique<LocalMethod>(runtime_->engine(), runtime_->handlers(), values_, *graveyard_, index,
                                         std::move(prefix));
  }

  // `stages`: what is done before; without any, null.
  std::unique_ptr<StreamMethod> AddStreamMethod(StreamMethod::Spec spec, pipeline::MethodSpec stages) {
    std::unique_ptr<LocalMethod> before;
    if (!stages.stages.empty()) before = AddLocalMethod(std::move(stages), "");
    return std::make_unique<StreamMethod>(std::move(spec), std::move(before), values_, graveyard_);
  }

  int AddMethod(pipeline::MethodSpec spec) { return Unwrap(runtime_->engine().AddMethod(std::move(spec))); }

  static pipeline::MethodSpec ToMethodSpec(std::string name, std::vector<std::string> inputs,
                                           std::vector<std::string> outputs, const std::vector<StageTuple>& stages,
                                           const std::vector<std::pair<int, int>>& results, bool idempotent) {
    pipeline::MethodSpec spec;
    spec.name = std::move(name);
    spec.inputs = std::move(inputs);
    spec.outputs = std::move(outputs);
    spec.idempotent = idempotent;
    for (const auto& [kind, target, stage_inputs, outputs_count, tag] : stages) {
      pipeline::StageSpec& stage = spec.stages.emplace_back();
      if (kind != "function" && kind != "model") throw py::value_error("a stage is a 'function' or a 'model'");
      stage.kind = kind == "model" ? pipeline::StageSpec::Kind::kModel : pipeline::StageSpec::Kind::kFunction;
      stage.target = target;
      for (const auto& [from, at] : stage_inputs) stage.inputs.push_back({from, at});
      stage.outputs_count = outputs_count;
      stage.tag = tag;
    }
    for (const auto& [from, at] : results) spec.results.push_back({from, at});
    return spec;
  }

  void SetClassifier(int method, const std::string& model_name, wire::ClassificationOutputs outputs,
                     const std::map<std::string, FieldsTuple>& fields,
                     const std::map<std::string, HandledTuple>& handlers) {
    const pipeline::MethodSpec& spec = runtime_->engine().method(method);
    worker::Classifier classifier(method, spec.inputs, std::move(outputs), model_name);
    for (const auto& [type, tuple] : fields) classifier.AddFields(type, ToFieldMap(tuple));
    for (const auto& [type, tuple] : handlers) {
      const auto& [stages, results, takes_request, fixed] = tuple;
      std::vector<std::string> inputs{"data"};
      if (takes_request) inputs = {"request", "puid"};
      auto handled =
          ToMethodSpec(spec.name + "/" + type, std::move(inputs), spec.outputs, stages, results, spec.idempotent);
      const int number = Unwrap(runtime_->engine().AddLocalMethod(std::move(handled)));
      classifier.AddHandler(type, {.number = number, .takes_request = takes_request, .fixed = fixed});
    }
    runtime_->SetClassifier(std::move(classifier));
  }

  void RunFunction(int index, py::object variable) {
    CurrentRequest current(std::move(variable));
    StageFunction& function = *functions_.at(static_cast<size_t>(index));
    pipeline::Engine& engine = runtime_->engine();
    std::unique_ptr<pipeline::FunctionBatch> batch;
    std::vector<pipeline::FunctionResult> results;
    while (true) {
      {
        py::gil_scoped_release release;
        if (batch) engine.Complete(std::move(batch), std::move(results));
        batch = engine.NextBatch(index);
      }
      if (!batch) return graveyard_->Clear();
      // More than a batch gives, so that they don't pile up.
      size_t outputs = 0;
      for (size_t i = 0; i < batch->size(); ++i) outputs += batch->outputs_count(i);
      graveyard_->Clear(64 + 2 * outputs);
      results = function.Run(*batch, values_, current, runtime_->retained_bytes() > kRetainAtMost);
    }
  }

  void Serve(int fd, double timeout) {
    UniqueFd socket(fd);
    const auto limit = std::chrono::milliseconds(static_cast<int64_t>(std::ceil(timeout * 1000)));
    const Status status = [&] {
      py::gil_scoped_release release;
      return runtime_->Serve(std::move(socket), limit);
    }();
    Raise(status);
  }

  void Stop() { runtime_->Stop(); }

  ServiceHandlers& services() { return services_; }
  worker::Handlers& handlers() { return runtime_->handlers(); }

 private:
  SystemTime time_;
  std::unique_ptr<device::Engine> engine_;              // outlives the models
  std::vector<std::shared_ptr<device::Model>> models_;  // shared with the runtime's engine
  std::unique_ptr<worker::Runtime> runtime_;
  std::shared_ptr<Graveyard> graveyard_;  // shared with tensors that hold arrays
  Values values_;
  ServiceHandlers services_;
  std::vector<std::unique_ptr<StageFunction>> functions_;
};

}  // namespace

void RegisterRuntime(py::module_& module) {
  py::class_<PythonRuntime>(module, "Runtime")
      .def(py::init([](const std::string& servable, bool refuse_late, int hung_signal, int hung_status) {
             worker::RuntimeOptions options;
             options.refuse_late = refuse_late;
             if (hung_status != 0) {
               options.on_hung = [servable, hung_signal, hung_status](const worker::HungStage& hung) {
                 EndHung(hung, servable, hung_signal, hung_status);
               };
             }
             return std::make_unique<PythonRuntime>(std::move(options));
           }),
           py::arg("servable") = "", py::kw_only(), py::arg("refuse_late") = false, py::arg("hung_signal") = 0,
           py::arg("hung_status") = 0)
      .def("open_onnxruntime", &PythonRuntime::OpenOnnxRuntime, py::arg("library"))
      .def(
          "load_model",
          [](PythonRuntime& self, const std::string& path, std::string name, const std::string& device_type,
             int device_id, int intra_op_threads, int inter_op_threads, bool parallel, std::vector<int> affinity,
             bool fp16, const std::string& optimization, std::map<std::string, std::string> provider_options,
             bool with_batch_dim, std::vector<size_t> without_batch_dim_inputs, size_t max_batch_size,
             int64_t max_queue_delay_us, double timeout) {
            device::DeviceConfig config;
            config.type = ToDeviceType(device_type);
            config.device_id = device_id;
            config.intra_op_threads = intra_op_threads;
            config.inter_op_threads = inter_op_threads;
            config.parallel = parallel;
            config.affinity = std::move(affinity);
            config.fp16 = fp16;
            config.optimization = ToOptimization(optimization);
            config.provider_options = std::move(provider_options);
            pipeline::ModelOptions options;
            options.name = std::move(name);
            options.with_batch_dim = with_batch_dim;
            options.without_batch_dim_inputs = std::move(without_batch_dim_inputs);
            options.max_batch_size = max_batch_size;
            options.max_queue_delay = std::chrono::microseconds(max_queue_delay_us);
            options.timeout = ToDuration(timeout);
            return self.LoadModel(path, config, std::move(options));
          },
          py::arg("path"), py::kw_only(), py::arg("name"), py::arg("device_type"), py::arg("device_id") = 0,
          py::arg("intra_op_threads") = 0, py::arg("inter_op_threads") = 0, py::arg("parallel") = false,
          py::arg("affinity") = std::vector<int>{}, py::arg("fp16") = false, py::arg("optimization") = "all",
          py::arg("provider_options") = std::map<std::string, std::string>{}, py::arg("with_batch_dim") = true,
          py::arg("without_batch_dim_inputs") = std::vector<size_t>{}, py::arg("max_batch_size") = 32,
          py::arg("max_queue_delay_us") = 0, py::arg("timeout") = 0.0)
      .def("model_inputs", [](const PythonRuntime& self, int model) { return Describe(self.model(model).inputs()); })
      .def("model_outputs", [](const PythonRuntime& self, int model) { return Describe(self.model(model).outputs()); })
      .def("warm_up", &PythonRuntime::WarmUp, py::arg("model"))
      .def("add_function", &PythonRuntime::AddFunction, py::arg("name"), py::arg("function"), py::kw_only(),
           py::arg("batched"), py::arg("max_batch_size") = 32, py::arg("max_queue_delay_us") = 0,
           py::arg("timeout") = 0.0, py::arg("invalid_input") = py::none(), py::arg("refusal") = py::none())
      .def(
          "add_method",
          [](PythonRuntime& self, std::string name, std::vector<std::string> inputs, std::vector<std::string> outputs,
             const std::vector<StageTuple>& stages, const std::vector<std::pair<int, int>>& results, bool idempotent) {
            return self.AddMethod(PythonRuntime::ToMethodSpec(std::move(name), std::move(inputs), std::move(outputs),
                                                              stages, results, idempotent));
          },
          py::arg("name"), py::arg("inputs"), py::arg("outputs"), py::arg("stages"), py::arg("results"), py::kw_only(),
          py::arg("idempotent") = true)
      .def(
          "add_local_method",
          [](PythonRuntime& self, std::string name, std::vector<std::string> inputs, std::vector<std::string> outputs,
             const std::vector<StageTuple>& stages, const std::vector<std::pair<int, int>>& results, bool idempotent,
             std::string prefix) {
            return self.AddLocalMethod(PythonRuntime::ToMethodSpec(std::move(name), std::move(inputs),
                                                                   std::move(outputs), stages, results, idempotent),
                                       std::move(prefix));
          },
          py::keep_alive<0, 1>(), py::arg("name"), py::arg("inputs"), py::arg("outputs"), py::arg("stages"),
          py::arg("results"), py::kw_only(), py::arg("idempotent") = true, py::arg("prefix") = "")
      .def(
          "add_stream_method",
          [](PythonRuntime& self, std::string name, std::vector<std::string> inputs, std::vector<std::string> outputs,
             const std::vector<StageTuple>& stages, const std::vector<std::pair<int, int>>& arguments,
             std::string function, size_t items, std::vector<size_t> order, std::string tag, bool idempotent) {
            if (outputs.size() != order.size() || std::ranges::any_of(order, [&](size_t at) { return at >= items; })) {
              throw py::value_error("order= says which of the function's outputs each output is");
            }
            std::vector<size_t> taken;
            for (const auto& [from, at] : arguments) {
              if (!stages.empty()) break;
              if (from != pipeline::ValueRef::kMethodInput || at < 0 || static_cast<size_t>(at) >= inputs.size()) {
                throw py::value_error("without other stages, arguments= are inputs of the method");
              }
              taken.push_back(static_cast<size_t>(at));
            }
            std::vector<std::string> places;
            for (size_t i = 0; i < arguments.size(); ++i) places.push_back(std::to_string(i));
            auto before =
                PythonRuntime::ToMethodSpec(std::move(name), inputs, std::move(places), stages, arguments, idempotent);
            return self.AddStreamMethod({.function = std::move(function),
                                         .tag = std::move(tag),
                                         .inputs = std::move(inputs),
                                         .arguments = std::move(taken),
                                         .outputs = std::move(outputs),
                                         .items = items,
                                         .order = std::move(order)},
                                        std::move(before));
          },
          py::keep_alive<0, 1>(), py::arg("name"), py::arg("inputs"), py::arg("outputs"), py::arg("stages"),
          py::arg("arguments"), py::kw_only(), py::arg("function"), py::arg("items"), py::arg("order"),
          py::arg("tag") = "", py::arg("idempotent") = true)
      .def(
          "set_classifier",
          [](PythonRuntime& self, int method, const std::string& model_name, const OutputsTuple& outputs,
             std::vector<std::string> classes, std::string custom_type,
             const std::map<std::string, FieldsTuple>& fields, const std::map<std::string, HandledTuple>& handlers) {
            wire::ClassificationOutputs map;
            std::tie(map.prediction, map.predicted_class, map.confidence, map.custom) = outputs;
            map.classes = std::move(classes);
            map.custom_type = std::move(custom_type);
            self.SetClassifier(method, model_name, std::move(map), fields, handlers);
          },
          py::arg("method"), py::kw_only(), py::arg("model_name"), py::arg("outputs"), py::arg("classes"),
          py::arg("custom_type"), py::arg("fields"), py::arg("handlers"))
      .def("run_function", &PythonRuntime::RunFunction, py::arg("function"), py::arg("current"))
      .def(
          "begin_call",
          [](PythonRuntime& self, const py::object& request) {
            self.handlers().BeginCall(AsServiceCall(request.ptr()));
          },
          py::arg("request"))
      .def(
          "end_call",
          [](PythonRuntime& self, const py::object& request) { self.handlers().EndCall(AsServiceCall(request.ptr())); },
          py::arg("request"))
      .def(
          "add_handler",
          [](PythonRuntime& self, std::string path, bool idempotent, bool client_streaming, bool server_streaming,
             bool on_loop, const py::object& unary) {
            return self.services().Add({.path = std::move(path),
                                        .idempotent = idempotent,
                                        .client_streaming = client_streaming,
                                        .server_streaming = server_streaming,
                                        .on_loop = on_loop},
                                       unary);
          },
          py::arg("path"), py::kw_only(), py::arg("idempotent") = false, py::arg("client_streaming") = false,
          py::arg("server_streaming") = false, py::arg("on_loop") = false, py::arg("unary") = py::none())
      .def(
          "run_handlers",
          [](PythonRuntime& self, const py::function& dispatch, const py::function& on_error, const py::object& current,
             bool extra) { self.services().Run(dispatch, on_error, current, extra); },
          py::arg("dispatch"), py::arg("on_error"), py::arg("current"), py::kw_only(), py::arg("extra") = false)
      .def(
          "await_needs", [](PythonRuntime& self, bool stuck) { return self.services().AwaitNeeds(stuck); },
          py::arg("stuck"))
      .def(
          "threads_failed", [](PythonRuntime& self, size_t count) { self.handlers().ThreadsFailed(count); },
          py::arg("count"))
      .def("held_handlers", [](PythonRuntime& self) { return self.services().Held(); })
      .def("loop_fd", [](PythonRuntime& self) { return self.handlers().loop_fd(); })
      .def("take_loop_events", [](PythonRuntime& self) { return self.services().TakeLoopEvents(); })
      .def(
          "set_model",
          [](PythonRuntime& self, std::string model_id, bool loaded) {
            self.handlers().SetModel(std::move(model_id), loaded);
          },
          py::arg("model_id"), py::arg("loaded"))
      .def("serve", &PythonRuntime::Serve, py::arg("link_fd"), py::arg("timeout"))
      .def("stop", &PythonRuntime::Stop, py::call_guard<py::gil_scoped_release>());
}

}  // namespace mindserve::bindings
