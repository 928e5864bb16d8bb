#include "gateway/inflater.h"

#include <zlib.h>

#include <algorithm>
#include <string>

namespace mindserve::gateway {

Status TooLarge(size_t max_bytes) {
  return {Code::kResourceExhausted,
          "the message is larger than max_msg_mb_size " + std::to_string(max_bytes >> 20) + " allows"};
}

struct Inflater::State {
  z_stream stream{};
  std::string name;
  bool started = false;
  bool done = false;
  size_t max_bytes = 0;
  size_t size = 0;
  std::vector<std::byte> output;  // the first `size` bytes are it
};

Inflater::Inflater(size_t max_bytes, Encoding encoding) : state_(std::make_unique<State>()) {
  const bool gzip = encoding == Encoding::kGzip;
  state_->max_bytes = max_bytes;
  state_->name = gzip ? "gzip" : "deflate";
  constexpr int kGzipBits = 16;  // added to the window bits: a gzip header, else zlib's, and nothing else
  state_->started = inflateInit2(&state_->stream, MAX_WBITS + (gzip ? kGzipBits : 0)) == Z_OK;
}

Inflater::~Inflater() {
  if (state_->started) inflateEnd(&state_->stream);
}

Status Inflater::Feed(std::span<const std::byte> data) {
  State& s = *state_;
  if (!s.started) return {Code::kResourceExhausted, "no memory to inflate a " + s.name + " message"};
  constexpr size_t kFirst = 16 * 1024;
  s.stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(data.data()));
  s.stream.avail_in = static_cast<uInt>(data.size());
  while (s.stream.avail_in > 0) {
    if (s.done) return {Code::kInternal, "the " + s.name + " message goes on behind its end"};
    if (s.size == s.output.size()) {
      // One byte over the limit is enough to know that there is more.
      const size_t grown = std::min(std::max(kFirst, s.output.size() * 2), s.max_bytes + 1);
      s.output.resize(grown);
    }
    s.stream.next_out = reinterpret_cast<Bytef*>(s.output.data() + s.size);
    s.stream.avail_out = static_cast<uInt>(s.output.size() - s.size);
    const int rc = inflate(&s.stream, Z_NO_FLUSH);
    s.size = s.output.size() - s.stream.avail_out;
    if (s.size > s.max_bytes) return TooLarge(s.max_bytes);
    if (rc == Z_STREAM_END) {
      s.done = true;
    } else if (rc != Z_OK) {
      return {Code::kInternal, "the message's " + s.name + " bytes are broken: " +
                                   (s.stream.msg != nullptr ? s.stream.msg : "no reason given")};
    }
  }
  return Status::Ok();
}

Status Inflater::End() const {
  if (!state_->done) return {Code::kInternal, "the message's " + state_->name + " bytes end too early"};
  return Status::Ok();
}

std::span<const std::byte> Inflater::output() const {
  return {state_->output.data(), state_->size};
}

}  // namespace mindserve::gateway
