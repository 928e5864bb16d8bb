#include "wire/call_head.h"

#include <algorithm>
#include <cstring>
#include <protozero/pbf_reader.hpp>
#include <protozero/pbf_writer.hpp>

#include "wire/fields.h"
#include "wire/malformed.h"

namespace mindserve::wire {
namespace {

namespace entry = field::map_entry;
namespace call_head = field::call_head;
namespace call_end = field::call_end;
namespace initial = field::initial_metadata;

constexpr uint32_t TextField(uint32_t number) {
  return protozero::tag_and_type(number, protozero::pbf_wire_type::length_delimited);
}

std::string_view ToView(const protozero::data_view& view) {
  return {view.data(), view.size()};
}

void Add(protozero::pbf_writer& writer, uint32_t number, std::string_view text) {
  if (!text.empty()) writer.add_bytes(number, text.data(), text.size());
}

void Add(protozero::pbf_writer& writer, uint32_t number, const MetadataView& metadata) {
  for (const auto& [key, value] : metadata) {
    protozero::pbf_writer each(writer, number);
    each.add_bytes(entry::kKey, key.data(), key.size());
    each.add_bytes(entry::kValue, value.data(), value.size());
  }
}

std::pair<std::string_view, std::string_view> ReadEntry(protozero::pbf_reader& reader) {
  protozero::pbf_reader each = reader.get_message();
  std::string_view key;
  std::string_view value;
  while (each.next()) {
    switch (each.tag_and_type()) {
      case TextField(entry::kKey):
        key = ToView(each.get_view());
        break;
      case TextField(entry::kValue):
        value = ToView(each.get_view());
        break;
      default:
        each.skip();
    }
  }
  return {key, value};
}

void ReadEntry(protozero::pbf_reader& reader, MetadataView* metadata) {
  metadata->push_back(ReadEntry(reader));
}

// protozero's own reader of such a field takes its length for a whole number of them.
std::vector<ExecutionTag> ReadTags(const protozero::data_view& packed) {
  std::vector<ExecutionTag> tags(packed.size() / sizeof(ExecutionTag));
  if (packed.size() % sizeof(ExecutionTag) != 0) throw protozero::invalid_length_exception();
  if (!tags.empty()) std::memcpy(tags.data(), packed.data(), packed.size());
  return tags;
}

// Calls `take` for each field; true if it took it.
template <typename Take>
Status ReadFields(const char* what, std::span<const std::byte> bytes, Take take) {
  protozero::pbf_reader reader(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  try {
    while (reader.next()) {
      if (!take(reader)) reader.skip();
    }
  } catch (const protozero::exception& error) {
    return {Code::kInternal, std::string("the link's ") + what + " doesn't parse: " + Explain(error)};
  }
  return Status::Ok();
}

}  // namespace

std::string WriteCallHead(const CallHead& head) {
  std::string bytes;
  protozero::pbf_writer writer(bytes);
  Add(writer, call_head::kRequestId, head.request_id);
  Add(writer, call_head::kModelId, head.model_id);
  Add(writer, call_head::kPeer, head.peer);
  Add(writer, call_head::kMetadata, head.metadata);
  Add(writer, call_head::kAuth, head.auth);
  if (head.depth != 0) writer.add_uint32(call_head::kDepth, head.depth);
  writer.add_packed_fixed64(call_head::kCallers, head.callers.begin(), head.callers.end());
  if (head.plain) writer.add_bool(call_head::kPlain, true);
  return bytes;
}

Result<CallHead> ReadCallHead(std::span<const std::byte> bytes) {
  CallHead head;
  const Status status = ReadFields("call head", bytes, [&](protozero::pbf_reader& reader) {
    switch (reader.tag_and_type()) {
      case TextField(call_head::kRequestId):
        head.request_id = ToView(reader.get_view());
        return true;
      case TextField(call_head::kModelId):
        head.model_id = ToView(reader.get_view());
        return true;
      case TextField(call_head::kPeer):
        head.peer = ToView(reader.get_view());
        return true;
      case TextField(call_head::kMetadata):
        ReadEntry(reader, &head.metadata);
        return true;
      case TextField(call_head::kAuth):
        ReadEntry(reader, &head.auth);
        return true;
      case protozero::tag_and_type(call_head::kDepth, protozero::pbf_wire_type::varint):
        head.depth = reader.get_uint32();
        return true;
      case TextField(call_head::kCallers):
        head.callers = ReadTags(reader.get_view());
        return true;
      case protozero::tag_and_type(call_head::kPlain, protozero::pbf_wire_type::varint):
        head.plain = reader.get_uint32() != 0;  // get_bool looks at what may not be there
        return true;
      default:
        return false;
    }
  });
  if (!status.ok()) return status;
  return head;
}

Status CheckCallHead(std::span<const std::byte> bytes, uint32_t* depth) {
  *depth = 0;
  return ReadFields("call head", bytes, [depth](protozero::pbf_reader& reader) {
    switch (reader.tag_and_type()) {
      case TextField(call_head::kMetadata):
      case TextField(call_head::kAuth):
        ReadEntry(reader);
        return true;
      case protozero::tag_and_type(call_head::kDepth, protozero::pbf_wire_type::varint):
        *depth = std::min(reader.get_uint32(), kMostDepth);
        return true;
      case TextField(call_head::kCallers):
        ReadTags(reader.get_view());
        return true;
      default:
        return false;
    }
  });
}

std::string WriteCallEnd(const CallEnd& end) {
  std::string bytes;
  protozero::pbf_writer writer(bytes);
  Add(writer, call_end::kDetails, end.details);
  Add(writer, call_end::kTrailing, end.trailing);
  return bytes;
}

Result<CallEnd> ReadCallEnd(std::span<const std::byte> bytes) {
  CallEnd end;
  const Status status = ReadFields("call end", bytes, [&](protozero::pbf_reader& reader) {
    switch (reader.tag_and_type()) {
      case TextField(call_end::kDetails):
        end.details = ToView(reader.get_view());
        return true;
      case TextField(call_end::kTrailing):
        ReadEntry(reader, &end.trailing);
        return true;
      default:
        return false;
    }
  });
  if (!status.ok()) return status;
  return end;
}

std::string WriteMetadata(const MetadataView& metadata) {
  std::string bytes;
  protozero::pbf_writer writer(bytes);
  Add(writer, initial::kMetadata, metadata);
  return bytes;
}

Result<MetadataView> ReadMetadata(std::span<const std::byte> bytes) {
  MetadataView metadata;
  const Status status = ReadFields("initial metadata", bytes, [&](protozero::pbf_reader& reader) {
    if (reader.tag_and_type() != TextField(initial::kMetadata)) return false;
    ReadEntry(reader, &metadata);
    return true;
  });
  if (!status.ok()) return status;
  return metadata;
}

}  // namespace mindserve::wire
