// Numbers of JSON, read where they lie. Not by simdjson: its 3.0 reads some of more than 19 digits wrong.
#pragma once

#include <cstdint>

namespace mindserve::wire {

// Both read a number that begins at *at, and move *at behind it. The text has to end with a character that no number
// has. False, with *at anywhere, if none stands there as JSON writes it, or not one of this kind that fits.

// One without fraction and exponent.
bool ScanInt32(const char** at, int32_t* number);
// One with a fraction or an exponent: the float nearest to the double nearest to it, as numpy gets it from Python's.
bool ScanFloat32(const char** at, float* number);

}  // namespace mindserve::wire
