#include "gateway/request_head.h"

#include <utility>

#include "gateway/grpc_text.h"

namespace mindserve::gateway {

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

void RequestHead::Fail(Status status) {
  if (status_.ok()) status_ = std::move(status);
}

void RequestHead::Add(std::string_view name, std::string_view value, size_t max_bytes) {
  constexpr size_t kFieldCost = 32;  // RFC 9113, section 6.5.2
  list_size_ += name.size() + value.size() + kFieldCost;
  const bool fits = list_size_ <= max_bytes;
  if (!fits) {
    Fail(MetadataTooLarge(max_bytes));
  }
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
  } else if (IsMetadataKey(name)) {
    fields_.push_back({text_.size(), name.size(), value.size()});
    text_.append(name).append(value);
  }
}

void RequestHead::AddGrpc(std::string_view name, std::string_view value) {
  if (name == "grpc-timeout") {
    timeout_ = ParseTimeout(value);
    if (!timeout_) Fail({Code::kInternal, "malformed grpc-timeout '" + std::string(value) + "'"});
  } else if (name == "grpc-encoding") {
    if (value == "identity") {
      encoding_ = Encoding::kIdentity;
    } else if (value == "gzip") {
      encoding_ = Encoding::kGzip;
    } else {
      Fail({Code::kUnimplemented,
            "grpc-encoding '" + std::string(value) + "' is not supported, only identity and gzip are"});
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
    const std::string_view name = text.substr(field.name, field.name_size);
    std::string_view value = text.substr(field.name + field.name_size, field.value_size);
    if (!IsBinaryKey(name)) {
      metadata_.emplace_back(name, value);
      continue;
    }
    // Several values of one key may have been joined by commas on the way.
    for (bool more = true; more;) {
      const size_t comma = value.find(',');
      more = comma != std::string_view::npos;
      // A value that is no base64 is left out: no service can have meant it.
      if (auto bytes = Base64Decode(value.substr(0, comma))) metadata_.emplace_back(name, std::move(*bytes));
      if (more) value.remove_prefix(comma + 1);
    }
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
