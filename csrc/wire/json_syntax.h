// What JSON texts are made of, and what is said of those that are none. simdjson's on-demand interface finds the
// tokens; what it leaves open until a value is asked for is checked here.
#pragma once

#include <simdjson.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace mindserve::wire {

namespace ondemand = simdjson::ondemand;

// How deep arrays and objects may stand in each other.
inline constexpr size_t kMaxJsonDepth = 64;

enum class JsonKind : uint8_t { kObject, kArray, kString, kInteger, kFloat, kBool, kNull, kIllegal };

// A value's first token without the space after it, in a text that ends with a 0: "[", "{", or all of a scalar.
std::string_view Token(ondemand::value& value);
// What a token is, by all of its characters: "01", "nul" and "NaN" are illegal. Of a string only its quotes are looked
// at. A number without fraction and exponent is an integer, whatever its size.
JsonKind KindOf(std::string_view token);

// The content of a value that is a string, escapes resolved. Valid as long as the parser reads no other text. To be
// called once for a value. False: a wrong escape.
bool ReadText(ondemand::value& value, std::string_view* text);

// What an error repeats of a text that a client sent: its beginning.
std::string Excerpt(std::string_view text);

// INVALID_ARGUMENT "Illegal JSON format: …".
Status IllegalJson(std::string_view what);
// The same for an error of simdjson; RESOURCE_EXHAUSTED if it is lack of memory.
Status IllegalJson(simdjson::error_code error);
// The same for a token of kIllegal.
Status IllegalToken(std::string_view token);
// A number that is JSON, but too large for the type it becomes: OUT_OF_RANGE.
Status TooLarge(std::string_view token, std::string_view type);

// Reads a value to its end. `depth`: how many arrays and objects it stands in. Illegal JSON, or OUT_OF_RANGE over
// kMaxJsonDepth.
Status CheckValue(ondemand::value& value, size_t depth);
// The same for all of a document that was just begun, and its text.
Status CheckDocument(ondemand::document& document, std::string_view text);
// That nothing comes after the document's value, which was read.
Status CheckEnd(ondemand::document& document);

}  // namespace mindserve::wire
