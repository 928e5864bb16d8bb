// What a fuzzer's input is taken apart with, and how a fuzzer says that something is wrong.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

// libFuzzer's entry, and replay_main.cc's.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

// What holds for every input. Ends the process if it does not, which is a finding.
#define FUZZ_REQUIRE(condition)                                                                 \
  do {                                                                                          \
    if (!(condition)) ::mindserve::fuzz::Fail(__FILE__, __LINE__, "does not hold", #condition); \
  } while (false)

namespace mindserve::fuzz {

[[noreturn]] inline void Fail(const char* file, int line, const char* what, const char* condition) {
  std::fprintf(stderr, "%s:%d: %s: %s\n", file, line, what, condition);
  std::abort();
}

// Reads an input from its front. What it lacks reads as zeros, so that every input means something.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : rest_(reinterpret_cast<const std::byte*>(data), size) {}

  bool empty() const { return rest_.empty(); }
  size_t size() const { return rest_.size(); }

  template <typename T>
  T Take() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value{};
    const auto bytes = Bytes(sizeof(T));
    if (!bytes.empty()) std::memcpy(&value, bytes.data(), bytes.size());
    return value;
  }
  uint8_t Byte() { return Take<uint8_t>(); }
  // Up to `most` bytes.
  std::span<const std::byte> Bytes(size_t most) {
    const auto taken = rest_.first(std::min(most, rest_.size()));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }
  std::string_view Text(size_t most) {
    const auto bytes = Bytes(most);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  // As many bytes as the next one, or the next two, say.
  std::string_view ShortText() { return Text(Byte()); }
  std::string_view LongText() { return Text(Take<uint16_t>()); }
  std::string_view Rest() { return Text(rest_.size()); }

 private:
  std::span<const std::byte> rest_;
};

inline std::span<const std::byte> AsBytes(std::string_view text) {
  return std::as_bytes(std::span<const char>(text.data(), text.size()));
}
inline std::string_view AsText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace mindserve::fuzz
