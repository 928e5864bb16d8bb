// What a server knows of the .proto files behind its services: an index of descriptors, as reflection asks for them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace mindserve::wire {

// Files by their names, by what they define, and with what they import. Never changed once made, and then used by any
// number of threads.
class DescriptorIndex {
 public:
  // Knows nothing.
  DescriptorIndex() = default;

  // Both are serialized google.protobuf.FileDescriptorSets, in which files come after those that they import. A file
  // that is there twice with the same bytes is taken once. Files of one name but other bytes happen too, since each
  // servable has its own: all but the first get names of their own, also where they are imported, so that a client
  // which keeps files by their names is not confused. What several define is looked up in the first, the users' before
  // the built-in. A built-in file of which the users define everything, as the file itself compiled by them does, is
  // left out. INVALID_ARGUMENT if the bytes don't parse; what they describe is not checked.
  static Result<DescriptorIndex> Create(std::string_view users, std::string_view built_in);

  using File = size_t;  // an index
  // None: there is no such thing.
  std::optional<File> FileNamed(std::string_view name) const;
  // Of a message, field, oneof, enum, enum value, extension, service or method, by its full name.
  std::optional<File> FileContaining(std::string_view symbol) const;
  // Of the extension of the message `type`, by its full name, that has this number.
  std::optional<File> FileExtending(std::string_view type, int32_t number) const;
  // Of all extensions of the message `type`, ascending. None: there is no such message.
  std::optional<std::vector<int32_t>> ExtensionNumbers(std::string_view type) const;

  // The serialized FileDescriptorProto of `file`, and after it those of all that it imports, directly or not, each
  // once. Views into the index.
  std::vector<std::string_view> WithImports(File file) const;

 private:
  class Builder;
  struct Entry {
    std::string bytes;
    std::vector<File> imports;
  };
  struct Symbol {
    File file;
    bool is_message;
  };
  std::vector<Entry> files_;
  std::map<std::string, File, std::less<>> names_;
  std::map<std::string, Symbol, std::less<>> symbols_;
  std::map<std::string, std::map<int32_t, File>, std::less<>> extensions_;
};

}  // namespace mindserve::wire
