// Tag and wire type, as they stand in front of a field: what a reader switches on. A field of the wrong wire type
// matches none and is skipped as an unknown one, as protobuf does.
#pragma once

#include <cstdint>
#include <protozero/types.hpp>

namespace mindserve::wire {

constexpr uint32_t Varint(uint32_t number) {
  return protozero::tag_and_type(number, protozero::pbf_wire_type::varint);
}
constexpr uint32_t Delimited(uint32_t number) {
  return protozero::tag_and_type(number, protozero::pbf_wire_type::length_delimited);
}

}  // namespace mindserve::wire
