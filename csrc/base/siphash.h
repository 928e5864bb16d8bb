// SipHash-2-4: a hash of 64 bits that nobody can aim at without the key.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace mindserve {

class SipHash {
 public:
  using Key = std::array<uint64_t, 2>;
  // From the system's source of randomness.
  static Key RandomKey();

  explicit SipHash(const Key& key);
  // What is added in pieces is hashed as one run of bytes.
  void Add(std::span<const std::byte> bytes);
  uint64_t Finish();

 private:
  void Compress(uint64_t word);
  void Round();

  uint64_t v0_, v1_, v2_, v3_;
  uint64_t tail_ = 0;  // bytes that are no word yet
  size_t size_ = 0;
};

}  // namespace mindserve
