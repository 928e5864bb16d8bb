// nghttp2 with owners, and set up as a gRPC server needs it.
#pragma once

#include <nghttp2/nghttp2.h>

#include <cstdint>
#include <memory>

#include "gateway/limits.h"

namespace mindserve::gateway {

struct Http2Deleter {
  void operator()(nghttp2_session* session) const { nghttp2_session_del(session); }
  void operator()(nghttp2_session_callbacks* callbacks) const { nghttp2_session_callbacks_del(callbacks); }
  void operator()(nghttp2_option* option) const { nghttp2_option_del(option); }
};
template <typename T>
using Http2Owned = std::unique_ptr<T, Http2Deleter>;

// A body of this size comes without waiting for a WINDOW_UPDATE; memory is bounded by max_enqueued_bytes.
inline constexpr uint32_t kStreamWindow = 4 << 20;
inline constexpr int32_t kConnectionWindow = 64 << 20;
inline constexpr uint32_t kMaxFrameSize = 256 << 10;

// Options and callbacks, shared by the sessions of a thread. Immutable.
struct Http2Settings {
  Http2Settings();
  Http2Owned<nghttp2_option> option;
  Http2Owned<nghttp2_session_callbacks> callbacks;
};

// Queues the server's SETTINGS and the connection's window.
void SubmitSettings(nghttp2_session* session, const Limits& limits, uint32_t max_streams);

// A header field with a name, or both, that live for ever: nghttp2 copies the rest.
nghttp2_nv StaticField(const char* name, const char* value);
nghttp2_nv Field(const char* name, std::string_view value);
nghttp2_nv Field(std::string_view name, std::string_view value);

}  // namespace mindserve::gateway
