#include "gateway/request_id.h"

#include <sys/random.h>

#include <cerrno>
#include <random>

#include "gateway/grpc_text.h"

namespace mindserve::gateway {
namespace {

constexpr std::string_view kHex = "0123456789abcdef";

}  // namespace

uint8_t RequestIds::NextByte() {
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
  return random_[used_++];
}

std::string RequestIds::Next() {
  std::array<uint8_t, kIdBytes> bytes;
  for (uint8_t& byte : bytes) byte = NextByte();
  bytes[6] = static_cast<uint8_t>(0x40 | (bytes[6] & 0x0f));  // version 4
  bytes[8] = static_cast<uint8_t>(0x80 | (bytes[8] & 0x3f));  // of that RFC
  std::string text(36, '-');
  size_t at = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) ++at;
    text[at++] = kHex[bytes[i] >> 4];
    text[at++] = kHex[bytes[i] & 15];
  }
  return text;
}

std::string RequestIds::NextPuid() {
  std::string text(40, '0');
  for (size_t at = 0; at < text.size(); at += 2) {
    const uint8_t byte = NextByte();
    text[at] = kHex[byte >> 4];
    text[at + 1] = kHex[byte & 15];
  }
  return text;
}

Status Identify(Call& call, RequestIds& ids, WithoutId without, std::string* id) {
  constexpr size_t kLongest = 128;
  const std::string_view given = call.metadata_value(kRequestIdKey);
  const bool valid = given.size() <= kLongest && IsMetadataText(given);
  if (valid && !given.empty()) {
    *id = given;
  } else if (!valid || without == WithoutId::kMakeOne) {
    *id = ids.Next();
  }
  if (!id->empty()) call.SetTrailing({{std::string(kRequestIdKey), *id}});
  if (valid) return Status::Ok();
  return {Code::kInvalidArgument, "metadata 'request_id' has " + std::to_string(given.size()) +
                                      " characters, expected at most 128 of printable ASCII"};
}

}  // namespace mindserve::gateway
