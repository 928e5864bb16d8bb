#include "device/onnxruntime.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <system_error>
#include <utility>

#include "base/log.h"
#include "device/ort_api.h"
#include "device/ort_options.h"

namespace mindserve::device {
namespace {

namespace fs = std::filesystem;
using ort::Owned;

Status Prefixed(const std::string& prefix, const Status& status) {
  return {status.code(), prefix + status.message()};
}

void LogLine(void*, ort::LogSeverity severity, const char*, const char*, const char*, const char* message) {
  LogLevel level = LogLevel::kDebug;
  if (severity == ort::LogSeverity::kWarning) level = LogLevel::kWarning;
  if (severity >= ort::LogSeverity::kError) level = LogLevel::kError;
  try {
    if (LogEnabled(level)) Log(level, std::string("ONNX Runtime: ") + (message == nullptr ? "" : message));
  } catch (...) {
    // A line that can't be logged is lost; an exception must not run through the library's frames.
  }
}

// The loaded library and its environment. Shared by the engine, its models, and the outputs of their runs.
class Library {
 public:
  Library(std::string path_, std::string version_, uint32_t api_version, const void* const* table)
      : path(std::move(path_)), version(std::move(version_)), api(table, api_version) {}
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  Status Start() {
    // The library's informational lines are many for each session: they are for debugging.
    const auto severity = LogEnabled(LogLevel::kDebug) ? ort::LogSeverity::kInfo : ort::LogSeverity::kWarning;
    auto made_env = Make<ort::Env>(api.CreateEnvWithCustomLogger, LogLine, nullptr, severity, "mindserve");
    if (!made_env.ok()) return made_env.status();
    env = *std::move(made_env);
    auto made_cpu =
        Make<ort::MemoryInfo>(api.CreateCpuMemoryInfo, ort::AllocatorType::kArena, ort::MemoryType::kDefault);
    if (!made_cpu.ok()) return made_cpu.status();
    cpu = *std::move(made_cpu);
    MS_RETURN_IF_ERROR(Check(api.GetAllocatorWithDefaultOptions(&allocator)));
    return ReadProviders();
  }

  Status Check(ort::StatusObject* raw) const {
    if (raw == nullptr) return {};
    const Owned<ort::StatusObject> status(raw, {&api});
    std::string_view message = api.GetErrorMessage(raw);
    while (message.ends_with('\n')) message.remove_suffix(1);
    return {CodeOf(api.GetErrorCode(raw)), std::string(message)};
  }

  // Calls a function whose last parameter gives an object that the caller owns.
  template <typename T, typename Create, typename... Args>
  Result<Owned<T>> Make(Create create, Args... args) const {
    T* raw = nullptr;
    MS_RETURN_IF_ERROR(Check(create(args..., &raw)));
    return Owned<T>(raw, {&api});
  }

  const std::string path;
  const std::string version;
  const ort::Api api;
  Owned<ort::Env> env;
  Owned<ort::MemoryInfo> cpu;
  ort::Allocator* allocator = nullptr;  // the library's own
  std::vector<DeviceType> device_types;

 private:
  static Code CodeOf(ort::ErrorCode code) {
    switch (code) {
      case ort::ErrorCode::kInvalidArgument:
      case ort::ErrorCode::kBadProtobuf:
      case ort::ErrorCode::kBadGraph:
        return Code::kInvalidArgument;
      case ort::ErrorCode::kNoSuchFile:
        return Code::kNotFound;
      case ort::ErrorCode::kNotImplemented:
        return Code::kUnimplemented;
      case ort::ErrorCode::kProviderFailed:
        return Code::kFailedPrecondition;
    }
    return Code::kInternal;
  }

  Status ReadProviders() {
    char** names = nullptr;
    int32_t count = 0;
    MS_RETURN_IF_ERROR(Check(api.GetAvailableProviders(&names, &count)));
    auto has = [&](std::string_view name) { return std::find(names, names + count, name) != names + count; };
    if (has("CANNExecutionProvider")) device_types.push_back(DeviceType::kAscend);
    if (has("CUDAExecutionProvider")) device_types.push_back(DeviceType::kGpu);
    device_types.push_back(DeviceType::kCpu);
    return Check(api.ReleaseAvailableProviders(names, count));
  }
};

// -- Session options --

Status SetThreads(const Library& lib, ort::SessionOptions* options, const DeviceConfig& config) {
  const ort::Api& api = lib.api;
  if (config.intra_op_threads < 0 || config.inter_op_threads < 0) {
    return {Code::kInvalidArgument, "a number of threads is negative"};
  }
  // Idle threads must not spin: other workers and the gateway need the cores.
  for (const char* key : {"session.intra_op.allow_spinning", "session.inter_op.allow_spinning"}) {
    MS_RETURN_IF_ERROR(lib.Check(api.AddSessionConfigEntry(options, key, "0")));
  }
  int threads = config.intra_op_threads;
  if (!config.affinity.empty()) {
    if (threads == 0) threads = static_cast<int>(config.affinity.size());
    auto text = ort::AffinityText(config.affinity, threads);
    if (!text.ok()) return text.status();
    if (threads > 1) {
      MS_RETURN_IF_ERROR(
          lib.Check(api.AddSessionConfigEntry(options, "session.intra_op_thread_affinities", text->c_str())));
    }
  }
  if (threads > 0) MS_RETURN_IF_ERROR(lib.Check(api.SetIntraOpNumThreads(options, threads)));
  if (!config.parallel) return {};
  MS_RETURN_IF_ERROR(lib.Check(api.SetSessionExecutionMode(options, ort::ExecutionMode::kParallel)));
  if (config.inter_op_threads == 0) return {};
  return lib.Check(api.SetInterOpNumThreads(options, config.inter_op_threads));
}

ort::OptimizationLevel LevelOf(GraphOptimization optimization) {
  switch (optimization) {
    case GraphOptimization::kOff:
      return ort::OptimizationLevel::kOff;
    case GraphOptimization::kBasic:
      return ort::OptimizationLevel::kBasic;
    case GraphOptimization::kExtended:
      return ort::OptimizationLevel::kExtended;
    case GraphOptimization::kAll:
      break;
  }
  return ort::OptimizationLevel::kAll;
}

template <typename T, typename Create, typename Update, typename Append>
Status AppendProvider(const Library& lib, ort::SessionOptions* session, const DeviceConfig& config, Create create,
                      Update update, Append append) {
  auto unusable = [&](const Status& status) {
    return Status(Code::kFailedPrecondition, "ONNX Runtime " + lib.version + " can't use the device: " +
                                                 status.message() + "; " + std::string(ort::InstallHint(config.type)));
  };
  auto made = lib.Make<T>(create);
  if (!made.ok()) return unusable(made.status());
  std::vector<const char*> keys;
  std::vector<const char*> values;
  const auto options = ort::ProviderOptions(config);
  for (const auto& [key, value] : options) {
    keys.push_back(key.c_str());
    values.push_back(value.c_str());
  }
  const Status updated = lib.Check(update(made->get(), keys.data(), values.data(), keys.size()));
  // Fails for an option that the provider does not know, and for a device library that is missing, with one code.
  if (!updated.ok()) return unusable(updated);
  if (Status status = lib.Check(append(session, made->get())); !status.ok()) return unusable(status);
  return {};
}

Status AppendDevice(const Library& lib, ort::SessionOptions* session, const DeviceConfig& config) {
  const ort::Api& api = lib.api;
  if (config.fp16 && config.type != DeviceType::kAscend) {
    Log(LogLevel::kWarning, "precision_mode fp16: on " + std::string(DeviceTypeName(config.type)) +
                                " ONNX Runtime computes in the types that the model has; convert the model to float16 "
                                "to make use of half precision");
  }
  if (config.type == DeviceType::kCpu) {
    if (config.provider_options.empty()) return {};
    return {Code::kInvalidArgument,
            "CPU has no options of its own, given '" + config.provider_options.begin()->first + "'"};
  }
  if (config.device_id < 0) {
    return {Code::kInvalidArgument, "the device id is " + std::to_string(config.device_id) + ", it should be >= 0"};
  }
  if (std::ranges::find(lib.device_types, config.type) == lib.device_types.end()) {
    return {Code::kFailedPrecondition, "ONNX Runtime " + lib.version + " at " + lib.path + " is a build without it; " +
                                           std::string(ort::InstallHint(config.type))};
  }
  if (config.type == DeviceType::kAscend) {
    return AppendProvider<ort::CannOptions>(lib, session, config, api.CreateCannOptions, api.UpdateCannOptions,
                                            api.AppendCann);
  }
  return AppendProvider<ort::CudaOptions>(lib, session, config, api.CreateCudaOptions, api.UpdateCudaOptions,
                                          api.AppendCuda);
}

Result<Owned<ort::SessionOptions>> MakeOptions(const Library& lib, const DeviceConfig& config) {
  auto made = lib.Make<ort::SessionOptions>(lib.api.CreateSessionOptions);
  if (!made.ok()) return made;
  ort::SessionOptions* options = made->get();
  MS_RETURN_IF_ERROR(lib.Check(lib.api.SetSessionGraphOptimizationLevel(options, LevelOf(config.optimization))));
  // Memory patterns are remembered for every shape ever seen: without bound, when clients choose the shapes.
  MS_RETURN_IF_ERROR(lib.Check(lib.api.DisableMemPattern(options)));
  MS_RETURN_IF_ERROR(SetThreads(lib, options, config));
  MS_RETURN_IF_ERROR(AppendDevice(lib, options, config));
  return made;
}

// -- Model --

// A session with the library that it needs. Shared by the model and the outputs of its runs, which its allocators made.
struct LoadedSession {
  std::shared_ptr<const Library> lib;  // shared as Library says
  Owned<ort::Session> session;
};

// Values of one run: released when it ends, but for those taken out before. Keeps its room between runs.
class Values {
 public:
  Values(const ort::Api& api, size_t count) : api_(&api), values_(count, nullptr) {}
  ~Values() { Clear(); }
  Values(const Values&) = delete;
  Values& operator=(const Values&) = delete;

  ort::Value** data() { return values_.data(); }
  Owned<ort::Value> Take(size_t i) { return {std::exchange(values_[i], nullptr), {api_}}; }
  void Clear() {
    for (ort::Value*& value : values_) {
      if (value != nullptr) api_->ReleaseValue(std::exchange(value, nullptr));
    }
  }

 private:
  const ort::Api* api_;
  std::vector<ort::Value*> values_;
};

struct ClearAtEnd {
  Values& values;
  ~ClearAtEnd() { values.Clear(); }
};

struct Signature {
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
};

Result<Shape> ReadShape(const Library& lib, const ort::TensorInfo* info) {
  size_t rank = 0;
  MS_RETURN_IF_ERROR(lib.Check(lib.api.GetDimensionsCount(info, &rank)));
  std::array<int64_t, 8> few;
  std::vector<int64_t> many;
  if (rank > few.size()) many.resize(rank);
  int64_t* dims = rank > few.size() ? many.data() : few.data();
  if (rank > 0) MS_RETURN_IF_ERROR(lib.Check(lib.api.GetDimensions(info, dims, rank)));
  return Shape(std::span<const int64_t>(dims, rank));
}

// The engine gives lack of memory and a device that fails the code of any operator that fails; only its words tell them
// apart from values that an operator refuses.
Status RunFailure(Status status) {
  const auto says = [&](std::string_view words) { return status.message().find(words) != std::string::npos; };
  for (const std::string_view words : {"Failed to allocate memory", "smaller than requested bytes", "out of memory",
                                       "std::bad_alloc", "bad allocation"}) {
    if (says(words)) return {Code::kResourceExhausted, status.message()};
  }
  for (const std::string_view words :
       {"CUDA failure", "CUDNN failure", "CUBLAS failure", "CUFFT failure", "CANN failure"}) {
    if (says(words)) return {Code::kFailedPrecondition, status.message()};
  }
  // What is left of an operator's own failures is about values or shapes; some operators say so by their code, most say
  // the same by the code of any failure.
  if (status.code() == Code::kInternal && says("Non-zero status code returned while running")) {
    return {Code::kInvalidArgument, status.message()};
  }
  return status;
}

class OrtModel final : public Model {
 public:
  OrtModel(std::shared_ptr<LoadedSession> session, Owned<ort::RunOptions> options, Signature signature)
      : session_(std::move(session)),
        lib_(*session_->lib),
        run_options_(std::move(options)),
        signature_(std::move(signature)),
        in_values_(lib_.api, signature_.inputs.size()),
        out_values_(lib_.api, signature_.outputs.size()) {
    for (const TensorSpec& spec : signature_.inputs) in_names_.push_back(spec.name.c_str());
    for (const TensorSpec& spec : signature_.outputs) out_names_.push_back(spec.name.c_str());
  }

  const std::vector<TensorSpec>& inputs() const override { return signature_.inputs; }
  const std::vector<TensorSpec>& outputs() const override { return signature_.outputs; }

  Result<std::vector<Tensor>> Run(std::span<const Tensor> inputs) override {
    const ClearAtEnd clear_inputs{in_values_};
    const ClearAtEnd clear_outputs{out_values_};
    std::vector<Tensor> outputs;
    MS_RETURN_IF_ERROR(RunInto(inputs, outputs));
    return outputs;
  }

 private:
  Status RunInto(std::span<const Tensor> inputs, std::vector<Tensor>& outputs) {
    // The engine itself does not notice a missing input.
    if (inputs.size() != in_names_.size()) {
      return {Code::kInvalidArgument,
              "given " + std::to_string(inputs.size()) + " inputs, expected " + std::to_string(in_names_.size())};
    }
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (Status status = Wrap(i, inputs[i]); !status.ok()) {
        return Prefixed("input '" + signature_.inputs[i].name + "': ", status);
      }
    }
    // Outputs given as null are allocated by the session, in host memory on every device: without a binding ONNX
    // Runtime copies results back before it returns (so its documentation; not tried here on a GPU or an Ascend
    // device).
    Status status =
        lib_.Check(lib_.api.Run(session_->session.get(), run_options_.get(), in_names_.data(), in_values_.data(),
                                in_names_.size(), out_names_.data(), out_names_.size(), out_values_.data()));
    if (!status.ok()) return RunFailure(std::move(status));
    outputs.reserve(out_names_.size());
    for (size_t i = 0; i < out_names_.size(); ++i) {
      auto output = Unwrap(i, inputs);
      if (!output.ok()) return Prefixed("output '" + signature_.outputs[i].name + "': ", output.status());
      outputs.push_back(*std::move(output));
    }
    return {};
  }

  // Makes the engine's value for input `i`: over the caller's bytes, or with copies of its strings.
  Status Wrap(size_t i, const Tensor& input) {
    const TensorSpec& spec = signature_.inputs[i];
    if (input.dtype() != spec.dtype) {
      return {Code::kInvalidArgument, "given " + input.Describe() + ", expected " + std::string(Info(spec.dtype).name)};
    }
    // For a static shape the number of elements alone counts, as in CheckInput.
    const bool same_size = spec.ranked && spec.shape.Elements() == input.shape().Elements();
    const std::span<const int64_t> dims = same_size ? spec.shape.dims() : input.shape().dims();
    ort::Value** value = in_values_.data() + i;
    if (IsText(spec.dtype)) return WrapText(input, dims, value);
    if (!input.aligned()) return {Code::kInvalidArgument, "the bytes are not aligned"};
    // An empty tensor may come without an address, which the engine would refuse.
    const void* data = input.data().empty() ? this : static_cast<const void*>(input.data().data());
    // The engine never writes to inputs; its one function takes them as writable all the same.
    return lib_.Check(lib_.api.CreateTensorWithDataAsOrtValue(lib_.cpu.get(), const_cast<void*>(data),
                                                              input.data().size(), dims.data(), dims.size(),
                                                              ort::ElementOf(spec.dtype), value));
  }

  Status WrapText(const Tensor& input, std::span<const int64_t> dims, ort::Value** value) {
    MS_RETURN_IF_ERROR(lib_.Check(lib_.api.CreateTensorAsOrtValue(lib_.allocator, dims.data(), dims.size(),
                                                                  ort::ElementOf(DType::kString), value)));
    for (size_t k = 0; k < input.elements().size(); ++k) {
      const std::string_view text = input.elements()[k];
      char* buffer = nullptr;
      MS_RETURN_IF_ERROR(lib_.Check(lib_.api.GetResizedStringTensorElementBuffer(*value, k, text.size(), &buffer)));
      if (!text.empty()) std::memcpy(buffer, text.data(), text.size());
    }
    return {};
  }

  Result<Tensor> Unwrap(size_t i, std::span<const Tensor> inputs) {
    const TensorSpec& spec = signature_.outputs[i];
    auto value = out_values_.Take(i);
    if (value == nullptr) return Status(Code::kInternal, "the engine gave nothing");
    auto shape = ShapeOf(value.get(), spec.dtype);
    if (!shape.ok()) return shape.status();
    if (IsText(spec.dtype)) return UnwrapText(value.get(), *std::move(shape));

    auto bytes = ByteSize(spec.dtype, *shape);
    if (!bytes.ok()) return bytes.status();
    void* data = nullptr;
    MS_RETURN_IF_ERROR(lib_.Check(lib_.api.GetTensorMutableData(value.get(), &data)));
    const std::span<const std::byte> view(static_cast<const std::byte*>(data), *bytes);
    if (IsInside(view, inputs)) return Copy(spec.dtype, *std::move(shape), view);
    const std::shared_ptr<ort::Value> owner(
        value.release(), [session = session_](ort::Value* owned) { session->lib->api.ReleaseValue(owned); });
    return Tensor::View(spec.dtype, *std::move(shape), view, owner);
  }

  Result<Shape> ShapeOf(const ort::Value* value, DType expected) const {
    auto info = lib_.Make<ort::TensorInfo>(lib_.api.GetTensorTypeAndShape, value);
    if (!info.ok()) return info.status();
    ort::Element element = 0;
    MS_RETURN_IF_ERROR(lib_.Check(lib_.api.GetTensorElementType(info->get(), &element)));
    if (element != ort::ElementOf(expected)) {
      return Status(Code::kInternal, "the element type is not the one that the model declares");
    }
    return ReadShape(lib_, info->get());
  }

  // A model may hand an input through as an output, which is then the caller's bytes.
  static bool IsInside(std::span<const std::byte> view, std::span<const Tensor> inputs) {
    return std::ranges::any_of(inputs, [&](const Tensor& input) {
      const std::span<const std::byte> bytes = input.data();
      return !view.empty() && std::less_equal<>()(bytes.data(), view.data()) &&
             std::less<>()(view.data(), bytes.data() + bytes.size());
    });
  }

  static Result<Tensor> Copy(DType dtype, Shape shape, std::span<const std::byte> from) {
    std::span<std::byte> to;
    auto copy = Tensor::Allocate(dtype, std::move(shape), &to);
    if (copy.ok()) std::memcpy(to.data(), from.data(), from.size());
    return copy;
  }

  Result<Tensor> UnwrapText(const ort::Value* value, Shape shape) const {
    const size_t count = shape.Elements().value_or(0);
    size_t total = 0;
    MS_RETURN_IF_ERROR(lib_.Check(lib_.api.GetStringTensorDataLength(value, &total)));
    auto text = std::make_shared<std::string>(total, '\0');  // owners: the tensor and its copies
    std::vector<size_t> offsets(count);
    if (count > 0) {
      MS_RETURN_IF_ERROR(
          lib_.Check(lib_.api.GetStringTensorContent(value, text->data(), total, offsets.data(), count)));
    }
    offsets.push_back(total);
    std::vector<std::string_view> elements;
    elements.reserve(count);
    for (size_t k = 0; k < count; ++k) {
      elements.push_back(std::string_view(*text).substr(offsets[k], offsets[k + 1] - offsets[k]));
    }
    return Tensor::TextView(DType::kString, std::move(shape), std::move(elements), std::move(text));
  }

  const std::shared_ptr<LoadedSession> session_;  // shared as LoadedSession says
  const Library& lib_;
  const Owned<ort::RunOptions> run_options_;
  const Signature signature_;
  std::vector<const char*> in_names_;
  std::vector<const char*> out_names_;
  Values in_values_;
  Values out_values_;
};

Result<TensorSpec> ReadSpec(const Library& lib, const ort::Session* session, size_t index, bool input) {
  const ort::Api& api = lib.api;
  TensorSpec spec;
  char* name = nullptr;
  MS_RETURN_IF_ERROR(
      lib.Check((input ? api.SessionGetInputName : api.SessionGetOutputName)(session, index, lib.allocator, &name)));
  spec.name = name;
  MS_RETURN_IF_ERROR(lib.Check(api.AllocatorFree(lib.allocator, name)));

  auto refused = [&](const std::string& what) {
    return Status(Code::kUnimplemented,
                  "the model's " + std::string(input ? "input" : "output") + " '" + spec.name + "' " + what);
  };
  auto type =
      lib.Make<ort::TypeInfo>(input ? api.SessionGetInputTypeInfo : api.SessionGetOutputTypeInfo, session, index);
  if (!type.ok()) return type.status();
  auto kind = ort::ValueKind::kUnknown;
  MS_RETURN_IF_ERROR(lib.Check(api.GetOnnxTypeFromTypeInfo(type->get(), &kind)));
  if (kind != ort::ValueKind::kTensor)
    return refused("is a " + std::string(ort::KindName(kind)) + ", only tensors can be served");

  const ort::TensorInfo* info = nullptr;
  MS_RETURN_IF_ERROR(lib.Check(api.CastTypeInfoToTensorInfo(type->get(), &info)));
  ort::Element element = 0;
  MS_RETURN_IF_ERROR(lib.Check(api.GetTensorElementType(info, &element)));
  const ort::ElementName* known = ort::FindElement(element);
  if (known == nullptr || known->dtype == DType::kUnknown) {
    return refused("has the element type " + (known ? std::string(known->name) : std::to_string(element)) +
                   ", which MindServe does not carry; put a Cast to float or another type into the model");
  }
  spec.dtype = known->dtype;
  auto shape = ReadShape(lib, info);
  if (!shape.ok()) return shape.status();
  spec.shape = *std::move(shape);
  // Before HasShape a scalar and an unknown rank look alike: then the engine checks, at the run.
  spec.ranked = lib.api.HasShape != nullptr ? lib.api.HasShape(info) : spec.shape.rank() > 0;
  return spec;
}

Result<Signature> ReadSignature(const Library& lib, const ort::Session* session) {
  Signature signature;
  size_t inputs = 0;
  size_t outputs = 0;
  MS_RETURN_IF_ERROR(lib.Check(lib.api.SessionGetInputCount(session, &inputs)));
  MS_RETURN_IF_ERROR(lib.Check(lib.api.SessionGetOutputCount(session, &outputs)));
  for (size_t i = 0; i < inputs + outputs; ++i) {
    const bool input = i < inputs;
    auto spec = ReadSpec(lib, session, input ? i : i - inputs, input);
    if (!spec.ok()) return spec.status();
    (input ? signature.inputs : signature.outputs).push_back(*std::move(spec));
  }
  return signature;
}

// -- Engine --

// What the engine would say less clearly.
Status CheckFile(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) return {Code::kNotFound, "there is no such file"};
  if (!fs::is_regular_file(status)) return {Code::kInvalidArgument, "it is not a file"};
  if (access(path.c_str(), R_OK) != 0) {
    return {Code::kPermissionDenied, "it can't be read: " + std::generic_category().message(errno)};
  }
  const auto size = fs::file_size(path, error);
  if (!error && size == 0) return {Code::kInvalidArgument, "the file is empty"};
  return {};
}

class OrtEngine final : public Engine {
 public:
  explicit OrtEngine(std::shared_ptr<const Library> lib) : lib_(std::move(lib)) {}

  std::string Version() const override { return lib_->version; }
  std::vector<DeviceType> DeviceTypes() const override { return lib_->device_types; }

  Result<std::unique_ptr<Model>> Load(const std::string& path, const DeviceConfig& config) override {
    if (Status status = CheckFile(path); !status.ok()) return Failed("file: " + path, config, status);
    return LoadWith("file: " + path, config, [&](const ort::SessionOptions* options) {
      return lib_->Make<ort::Session>(lib_->api.CreateSession, lib_->env.get(), path.c_str(), options);
    });
  }

  Result<std::unique_ptr<Model>> LoadBytes(std::span<const std::byte> bytes, const DeviceConfig& config) override {
    const std::string name = std::to_string(bytes.size()) + " bytes";
    if (bytes.empty()) return Failed(name, config, {Code::kInvalidArgument, "the model is empty"});
    return LoadWith(name, config, [&](const ort::SessionOptions* options) {
      return lib_->Make<ort::Session>(lib_->api.CreateSessionFromArray, lib_->env.get(), bytes.data(), bytes.size(),
                                      options);
    });
  }

 private:
  static Status Failed(const std::string& what, const DeviceConfig& config, const Status& status) {
    return Prefixed("Load model failed, " + what + ", device " + ort::DeviceText(config) + ": ", status);
  }

  template <typename Create>
  Result<std::unique_ptr<Model>> LoadWith(const std::string& what, const DeviceConfig& config, Create create) {
    auto options = MakeOptions(*lib_, config);
    if (!options.ok()) return Failed(what, config, options.status());
    auto session = create(options->get());
    if (!session.ok()) return Failed(what, config, session.status());
    auto loaded = std::make_shared<LoadedSession>(LoadedSession{lib_, *std::move(session)});
    auto signature = ReadSignature(*lib_, loaded->session.get());
    if (!signature.ok()) return Failed(what, config, signature.status());
    auto run_options = lib_->Make<ort::RunOptions>(lib_->api.CreateRunOptions);
    if (!run_options.ok()) return Failed(what, config, run_options.status());
    // A run's errors come back as a Status: logged besides, one client's bad inputs would flood the log.
    Status quiet =
        lib_->Check(lib_->api.RunOptionsSetRunLogSeverityLevel(run_options->get(), ort::LogSeverity::kFatal));
    if (!quiet.ok()) return Failed(what, config, quiet);
    return std::unique_ptr<Model>(new OrtModel(std::move(loaded), *std::move(run_options), *std::move(signature)));
  }

  const std::shared_ptr<const Library> lib_;  // shared as Library says
};

// The minor number of "1.31.1"; 0 if the text is not like that.
uint32_t MinorOf(std::string_view version) {
  uint32_t minor = 0;
  if (version.starts_with("1.")) std::from_chars(version.data() + 2, version.data() + version.size(), minor);
  return minor;
}

}  // namespace

Result<std::unique_ptr<Engine>> OpenOnnxRuntime(const std::string& library) {
  auto failed = [&](const std::string& what) {
    return Status(Code::kFailedPrecondition, "ONNX Runtime can't be loaded from '" + library + "': " + what);
  };
  // dlopen takes an empty path for the program itself, and looks a bare name up elsewhere.
  if (library.find('/') == std::string::npos) return failed("expected the path of libonnxruntime.so");
  // Else the library starts a thread that looks up an outside name.
  setenv("ORT_DISABLE_TELEMETRY", "1", 1);
  // Never closed: its threads and exit handlers may still run.
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return failed(dlerror());
  auto* get_base = reinterpret_cast<ort::GetApiBase*>(dlsym(handle, "OrtGetApiBase"));
  const ort::ApiBase* base = get_base == nullptr ? nullptr : get_base();
  if (base == nullptr) return failed("it has no OrtGetApiBase, so it is not ONNX Runtime");
  const std::string version = base->get_version();
  const uint32_t minor = MinorOf(version);
  if (minor < ort::kApiVersion) {
    return failed("its version is " + version + ", 1." + std::to_string(ort::kApiVersion) + " or newer is needed");
  }
  const uint32_t api_version = minor >= ort::kHasShapeVersion ? ort::kHasShapeVersion : ort::kApiVersion;
  const void* const* table = base->get_api(api_version);
  if (table == nullptr) {
    return failed("version " + version + " has no API of version " + std::to_string(api_version));
  }
  auto lib = std::make_shared<Library>(library, version, api_version, table);
  if (Status status = lib->Start(); !status.ok()) return failed(status.message());
  return std::unique_ptr<Engine>(new OrtEngine(std::move(lib)));
}

}  // namespace mindserve::device
