#include "gateway/http2_session.h"

#include <limits>

#include "gateway/http2_connection.h"

namespace mindserve::gateway {

Http2Settings::Http2Settings() {
  nghttp2_option* made_option = nullptr;
  nghttp2_option_new(&made_option);
  option.reset(made_option);
  nghttp2_option_set_no_closed_streams(option.get(), 1);
  nghttp2_option_set_no_auto_window_update(option.get(), 1);  // a stream may withhold its own: see GrpcStream
  // The connection counts what calls for them: max_control_frames_per_second.
  nghttp2_option_set_max_outbound_ack(option.get(), std::numeric_limits<int32_t>::max());
#ifdef MINDSERVE_NGHTTP2_RESET_RATE_LIMIT
  // The connection counts resets itself, the same with every nghttp2; nghttp2's own default would forbid ordinary
  // cancellation.
  constexpr uint64_t kUnlimited = std::numeric_limits<uint32_t>::max();
  nghttp2_option_set_stream_reset_rate_limit(option.get(), kUnlimited, kUnlimited);
#endif
#ifdef MINDSERVE_NGHTTP2_CONTINUATIONS
  // The connection counts what a block of header fields has: max_metadata_bytes.
  nghttp2_option_set_max_continuations(option.get(), std::numeric_limits<uint32_t>::max());
#endif
#ifdef MINDSERVE_NGHTTP2_SPACES
  // gRPC takes metadata with spaces around its value, and drops them: RequestHead does.
  nghttp2_option_set_no_rfc9113_leading_and_trailing_ws_validation(option.get(), 1);
#endif
  // Frames of types that nghttp2 knows nothing of count like others.
  constexpr int kFirstExtension = 0x0a;
  for (int type = kFirstExtension; type <= std::numeric_limits<uint8_t>::max(); ++type) {
    nghttp2_option_set_user_recv_extension_type(option.get(), static_cast<uint8_t>(type));
  }
  nghttp2_session_callbacks* made_callbacks = nullptr;
  nghttp2_session_callbacks_new(&made_callbacks);
  callbacks.reset(made_callbacks);
  Http2Connection::SetCallbacks(callbacks.get());
}

void SubmitSettings(nghttp2_session* session, const Limits& limits, uint32_t max_streams) {
  // RFC 9218; not every nghttp2 has a name for it. Spares the tree of RFC 7540's priorities.
  constexpr int32_t kNoRfc7540Priorities = 9;
  const nghttp2_settings_entry entries[] = {
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, max_streams},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, kStreamWindow},
      {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, kMaxFrameSize},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, static_cast<uint32_t>(limits.max_metadata_bytes)},
      {kNoRfc7540Priorities, 1},
  };
  nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, entries, std::size(entries));
  nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0, kConnectionWindow);
}

namespace {

nghttp2_nv Make(std::string_view name, std::string_view value, int flags) {
  return {reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
          reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(),
          static_cast<uint8_t>(flags)};
}

}  // namespace

nghttp2_nv StaticField(const char* name, const char* value) {
  return Make(name, value, NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE);
}
nghttp2_nv Field(const char* name, std::string_view value) {
  return Make(name, value, NGHTTP2_NV_FLAG_NO_COPY_NAME);
}
nghttp2_nv Field(std::string_view name, std::string_view value) {
  return Make(name, value, NGHTTP2_NV_FLAG_NONE);
}

}  // namespace mindserve::gateway
