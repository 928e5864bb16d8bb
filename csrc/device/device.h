// What runs models: the seam between MindServe and an inference engine.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tensor/tensor.h"

namespace mindserve::device {

enum class DeviceType : uint8_t { kCpu, kGpu, kAscend };
// "CPU", "GPU", "Ascend": as in ServableStartConfig's device_type.
std::string_view DeviceTypeName(DeviceType type);

enum class GraphOptimization : uint8_t { kOff, kBasic, kExtended, kAll };

struct DeviceConfig {
  DeviceType type = DeviceType::kCpu;
  int device_id = 0;               // ignored by CPU
  int intra_op_threads = 0;        // threads inside one operator; 0: the engine's own choice
  int inter_op_threads = 0;        // threads between operators; 0: the engine's own choice; used only with parallel
  bool parallel = false;           // run independent operators at once
  std::vector<int> affinity = {};  // cores (from 0) for the engine's own intra-op threads; empty: any
  bool fp16 = false;               // let the device compute in half precision ("precision_mode"); only Ascend can
  GraphOptimization optimization = GraphOptimization::kAll;
  std::map<std::string, std::string> provider_options = {};  // handed to the engine's device as they are
};

// An input or output of a model. A dimension of -1 is dynamic.
struct TensorSpec {
  std::string name;
  DType dtype = DType::kUnknown;
  Shape shape;
  bool ranked = true;  // false: the model doesn't tell even the rank; shape is empty then and means nothing
};

// A loaded model. Run() may be called from any one thread at a time.
class Model {
 public:
  virtual ~Model() = default;
  virtual const std::vector<TensorSpec>& inputs() const = 0;
  virtual const std::vector<TensorSpec>& outputs() const = 0;

  // Runs the model on `inputs`, one for each of inputs() and in that order, aligned (Tensor::aligned), all present, of
  // the right type; for a static shape any other of as many elements will do, as in CheckInput. Outputs come in the
  // order of outputs(); they own their memory, which is host memory. Errors: what the engine says, without the model's
  // name. INVALID_ARGUMENT for what the caller gave: of a wrong type or shape, or such that an operator can't do with
  // it. INTERNAL for what failed otherwise; as far as the engine tells: RESOURCE_EXHAUSTED for lack of memory,
  // FAILED_PRECONDITION for a device that fails, UNIMPLEMENTED for an operator that it lacks.
  virtual Result<std::vector<Tensor>> Run(std::span<const Tensor> inputs) = 0;
};

// An inference engine, loaded into this process. Outlives the models it loads. Thread-safe.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual std::string Version() const = 0;
  // The device types that this build of the engine was made for, best first. Whether a device is there shows at Load.
  virtual std::vector<DeviceType> DeviceTypes() const = 0;
  // Loads a model file. The errors say the file, the device, and what the engine said.
  virtual Result<std::unique_ptr<Model>> Load(const std::string& path, const DeviceConfig& config) = 0;
  // The same from bytes, which may go when it returns.
  virtual Result<std::unique_ptr<Model>> LoadBytes(std::span<const std::byte> bytes, const DeviceConfig& config) = 0;
};

}  // namespace mindserve::device
