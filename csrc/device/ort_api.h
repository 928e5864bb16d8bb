// The part of ONNX Runtime's C ABI that MindServe calls: slots of its function table by number, with their types. The
// ABI only ever appends slots, so a number means the same in every release since the one that added it. Included by
// onnxruntime.cc alone.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <type_traits>

#include "tensor/dtype.h"

namespace mindserve::device::ort {

// Opaque objects of the library.
struct StatusObject;
struct Env;
struct Session;
struct SessionOptions;
struct RunOptions;
struct Value;
struct TypeInfo;
struct TensorInfo;  // belongs to its TypeInfo, unless it came from GetTensorTypeAndShape
struct MemoryInfo;
struct Allocator;
struct CudaOptions;
struct CannOptions;

// Enums cross the ABI as 32-bit ints.
enum class ErrorCode : int32_t {
  kInvalidArgument = 2,
  kNoSuchFile = 3,
  kBadProtobuf = 7,
  kNotImplemented = 9,
  kBadGraph = 10,
  kProviderFailed = 11,
};
enum class LogSeverity : int32_t { kVerbose = 0, kInfo = 1, kWarning = 2, kError = 3, kFatal = 4 };
enum class OptimizationLevel : int32_t { kOff = 0, kBasic = 1, kExtended = 2, kAll = 99 };
enum class ExecutionMode : int32_t { kSequential = 0, kParallel = 1 };
enum class AllocatorType : int32_t { kDevice = 0, kArena = 1 };
enum class MemoryType : int32_t { kDefault = 0 };
enum class ValueKind : int32_t {
  kUnknown = 0,
  kTensor = 1,
  kSequence = 2,
  kMap = 3,
  kOpaque = 4,
  kSparse = 5,
  kOptional = 6
};
constexpr std::string_view KindName(ValueKind kind) {
  switch (kind) {
    case ValueKind::kTensor:
      return "tensor";
    case ValueKind::kSequence:
      return "sequence";
    case ValueKind::kMap:
      return "map";
    case ValueKind::kSparse:
      return "sparse tensor";
    case ValueKind::kOptional:
      return "optional";
    case ValueKind::kOpaque:
    case ValueKind::kUnknown:
      break;
  }
  return "value of unknown kind";
}

using Element = int32_t;

struct ElementName {
  std::string_view name;  // ONNX's
  DType dtype;            // kUnknown: MindServe does not carry it
};

// Every element type, by its number.
inline constexpr std::array<ElementName, 27> kElements = {{
    {"undefined", DType::kUnknown},
    {"float", DType::kFloat32},
    {"uint8", DType::kUint8},
    {"int8", DType::kInt8},
    {"uint16", DType::kUint16},
    {"int16", DType::kInt16},
    {"int32", DType::kInt32},
    {"int64", DType::kInt64},
    {"string", DType::kString},
    {"bool", DType::kBool},
    {"float16", DType::kFloat16},
    {"double", DType::kFloat64},
    {"uint32", DType::kUint32},
    {"uint64", DType::kUint64},
    {"complex64", DType::kUnknown},
    {"complex128", DType::kUnknown},
    {"bfloat16", DType::kUnknown},
    {"float8e4m3fn", DType::kUnknown},
    {"float8e4m3fnuz", DType::kUnknown},
    {"float8e5m2", DType::kUnknown},
    {"float8e5m2fnuz", DType::kUnknown},
    {"uint4", DType::kUnknown},
    {"int4", DType::kUnknown},
    {"float4e2m1", DType::kUnknown},
    {"uint2", DType::kUnknown},
    {"int2", DType::kUnknown},
    {"float8e8m0", DType::kUnknown},
}};

constexpr const ElementName* FindElement(Element element) {
  return element >= 0 && static_cast<size_t>(element) < kElements.size() ? &kElements[static_cast<size_t>(element)]
                                                                         : nullptr;
}

// The number of an element type that MindServe carries; 0 (undefined) for kUnknown and kBytes, which ONNX lacks.
constexpr Element ElementOf(DType dtype) {
  for (size_t i = 1; i < kElements.size(); ++i) {
    if (kElements[i].dtype == dtype && dtype != DType::kUnknown) return static_cast<Element>(i);
  }
  return 0;
}

using LogFunction = void(void* param, LogSeverity severity, const char* category, const char* log_id,
                         const char* location, const char* message);

// What the library's one exported function, OrtGetApiBase, returns.
struct ApiBase {
  // The function table for this API version or a newer one of the same layout; null, with a line on stderr, for a
  // version that the library does not know. The version is the minor number of the release: 16 for 1.16.
  const void* const* (*get_api)(uint32_t version);
  const char* (*get_version)();
};
using GetApiBase = const ApiBase*();

// Every function returns a StatusObject that the caller releases (null: success), unless its type says otherwise.
// clang-format off
#define MS_ORT_SLOTS(X)                                                                                                 \
  X(1, GetErrorCode, ErrorCode(const StatusObject*))                                                                    \
  X(2, GetErrorMessage, const char*(const StatusObject*))                                                               \
  X(4, CreateEnvWithCustomLogger, StatusObject*(LogFunction*, void* param, LogSeverity, const char* id, Env**))         \
  X(7, CreateSession, StatusObject*(Env*, const char* path, const SessionOptions*, Session**))                          \
  X(8, CreateSessionFromArray, StatusObject*(Env*, const void*, size_t, const SessionOptions*, Session**))              \
  X(9, Run, StatusObject*(Session*, const RunOptions*, const char* const* input_names, const Value* const* inputs,      \
                          size_t, const char* const* output_names, size_t, Value** outputs))                            \
  X(10, CreateSessionOptions, StatusObject*(SessionOptions**))                                                          \
  X(13, SetSessionExecutionMode, StatusObject*(SessionOptions*, ExecutionMode))                                         \
  X(17, DisableMemPattern, StatusObject*(SessionOptions*))                                                              \
  X(23, SetSessionGraphOptimizationLevel, StatusObject*(SessionOptions*, OptimizationLevel))                            \
  X(24, SetIntraOpNumThreads, StatusObject*(SessionOptions*, int32_t))                                                  \
  X(25, SetInterOpNumThreads, StatusObject*(SessionOptions*, int32_t))                                                  \
  X(30, SessionGetInputCount, StatusObject*(const Session*, size_t*))                                                   \
  X(31, SessionGetOutputCount, StatusObject*(const Session*, size_t*))                                                  \
  X(33, SessionGetInputTypeInfo, StatusObject*(const Session*, size_t index, TypeInfo**))                               \
  X(34, SessionGetOutputTypeInfo, StatusObject*(const Session*, size_t index, TypeInfo**))                              \
  X(36, SessionGetInputName, StatusObject*(const Session*, size_t index, Allocator*, char**))                           \
  X(37, SessionGetOutputName, StatusObject*(const Session*, size_t index, Allocator*, char**))                          \
  X(39, CreateRunOptions, StatusObject*(RunOptions**))                                                                  \
  X(41, RunOptionsSetRunLogSeverityLevel, StatusObject*(RunOptions*, LogSeverity))                                      \
  X(48, CreateTensorAsOrtValue, StatusObject*(Allocator*, const int64_t* dims, size_t rank, Element, Value**))          \
  X(49, CreateTensorWithDataAsOrtValue, StatusObject*(const MemoryInfo*, void* data, size_t bytes, const int64_t* dims, \
                                                      size_t rank, Element, Value**))                                   \
  X(51, GetTensorMutableData, StatusObject*(Value*, void**))                                                            \
  X(53, GetStringTensorDataLength, StatusObject*(const Value*, size_t*))                                                \
  X(54, GetStringTensorContent, StatusObject*(const Value*, void*, size_t bytes, size_t* offsets, size_t count))        \
  X(55, CastTypeInfoToTensorInfo, StatusObject*(const TypeInfo*, const TensorInfo**))                                   \
  X(56, GetOnnxTypeFromTypeInfo, StatusObject*(const TypeInfo*, ValueKind*))                                            \
  X(60, GetTensorElementType, StatusObject*(const TensorInfo*, Element*))                                               \
  X(61, GetDimensionsCount, StatusObject*(const TensorInfo*, size_t*))                                                  \
  X(62, GetDimensions, StatusObject*(const TensorInfo*, int64_t* dims, size_t rank))                                    \
  X(65, GetTensorTypeAndShape, StatusObject*(const Value*, TensorInfo**))                                               \
  X(69, CreateCpuMemoryInfo, StatusObject*(AllocatorType, MemoryType, MemoryInfo**))                                    \
  X(76, AllocatorFree, StatusObject*(Allocator*, void*))                                                                \
  X(78, GetAllocatorWithDefaultOptions, StatusObject*(Allocator**))                                                     \
  X(92, ReleaseEnv, void(Env*))                                                                                         \
  X(93, ReleaseStatus, void(StatusObject*))                                                                             \
  X(94, ReleaseMemoryInfo, void(MemoryInfo*))                                                                           \
  X(95, ReleaseSession, void(Session*))                                                                                 \
  X(96, ReleaseValue, void(Value*))                                                                                     \
  X(97, ReleaseRunOptions, void(RunOptions*))                                                                           \
  X(98, ReleaseTypeInfo, void(TypeInfo*))                                                                               \
  X(99, ReleaseTensorInfo, void(TensorInfo*))                                                                           \
  X(100, ReleaseSessionOptions, void(SessionOptions*))                                                                  \
  X(125, GetAvailableProviders, StatusObject*(char***, int32_t*))                                                       \
  X(126, ReleaseAvailableProviders, StatusObject*(char**, int32_t))                                                     \
  X(130, AddSessionConfigEntry, StatusObject*(SessionOptions*, const char* key, const char* value))                     \
  X(204, AppendCuda, StatusObject*(SessionOptions*, const CudaOptions*))                                                \
  X(205, CreateCudaOptions, StatusObject*(CudaOptions**))                                                               \
  X(206, UpdateCudaOptions, StatusObject*(CudaOptions*, const char* const* keys, const char* const* values, size_t))    \
  X(208, ReleaseCudaOptions, void(CudaOptions*))                                                                        \
  X(220, AppendCann, StatusObject*(SessionOptions*, const CannOptions*))                                                \
  X(221, CreateCannOptions, StatusObject*(CannOptions**))                                                               \
  X(222, UpdateCannOptions, StatusObject*(CannOptions*, const char* const* keys, const char* const* values, size_t))    \
  X(224, ReleaseCannOptions, void(CannOptions*))                                                                        \
  X(252, GetResizedStringTensorElementBuffer, StatusObject*(Value*, size_t index, size_t bytes, char**))
// clang-format on

// The lowest API version whose table has all of these.
inline constexpr uint32_t kApiVersion = 16;

// API 24 added a slot that tells a tensor without a declared rank from a scalar; older tables end before it.
inline constexpr uint32_t kHasShapeVersion = 24;
inline constexpr size_t kHasShapeSlot = 390;

// The functions, taken out of the library's table. A value; holds nothing.
struct Api {
#define MS_ORT_MEMBER(slot, name, ...) std::add_pointer_t<__VA_ARGS__> name;
  MS_ORT_SLOTS(MS_ORT_MEMBER)
#undef MS_ORT_MEMBER
  // Null below kHasShapeVersion. A C++ bool by the ABI.
  bool (*HasShape)(const TensorInfo*);

  Api(const void* const* table, uint32_t version) {
#define MS_ORT_FILL(slot, name, ...) name = Function<__VA_ARGS__>(table[slot]);
    MS_ORT_SLOTS(MS_ORT_FILL)
#undef MS_ORT_FILL
    HasShape = version >= kHasShapeVersion ? Function<bool(const TensorInfo*)>(table[kHasShapeSlot]) : nullptr;
  }

  void Release(Env* p) const { ReleaseEnv(p); }
  void Release(StatusObject* p) const { ReleaseStatus(p); }
  void Release(MemoryInfo* p) const { ReleaseMemoryInfo(p); }
  void Release(Session* p) const { ReleaseSession(p); }
  void Release(Value* p) const { ReleaseValue(p); }
  void Release(RunOptions* p) const { ReleaseRunOptions(p); }
  void Release(TypeInfo* p) const { ReleaseTypeInfo(p); }
  void Release(TensorInfo* p) const { ReleaseTensorInfo(p); }
  void Release(SessionOptions* p) const { ReleaseSessionOptions(p); }
  void Release(CudaOptions* p) const { ReleaseCudaOptions(p); }
  void Release(CannOptions* p) const { ReleaseCannOptions(p); }

 private:
  template <typename Signature>
  static Signature* Function(const void* slot) {
    return reinterpret_cast<Signature*>(const_cast<void*>(slot));
  }
};

#undef MS_ORT_SLOTS

template <typename T>
struct Releaser {
  const Api* api = nullptr;
  void operator()(T* object) const { api->Release(object); }
};

// An object of the library that is released with its holder.
template <typename T>
using Owned = std::unique_ptr<T, Releaser<T>>;

}  // namespace mindserve::device::ort
