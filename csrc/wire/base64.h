// Base64 as JSON carries bytes: the alphabet with + and /, padded, without line breaks (RFC 4648, section 4).
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace mindserve::wire {

// Appends the bytes that `text` stands for. False, with `bytes` as it was, if it is no base64.
bool DecodeBase64(std::string_view text, std::string* bytes);

void EncodeBase64(std::string_view bytes, std::string* text);

}  // namespace mindserve::wire
