// The element types, in one table. Everything else that knows types (the wire, ONNX Runtime, numpy) derives from it or
// is checked against it by a test.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace mindserve {

// The numbers are those of the wire's DataType (protos/ms_service.proto).
enum class DType : uint8_t {
  kUnknown = 0,
  kBool = 1,
  kInt8 = 2,
  kUint8 = 3,
  kInt16 = 4,
  kUint16 = 5,
  kInt32 = 6,
  kUint32 = 7,
  kInt64 = 8,
  kUint64 = 9,
  kFloat16 = 10,
  kFloat32 = 11,
  kFloat64 = 12,
  kString = 13,
  kBytes = 14,
};

struct DTypeInfo {
  DType dtype;
  size_t size;             // bytes of one element; 0 for string, bytes and unknown
  std::string_view name;   // as MindSpore Serving's texts say it: "kMSI_Float32"
  std::string_view numpy;  // numpy's name: "float32"; "" where numpy has no fixed-size type of ours
};

inline constexpr std::array<DTypeInfo, 15> kDTypes = {{
    {DType::kUnknown, 0, "kMSI_Unknown", ""},
    {DType::kBool, 1, "kMSI_Bool", "bool"},
    {DType::kInt8, 1, "kMSI_Int8", "int8"},
    {DType::kUint8, 1, "kMSI_Uint8", "uint8"},
    {DType::kInt16, 2, "kMSI_Int16", "int16"},
    {DType::kUint16, 2, "kMSI_Uint16", "uint16"},
    {DType::kInt32, 4, "kMSI_Int32", "int32"},
    {DType::kUint32, 4, "kMSI_Uint32", "uint32"},
    {DType::kInt64, 8, "kMSI_Int64", "int64"},
    {DType::kUint64, 8, "kMSI_Uint64", "uint64"},
    {DType::kFloat16, 2, "kMSI_Float16", "float16"},
    {DType::kFloat32, 4, "kMSI_Float32", "float32"},
    {DType::kFloat64, 8, "kMSI_Float64", "float64"},
    {DType::kString, 0, "kMSI_String", ""},
    {DType::kBytes, 0, "kMSI_Bytes", ""},
}};

constexpr const DTypeInfo& Info(DType dtype) {
  return kDTypes[static_cast<size_t>(dtype)];
}

// Strings and byte strings: elements of their own length instead of a block of fixed-size ones.
constexpr bool IsText(DType dtype) {
  return dtype == DType::kString || dtype == DType::kBytes;
}

// The type of this wire number; nothing for one that the table lacks, and for 0 (unknown).
constexpr std::optional<DType> DTypeFromWire(uint64_t number) {
  if (number == 0 || number >= kDTypes.size()) return std::nullopt;
  return static_cast<DType>(number);
}

}  // namespace mindserve
