#include "gateway/plain_trailers.h"

#include <algorithm>
#include <cstddef>
#include <span>
#include <string_view>

#include "gateway/request_id.h"

namespace mindserve::gateway {
namespace {

constexpr uint8_t kHeaders = 0x1;  // the frame's type
constexpr size_t kFrameHead = 9;

// A field whose name and value are shorter than 127 bytes: "literal without indexing", neither of them in Huffman's
// code.
class Block {
 public:
  void Add(std::string_view name, std::string_view value) {
    Put('\0');
    PutText(name);
    PutText(value);
  }
  void Put(char byte) { bytes_[size_++] = static_cast<std::byte>(byte); }
  void PutText(std::string_view text) {
    Put(static_cast<char>(text.size()));
    std::ranges::transform(text, bytes_.begin() + static_cast<ptrdiff_t>(size_),
                           [](char c) { return static_cast<std::byte>(c); });
    size_ += text.size();
  }
  void Skip(size_t bytes) { size_ += bytes; }
  std::array<std::byte, 96>& bytes() { return bytes_; }
  size_t size() const { return size_; }

 private:
  std::array<std::byte, 96> bytes_;
  size_t size_ = 0;
};

}  // namespace

void PutPlainTrailers(int32_t stream, const RequestKey& key, Output& output) {
  Block block;
  block.Skip(kFrameHead);
  block.Add("grpc-status", "0");
  if (key.known()) {
    const RequestKeyText text = TextOf(key);
    block.Add(kRequestIdKey, {text.data(), text.size()});
  }
  const auto id = static_cast<uint32_t>(stream);
  const uint8_t head[kFrameHead] = {0,
                                    0,
                                    static_cast<uint8_t>(block.size() - kFrameHead),
                                    kHeaders,
                                    kEndStream | kEndHeaders,
                                    static_cast<uint8_t>(id >> 24),
                                    static_cast<uint8_t>(id >> 16),
                                    static_cast<uint8_t>(id >> 8),
                                    static_cast<uint8_t>(id)};
  std::ranges::copy(std::as_bytes(std::span(head)), block.bytes().begin());
  output.Copy(std::span(block.bytes()).first(block.size()));
}

}  // namespace mindserve::gateway
