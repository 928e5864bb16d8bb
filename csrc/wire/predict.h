// The Predict messages of protos/ms_service.proto (package mindspore.serving.proto), read and written without copies.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tensor/tensor.h"

namespace mindserve::wire {

// ErrorMsg.error_code.
enum class ErrorCode : int64_t {
  kSuccess = 0,
  kFailed = 1,
  kInvalidInput = 2,
  kSystemError = 3,
  kWorkerUnavailable = 4,
  kServableUnavailable = 5,
};

inline constexpr size_t kErrorCodes = 6;
inline constexpr std::string_view kErrorCodeNames[kErrorCodes] = {
    "SUCCESS", "FAILED", "INVALID_INPUT", "SYSTEM_ERROR", "WORKER_UNAVAILABLE", "SERVABLE_UNAVAILABLE"};

// What a failure of an instance, or of all, is called in a reply.
ErrorCode ErrorCodeOf(Code code);
// As the status of a call, where the failure is that: what is nearest to what it was.
Code CodeOf(ErrorCode code);

// Where bytes lie in a message.
struct Extent {
  size_t offset = 0;
  size_t length = 0;
};

// Of a request's servable_spec, which its reply repeats: else a client that reads no replies could have the server hold
// any number of bytes for each.
inline constexpr size_t kMostSpecBytes = 4096;

// What the gateway needs to know of a PredictRequest. The views look into the request.
struct Route {
  std::string_view servable;
  std::string_view method;
  uint64_t version = 0;
  // The servable_spec field's content as it stands in the request, for the reply to repeat.
  Extent spec;
  // There are several such fields: `spec` is the last one's alone, and SpecContent of the above says what all mean.
  bool merged = false;
  // One extent an instance: the whole field (tag, length, content), so that a run of them is itself a PredictRequest.
  std::vector<Extent> instances;
};

// Reads the top level of a PredictRequest and the three fields of its spec into `route` (whose memory is reused).
// Unknown fields are skipped. A spec that stands several times is the last one's fields merged, as protobuf says.
// INVALID_ARGUMENT if the bytes don't parse, a name is no UTF-8, or specs have more than kMostSpecBytes;
// RESOURCE_EXHAUSTED naming max_instances_per_request over `max_instances`.
Status ReadRoute(std::span<const std::byte> request, size_t max_instances, Route* route);

// Where the elements of the first large tensor (4 KiB and more) begin in a PredictRequest of which `begin` are the
// first bytes; nothing if they don't reach that far, or are none. So that whoever is about to store the request can
// place it with these elements aligned: a tensor that is not costs its reader a copy.
std::optional<size_t> FirstLargeData(std::span<const std::byte> begin);

// Reads instances of a PredictRequest in their order.
class InstanceReader {
 public:
  // `names` are a method's inputs, in slot order; it and `request` outlive the reader. Tensors will hold `owner`.
  InstanceReader(std::span<const std::byte> request, std::span<const std::string> names, TensorOwner owner);

  // Moves to the next instance. False at the end, or when the request doesn't parse: see status().
  bool Next();
  const Status& status() const { return status_; }

  // Reads the present instance into `slots` (resized to the names' count), as views into the request:
  // nothing is copied, and tensors may be unaligned. An error belongs to this instance alone:
  // DATA_LOSS if its bytes don't parse, which is the whole request's fault;
  // INVALID_ARGUMENT "Cannot find input x1 in instance input", an unknown data type, a shape that the bytes don't fit.
  // Inputs that `names` lacks are ignored. A name that stands twice: the last one counts, as in a protobuf map.
  // String elements are handed on as they are, UTF-8 or not. After an error all slots are empty.
  Status Read(std::vector<Tensor>* slots);
  // The same of an Instance's bytes that stand in no request.
  Status ReadAlone(std::span<const std::byte> instance, std::vector<Tensor>* slots);

 private:
  Status ReadItems();
  Status ReadSlot(size_t slot, Tensor* tensor) const;

  std::span<const std::byte> request_;
  std::span<const std::string> names_;
  TensorOwner owner_;
  size_t position_ = 0;
  std::span<const std::byte> instance_;
  std::vector<std::string_view> values_;  // a Tensor message per slot; null where the instance has none
  Status status_;
};

// The result of one instance: outputs in the order of the method's output names, or what went wrong.
struct InstanceReply {
  std::vector<Tensor> outputs;
  ErrorCode code = ErrorCode::kSuccess;
  std::string error;
};

// A tensor's bytes that are still to be copied into a reply.
struct LaterCopy {
  std::byte* to;
  std::span<const std::byte> from;
};

// Writes the part of a PredictReply that a worker answers: `instances`, and `error_msg` (one an instance) if one of
// them failed. Two steps, so that the bytes are written once, straight into shared memory.
class ReplyWriter {
 public:
  // `names` are the method's outputs; it and `replies` outlive the writer.
  ReplyWriter(std::span<const std::string> names, std::span<const InstanceReply> replies);
  size_t size() const { return size_; }
  bool has_errors() const { return has_errors_; }
  // Writes exactly size() bytes. With `later` a tensor's bytes that are many (64 KiB and more) are not copied but left
  // to the caller, who may want to do other things in between.
  void WriteTo(std::span<std::byte> out, std::vector<LaterCopy>* later = nullptr) const;

 private:
  std::span<const std::string> names_;
  std::span<const InstanceReply> replies_;
  std::vector<size_t> sizes_;  // of the length-delimited contents, in the order in which they are written
  size_t size_ = 0;
  bool has_errors_ = false;
};

// A whole reply that says one thing went wrong for all of the request: servable_spec (its content, may be empty) and
// one error_msg.
std::string ErrorReply(std::string_view spec, ErrorCode code, std::string_view message);

// The servable_spec field of a reply with this content (nothing for none); what comes before the workers' parts when a
// reply is joined.
std::string SpecField(std::string_view spec);

// A servable_spec's content, as proto3 writes it: nothing for what is empty or 0.
std::string SpecContent(std::string_view servable, std::string_view method, uint64_t version);

// Adds up how often each error code stands in `reply`, a part of a PredictReply, in `counts`; codes outside the table
// count as kFailed. As far as it parses.
void CountErrorCodes(std::span<const std::byte> reply, std::span<uint64_t, kErrorCodes> counts);

// `count` error_msg fields with code 0, for the part of a split reply in which nothing failed while another's did.
std::string SuccessErrors(size_t count);

}  // namespace mindserve::wire
