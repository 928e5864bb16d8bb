// UTF-8 as protobuf and gRPC demand it of texts.
#pragma once

#include <cstddef>
#include <string_view>

namespace mindserve {

// Strict: no overlong forms, no surrogates, nothing above U+10FFFF.
bool IsUtf8(std::string_view text);

// The first `max` bytes of `text` at most, without the beginning of a character that does not fit. Of bytes that are no
// UTF-8 it may leave out up to three more.
std::string_view CutUtf8(std::string_view text, size_t max);

}  // namespace mindserve
