#include "gateway/request_head.h"

#include <utility>

#include "base/utf8.h"
#include "gateway/grpc_text.h"

namespace mindserve::gateway {
namespace {

std::string_view WithoutSpaces(std::string_view value) {
  while (value.starts_with(' ') || value.starts_with('\t')) value.remove_prefix(1);
  while (value.ends_with(' ') || value.ends_with('\t')) value.remove_suffix(1);
  return value;
}

}  // namespace

Status MetadataTooLarge(size_t max_bytes) {
  return {Code::kResourceExhausted,
          "the call's metadata is larger than max_metadata_bytes " + std::to_string(max_bytes) + " allows"};
}

void RequestHead::Clear() {
  path_.clear();
  post_ = grpc_ = accepts_gzip_ = false;
  encoding_ = Encoding::kNone;
  timeout_.reset();
  status_ = Status::Ok();
  list_size_ = 0;
  text_.clear();
  fields_.clear();
  metadata_.clear();
  made_ = false;
}

void RequestHead::DropTexts() {
  // What is cleared, or assigned an empty text, keeps what it has allocated.
  std::string().swap(path_);
  std::string().swap(text_);
  std::vector<Field>().swap(fields_);
  Metadata().swap(metadata_);
  made_ = false;
}

void RequestHead::Fail(Status status) {
  if (status_.ok()) status_ = std::move(status);
}

bool RequestHead::Count(size_t bytes, size_t max_bytes) {
  constexpr size_t kFieldCost = 32;  // RFC 9113, section 6.5.2
  list_size_ += bytes + kFieldCost;
  if (list_size_ > max_bytes) Fail(MetadataTooLarge(max_bytes));
  return list_size_ <= max_bytes;
}

void RequestHead::Add(std::string_view name, std::string_view value, size_t max_bytes) {
  const bool fits = Count(name.size() + value.size(), max_bytes);
  value = WithoutSpaces(value);
  // What decides on the form of the answer is looked at in any case.
  if (name == ":method") {
    post_ = value == "POST";
  } else if (name == "content-type") {
    grpc_ = IsGrpcContentType(value);
  }
  if (!fits) return;
  if (name == ":path") {
    path_.assign(value);
  } else if (name.starts_with("grpc-")) {
    AddGrpc(name, value);
  } else if (!IsMetadataKey(name)) {
    return;
  } else if (IsBinaryKey(name)) {
    AddBinary(name, value, max_bytes);
  } else {
    AddField(name, value);
  }
}

void RequestHead::AddField(std::string_view name, std::string_view value) {
  fields_.push_back({text_.size(), name.size(), value.size()});
  text_.append(name).append(value);
}

void RequestHead::AddBinary(std::string_view name, std::string_view values, size_t max_bytes) {
  // Several values of one key may have been joined on the way, by commas, around which HTTP allows spaces. Each becomes
  // a field of its own again, with the key: they count as such, or commas behind a long key would make much of little.
  for (;;) {
    const size_t comma = values.find(',');
    const bool more = comma != std::string_view::npos;
    const std::string_view value = WithoutSpaces(values.substr(0, comma));
    const auto bytes = Base64Decode(value);
    if (!bytes) {
      return Fail({Code::kInvalidArgument, "metadata '" + std::string(CutUtf8(name, 64)) +
                                               "' has a value that is not base64 (of the alphabet with '+' and '/', "
                                               "padded or not), as that of a '-bin' key has to be"});
    }
    AddField(name, *bytes);
    if (!more) return;
    values.remove_prefix(comma + 1);
    if (!Count(name.size(), max_bytes)) return;
  }
}

void RequestHead::AddGrpc(std::string_view name, std::string_view value) {
  if (name == "grpc-timeout") {
    timeout_ = ParseTimeout(value);
    if (!timeout_) Fail({Code::kInternal, "malformed grpc-timeout '" + std::string(CutUtf8(value, 64)) + "'"});
  } else if (name == "grpc-encoding") {
    if (value == "identity") {
      encoding_ = Encoding::kIdentity;
    } else if (value == "gzip") {
      encoding_ = Encoding::kGzip;
    } else if (value == "deflate") {
      encoding_ = Encoding::kDeflate;
    } else {
      Fail({Code::kUnimplemented, "grpc-encoding '" + std::string(CutUtf8(value, 64)) + "' is not supported, only " +
                                      kAcceptedEncodings + " are"});
    }
  } else if (name == "grpc-accept-encoding") {
    accepts_gzip_ = value.find("gzip") != std::string_view::npos;
  }
}

int RequestHead::http_error() const {
  if (!post_) return 405;
  return grpc_ ? 0 : 415;
}

const Metadata& RequestHead::metadata() const {
  if (made_) return metadata_;
  made_ = true;
  const std::string_view text = text_;
  for (const Field& field : fields_) {
    metadata_.emplace_back(text.substr(field.name, field.name_size),
                           text.substr(field.name + field.name_size, field.value_size));
  }
  return metadata_;
}

void RequestHead::Drop(std::string_view key) {
  std::erase_if(fields_, [&](const Field& field) {
    return field.name_size == key.size() && std::string_view(text_).substr(field.name, field.name_size) == key;
  });
  if (made_) std::erase_if(metadata_, [&](const auto& each) { return each.first == key; });
}

std::string_view RequestHead::Value(std::string_view key) const {
  const std::string_view text = text_;
  for (const Field& field : fields_) {
    if (text.substr(field.name, field.name_size) != key) continue;
    return text.substr(field.name + field.name_size, field.value_size);
  }
  return {};
}

}  // namespace mindserve::gateway
