#include "gateway/request_id.h"

#include <sys/random.h>

#include <cerrno>
#include <cstring>
#include <random>

#include "gateway/grpc_text.h"

namespace mindserve::gateway {

RequestKey RequestKeys::Next() {
  if (used_ == random_.size()) {
    for (size_t got = 0; got < random_.size();) {
      const ssize_t n = ::getrandom(random_.data() + got, random_.size() - got, 0);
      if (n > 0) {
        got += static_cast<size_t>(n);
      } else if (errno != EINTR) {
        // Kernels that forbid it; the ids need to differ, no more.
        std::random_device device;
        for (uint8_t& byte : random_) byte = static_cast<uint8_t>(device());
        break;
      }
    }
    used_ = 0;
  }
  RequestKey key;
  std::memcpy(&key.high, random_.data() + used_, sizeof(key.high));
  std::memcpy(&key.low, random_.data() + used_ + sizeof(key.high), sizeof(key.low));
  used_ += kKeyBytes;
  if (!key.known()) key.low = 1;  // that it was drawn is no reason to have none
  return key;
}

std::string RequestId::text() const {
  if (!given.empty()) return given;
  const RequestKeyText text = TextOf(made);
  return {text.data(), text.size()};
}

Status Identify(Call& call, RequestKeys& keys, RequestId* id) {
  constexpr size_t kLongest = 128;
  const std::string_view given = call.metadata_value(kRequestIdKey);
  const bool valid = given.size() <= kLongest && IsMetadataText(given);
  if (valid && !given.empty()) {
    id->given = given;
    call.SetTrailing({{std::string(kRequestIdKey), id->given}});
    return Status::Ok();
  }
  id->made = keys.Next();
  call.SetKey(id->made);
  if (valid) return Status::Ok();
  return {Code::kInvalidArgument, "metadata 'request_id' has " + std::to_string(given.size()) +
                                      " characters, expected at most 128 of printable ASCII"};
}

}  // namespace mindserve::gateway
