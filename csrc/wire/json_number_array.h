// Nested arrays of numbers in one pass over their text: what most bodies consist of.
#pragma once

#include "wire/json_scalar.h"

namespace mindserve::wire {

// Fills `tensor` from the array that begins at `text`, whose rows are all of one length and whose elements are numbers
// of one type. False if it is anything else; what, is for ReadArray to tell. The text has to end with a 0.
bool ReadNumberArray(const char* text, JsonTensor* tensor);

}  // namespace mindserve::wire
