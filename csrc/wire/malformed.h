// What is wrong with bytes that protozero refuses, in words.
#pragma once

#include <protozero/exception.hpp>

namespace mindserve::wire {

inline const char* Explain(const protozero::exception& error) {
  if (dynamic_cast<const protozero::unknown_pbf_wire_type_exception*>(&error) != nullptr) {
    return "a field's wire type is none of 0, 1, 2 and 5 (group fields are not supported)";
  }
  return error.what();
}

}  // namespace mindserve::wire
