// By what a request is known whose client gave no id: few enough bits to go along with it wherever it goes.
#pragma once

#include <array>
#include <cstdint>

namespace mindserve {

// 96 random bits; all of them 0: no key.
struct RequestKey {
  uint64_t high = 0;
  uint32_t low = 0;

  bool known() const { return (high | low) != 0; }
  bool operator==(const RequestKey&) const = default;
};

// Its text: a UUID of version 4 (RFC 9562), the same for the same key wherever it is asked for. The 26 bits that a UUID
// has besides are made of the key's.
using RequestKeyText = std::array<char, 36>;
RequestKeyText TextOf(const RequestKey& key);

// As the id of a prediction: 40 hexadecimal digits, as Seldon's have, of which the last 16 are made of the key's.
using RequestKeyPuid = std::array<char, 40>;
RequestKeyPuid PuidOf(const RequestKey& key);

}  // namespace mindserve
