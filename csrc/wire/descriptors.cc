#include "wire/descriptors.h"

#include <algorithm>
#include <protozero/pbf_reader.hpp>
#include <protozero/pbf_writer.hpp>

#include "wire/fields.h"
#include "wire/malformed.h"
#include "wire/tags.h"

namespace mindserve::wire {

namespace file_set = field::file_descriptor_set;
namespace file_descriptor = field::file_descriptor;
namespace message_descriptor = field::message_descriptor;
namespace field_descriptor = field::field_descriptor;
namespace group_descriptor = field::group_descriptor;
namespace named_descriptor = field::named_descriptor;

namespace {

using protozero::pbf_reader;

// As deep as protobuf's own parsers go.
constexpr int kDeepest = 100;

struct NestedTooDeep : protozero::exception {
  const char* what() const noexcept override { return "messages are nested more than 100 deep"; }
};

std::string_view View(const protozero::data_view& view) {
  return {view.data(), view.size()};
}

std::string Join(std::string_view scope, std::string_view name) {
  std::string full(scope);
  if (!full.empty()) full += '.';
  return full += name;
}

// What a FileDescriptorProto defines. Throws what protozero throws.
class FileReader {
 public:
  struct Symbol {
    std::string name;
    bool is_message = false;
  };

  explicit FileReader(std::string_view bytes) {
    pbf_reader reader(bytes.data(), bytes.size());
    // The package may come after what is in it.
    for (pbf_reader first = reader; first.next();) {
      switch (first.tag_and_type()) {
        case Delimited(file_descriptor::kName):
          name = View(first.get_view());
          break;
        case Delimited(file_descriptor::kPackage):
          package_ = View(first.get_view());
          break;
        case Delimited(file_descriptor::kDependency):
          imports.push_back(View(first.get_view()));
          break;
        default:
          first.skip();
      }
    }
    while (reader.next()) {
      switch (reader.tag_and_type()) {
        case Delimited(file_descriptor::kMessageType):
          ReadMessage(reader.get_message(), package_, kDeepest);
          break;
        case Delimited(file_descriptor::kEnumType):
          // An enum's values are its siblings, a service's methods its members.
          ReadGroup(reader.get_message(), package_, /*members_inside=*/false);
          break;
        case Delimited(file_descriptor::kService):
          ReadGroup(reader.get_message(), package_, /*members_inside=*/true);
          break;
        case Delimited(file_descriptor::kExtension):
          ReadField(reader.get_message(), package_);
          break;
        default:
          reader.skip();
      }
    }
  }

  std::string_view name;
  std::vector<std::string_view> imports;
  std::vector<Symbol> symbols;
  std::vector<std::pair<std::string, int32_t>> extensions;  // of which message, and their numbers

 private:
  static std::string_view NameOf(pbf_reader reader, uint32_t field) {
    std::string_view name;
    while (reader.next(field, protozero::pbf_wire_type::length_delimited)) name = View(reader.get_view());
    return name;
  }

  void ReadMessage(pbf_reader reader, std::string_view scope, int depth) {
    if (depth == 0) throw NestedTooDeep();
    const std::string full = Join(scope, NameOf(reader, message_descriptor::kName));
    symbols.push_back({full, true});
    while (reader.next()) {
      switch (reader.tag_and_type()) {
        case Delimited(message_descriptor::kField):
        case Delimited(message_descriptor::kExtension):
          ReadField(reader.get_message(), full);
          break;
        case Delimited(message_descriptor::kNestedType):
          ReadMessage(reader.get_message(), full, depth - 1);
          break;
        case Delimited(message_descriptor::kEnumType):
          ReadGroup(reader.get_message(), full, /*members_inside=*/false);
          break;
        case Delimited(message_descriptor::kOneofDecl):
          symbols.push_back({Join(full, NameOf(reader.get_message(), named_descriptor::kName))});
          break;
        default:
          reader.skip();
      }
    }
  }

  void ReadGroup(pbf_reader reader, std::string_view scope, bool members_inside) {
    const std::string full = Join(scope, NameOf(reader, group_descriptor::kName));
    symbols.push_back({full});
    while (reader.next(group_descriptor::kMember, protozero::pbf_wire_type::length_delimited)) {
      const std::string_view member = NameOf(reader.get_message(), named_descriptor::kName);
      symbols.push_back({Join(members_inside ? full : scope, member)});
    }
  }

  void ReadField(pbf_reader reader, std::string_view scope) {
    std::string_view own;
    std::string_view extendee;
    int32_t number = 0;
    while (reader.next()) {
      switch (reader.tag_and_type()) {
        case Delimited(field_descriptor::kName):
          own = View(reader.get_view());
          break;
        case Delimited(field_descriptor::kExtendee):
          extendee = View(reader.get_view());
          break;
        case Varint(field_descriptor::kNumber):
          number = reader.get_int32();
          break;
        default:
          reader.skip();
      }
    }
    symbols.push_back({Join(scope, own)});
    // Compilers write the name in full, with a dot before it.
    if (extendee.starts_with('.')) extendee.remove_prefix(1);
    if (!extendee.empty()) extensions.emplace_back(extendee, number);
  }

  std::string_view package_;
};

// The same file under another name, and with other names of what it imports.
std::string Renamed(std::string_view bytes, const std::string& name, const std::vector<std::string>& imports) {
  std::string renamed;
  protozero::pbf_writer writer(renamed);
  writer.add_string(file_descriptor::kName, name);
  for (const std::string& import : imports) writer.add_string(file_descriptor::kDependency, import);
  pbf_reader reader(bytes.data(), bytes.size());
  while (true) {
    const char* field = reader.data().data();
    if (!reader.next()) break;
    const uint32_t kind = reader.tag_and_type();
    reader.skip();
    if (kind == Delimited(file_descriptor::kName) || kind == Delimited(file_descriptor::kDependency)) continue;
    renamed.append(field, reader.data().data());
  }
  return renamed;
}

}  // namespace

class DescriptorIndex::Builder {
 public:
  // Throws what protozero throws; the number of the file it was about, from 1, is then `reading`.
  void Add(std::string_view set, bool leave_out_known);
  size_t reading = 0;
  DescriptorIndex index;

 private:
  struct Origin {
    std::string_view bytes;  // in the set
    std::vector<std::optional<File>> imports;
    File file;
  };
  std::string NewName(std::string_view name) const;
  void Name(const FileReader& file, File number);

  std::map<std::string, std::vector<Origin>, std::less<>> origins_;  // by the name that the file had
};

void DescriptorIndex::Builder::Add(std::string_view set, bool leave_out_known) {
  std::map<std::string_view, File> meant;  // by a name, at the place in the set that is read
  std::vector<std::pair<File, std::string_view>> missing;
  std::map<File, std::string> names;
  pbf_reader reader(set.data(), set.size());
  for (reading = 1; reader.next(file_set::kFile, protozero::pbf_wire_type::length_delimited); ++reading) {
    const std::string_view bytes = View(reader.get_view());
    const FileReader file(bytes);
    if (leave_out_known && std::ranges::all_of(file.symbols, [&](const FileReader::Symbol& symbol) {
          return index.symbols_.contains(symbol.name);
        })) {
      continue;
    }
    std::vector<std::optional<File>> imports;
    for (const std::string_view import : file.imports) {
      const auto found = meant.find(import);
      imports.push_back(found == meant.end() ? std::nullopt : std::optional(found->second));
    }
    std::vector<Origin>& origins = origins_[std::string(file.name)];
    const auto same = std::ranges::find_if(
        origins, [&](const Origin& origin) { return origin.bytes == bytes && origin.imports == imports; });
    if (same != origins.end()) {
      meant[file.name] = same->file;
      continue;
    }
    const File added = index.files_.size();
    origins.push_back({bytes, imports, added});
    meant[file.name] = added;
    Entry& entry = index.files_.emplace_back();
    const std::string name = NewName(file.name);
    names[added] = name;
    bool renamed = name != file.name;
    std::vector<std::string> import_names;
    for (size_t i = 0; i < imports.size(); ++i) {
      if (imports[i]) {
        entry.imports.push_back(*imports[i]);
        import_names.push_back(names[*imports[i]]);
      } else {
        missing.emplace_back(added, file.imports[i]);
        import_names.emplace_back(file.imports[i]);
      }
      renamed = renamed || import_names.back() != file.imports[i];
    }
    entry.bytes = renamed ? Renamed(bytes, name, import_names) : std::string(bytes);
    index.names_.emplace(name, added);
    Name(file, added);
  }
  // A set in another order, or one that leaves out what others have.
  for (const auto& [file, import] : missing) {
    const auto found = index.names_.find(import);
    if (found != index.names_.end()) index.files_[file].imports.push_back(found->second);
  }
}

std::string DescriptorIndex::Builder::NewName(std::string_view name) const {
  std::string candidate(name);
  for (int number = 2; index.names_.contains(candidate); ++number) {
    candidate = std::to_string(number) + "/" + std::string(name);
  }
  return candidate;
}

void DescriptorIndex::Builder::Name(const FileReader& file, File number) {
  for (const auto& [name, is_message] : file.symbols) index.symbols_.emplace(name, Symbol{number, is_message});
  for (const auto& [type, extension] : file.extensions) index.extensions_[type].emplace(extension, number);
}

Result<DescriptorIndex> DescriptorIndex::Create(std::string_view users, std::string_view built_in) {
  Builder builder;
  try {
    builder.Add(users, /*leave_out_known=*/false);
    builder.Add(built_in, /*leave_out_known=*/true);
  } catch (const protozero::exception& error) {
    return Status(Code::kInvalidArgument, "the descriptors are no serialized google.protobuf.FileDescriptorSet: file " +
                                              std::to_string(builder.reading) + ": " + Explain(error));
  }
  return std::move(builder.index);
}

std::optional<DescriptorIndex::File> DescriptorIndex::FileNamed(std::string_view name) const {
  const auto found = names_.find(name);
  return found == names_.end() ? std::nullopt : std::optional(found->second);
}

std::optional<DescriptorIndex::File> DescriptorIndex::FileContaining(std::string_view symbol) const {
  const auto found = symbols_.find(symbol);
  return found == symbols_.end() ? std::nullopt : std::optional(found->second.file);
}

std::optional<DescriptorIndex::File> DescriptorIndex::FileExtending(std::string_view type, int32_t number) const {
  const auto extended = extensions_.find(type);
  if (extended == extensions_.end()) return std::nullopt;
  const auto found = extended->second.find(number);
  return found == extended->second.end() ? std::nullopt : std::optional(found->second);
}

std::optional<std::vector<int32_t>> DescriptorIndex::ExtensionNumbers(std::string_view type) const {
  const auto message = symbols_.find(type);
  if (message == symbols_.end() || !message->second.is_message) return std::nullopt;
  std::vector<int32_t> numbers;
  const auto extended = extensions_.find(type);
  if (extended == extensions_.end()) return numbers;
  for (const auto& [number, file] : extended->second) numbers.push_back(number);
  return numbers;
}

std::vector<std::string_view> DescriptorIndex::WithImports(File file) const {
  std::vector<File> found = {file};
  std::vector<bool> seen(files_.size());
  seen[file] = true;
  for (size_t at = 0; at < found.size(); ++at) {
    for (const File import : files_[found[at]].imports) {
      if (seen[import]) continue;
      seen[import] = true;
      found.push_back(import);
    }
  }
  std::vector<std::string_view> bytes;
  for (const File each : found) bytes.emplace_back(files_[each].bytes);
  return bytes;
}

}  // namespace mindserve::wire
