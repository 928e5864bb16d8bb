// Builds protobuf messages byte by byte for the tests, right and wrong ones, with the field numbers as literals: on
// purpose nothing here is shared with the code under test.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mindserve::wire::test {

inline std::string Number(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(0x80 | (value & 0x7f));
  return bytes += static_cast<char>(value);
}

inline std::string Varint(uint32_t field, uint64_t value) {
  return Number(uint64_t{field} << 3) + Number(value);
}
inline std::string Fixed64(uint32_t field) {
  return Number(uint64_t{field} << 3 | 1) + std::string(8, '\x5a');
}
inline std::string Fixed32(uint32_t field) {
  return Number(uint64_t{field} << 3 | 5) + std::string(4, '\x5a');
}
inline std::string Field(uint32_t field, std::string_view content) {
  return Number(uint64_t{field} << 3 | 2) + Number(content.size()) + std::string(content);
}

// A field of each wire type under numbers that no message of ours has.
inline std::string UnknownFields() {
  return Varint(100, 1u << 20) + Fixed64(101) + Field(102, "unknown") + Fixed32(536870911);
}

using Dims = std::vector<int64_t>;

inline std::string PackedShape(const Dims& dims) {
  std::string packed;
  for (int64_t dim : dims) packed += Number(static_cast<uint64_t>(dim));
  return dims.empty() ? "" : Field(1, packed);
}

inline std::string UnpackedShape(const Dims& dims) {
  std::string fields;
  for (int64_t dim : dims) fields += Varint(1, static_cast<uint64_t>(dim));
  return fields;
}

inline std::string NumericTensor(const Dims& dims, uint64_t dtype, std::string_view data) {
  return Field(1, PackedShape(dims)) + Varint(2, dtype) + Field(3, data);
}

inline std::string TextTensor(const Dims& dims, uint64_t dtype, const std::vector<std::string>& elements) {
  std::string tensor = Field(1, PackedShape(dims)) + Varint(2, dtype);
  for (const std::string& element : elements) tensor += Field(4, element);
  return tensor;
}

// An item of an instance, and the instances field of a request.
inline std::string Item(std::string_view key, std::string_view tensor) {
  return Field(1, Field(1, key) + Field(2, tensor));
}
inline std::string Instance(std::string_view items) {
  return Field(2, items);
}

inline std::string Spec(std::string_view name, std::string_view method, uint64_t version) {
  return Field(1, name) + Field(2, method) + (version == 0 ? "" : Varint(3, version));
}

inline std::span<const std::byte> Bytes(std::string_view text) {
  return std::as_bytes(std::span<const char>(text.data(), text.size()));
}
inline std::string Text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

inline std::string FromHex(std::string_view hex) {
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) bytes += static_cast<char>(digit(hex[i]) * 16 + digit(hex[i + 1]));
  return bytes;
}

// Two instances for servable "add", method "add_common", version 300, as Google's protobuf writes them: x1 float32 (2,
// 2) twice, and in the second instance, before it, s string (1,) "hé".
inline std::string GoldenRequest() {
  return FromHex(
      "0a140a03616464120a6164645f636f6d6d6f6e18ac02"
      "12220a200a027831121a0a040a020202100b1a100000803f000000400000404000008040"
      "12350a110a0173120c0a030a0101100d220368c3a9"
      "0a200a027831121a0a040a020202100b1a100000803f00000040000040400000a040");
}

// The reply to three instances as Google's protobuf writes it, but for its spec (GoldenSpec()): y int32 (1, 2) [1, -2]
// and z float64 () 0.5; an error 2 "bad"; y int32 (0,) and z bytes (2,) ["a", ""].
inline std::string GoldenReply() {
  return FromHex(
      "1a2e0a170a017912120a040a02010210061a0801000000feffffff0a130a017a120e0a00100c1a08000000000000e03f"
      "1a00"
      "1a230a0e0a017912090a030a010010061a000a110a017a120c0a030a0102100e22016122002200"
      "2207080212036261642200");
}
inline std::string GoldenSpec() {
  return FromHex("0a050a03616464");
}

}  // namespace mindserve::wire::test
