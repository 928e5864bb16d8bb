// The header fields of a call, as they come.
#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "gateway/call.h"
#include "gateway/message_reader.h"

namespace mindserve::gateway {

// RESOURCE_EXHAUSTED for metadata of more than max_metadata_bytes.
Status MetadataTooLarge(size_t max_bytes);

class RequestHead {
 public:
  void Clear();  // keeps its memory
  // Gives up path and metadata, and their memory; the rest stays.
  void DropTexts();

  // Spaces around the value are no part of it. `max_bytes`: max_metadata_bytes, counted as HTTP/2 counts a header list.
  void Add(std::string_view name, std::string_view value, size_t max_bytes);

  // What is wrong in terms of HTTP: 0, or the status to answer with.
  int http_error() const;
  // What is wrong in terms of gRPC.
  const Status& status() const { return status_; }

  std::string_view path() const { return path_; }
  Encoding encoding() const { return encoding_; }
  bool accepts_gzip() const { return accepts_gzip_; }
  std::optional<std::chrono::nanoseconds> timeout() const { return timeout_; }
  // As HTTP/2 counts a header list.
  size_t list_size() const { return list_size_; }
  // Made when first asked for.
  const Metadata& metadata() const;
  // The first value of a key, "" without one. Needs nothing to be made.
  std::string_view Value(std::string_view key) const;
  // Leaves a key out from now on.
  void Drop(std::string_view key);

 private:
  struct Field {
    size_t name, name_size, value_size;  // the value follows the name
  };
  void Fail(Status status);
  // Another field of so many bytes; false if it is beyond the limit.
  bool Count(size_t bytes, size_t max_bytes);
  void AddGrpc(std::string_view name, std::string_view value);
  void AddBinary(std::string_view name, std::string_view values, size_t max_bytes);
  void AddField(std::string_view name, std::string_view value);

  std::string path_;
  bool post_ = false;
  bool grpc_ = false;
  Encoding encoding_ = Encoding::kNone;
  bool accepts_gzip_ = false;
  std::optional<std::chrono::nanoseconds> timeout_;
  Status status_;
  size_t list_size_ = 0;
  std::string text_;  // names and values of the metadata, the latter as services see them
  std::vector<Field> fields_;
  mutable Metadata metadata_;
  mutable bool made_ = false;
};

}  // namespace mindserve::gateway
