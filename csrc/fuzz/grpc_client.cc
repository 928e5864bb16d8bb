#include "fuzz/grpc_client.h"

#include <algorithm>
#include <cstring>

namespace mindserve::fuzz {

std::string Framed(std::string_view message, bool compressed) {
  std::string framed(1, compressed ? 1 : 0);
  for (int shift = 24; shift >= 0; shift -= 8) framed += static_cast<char>(message.size() >> shift & 0xff);
  return framed.append(message);
}

struct GrpcClient::Callbacks {
  static GrpcClient& Self(void* user) { return *static_cast<GrpcClient*>(user); }

  static int OnHeader(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                      const uint8_t* value, size_t value_size, uint8_t, void* user) {
    Call& call = Self(user).calls_.at(frame->hd.stream_id);
    const std::string_view key(reinterpret_cast<const char*>(name), name_size);
    const std::string_view text(reinterpret_cast<const char*>(value), value_size);
    if (key == ":status") call.http_status = std::atoi(std::string(text).c_str());
    if (key == "content-type") call.grpc = text.starts_with("application/grpc");
    if (key == "grpc-status") {
      ++call.grpc_statuses;
      FUZZ_REQUIRE(!text.empty() && text.size() <= 2 &&
                   std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; }));
    }
    return 0;
  }

  static int OnData(nghttp2_session* session, uint8_t, int32_t id, const uint8_t*, size_t size, void* user) {
    nghttp2_session_consume_connection(session, size);
    Self(user).calls_.at(id).received += size;
    return 0;
  }

  static int OnClose(nghttp2_session*, int32_t id, uint32_t error, void* user) {
    Call& call = Self(user).calls_.at(id);
    FUZZ_REQUIRE(!call.closed);
    call.closed = true;
    // One answer: an error of HTTP, or a status of gRPC; nothing only where the stream was reset.
    if (error != NGHTTP2_NO_ERROR || call.reset) return 0;
    FUZZ_REQUIRE(call.http_status != 0);
    if (call.http_status == 200) FUZZ_REQUIRE(call.grpc && call.grpc_statuses == 1);
    return 0;
  }

  static ssize_t Read(nghttp2_session*, int32_t id, uint8_t* into, size_t max, uint32_t* flags, nghttp2_data_source*,
                      void* user) {
    Call& call = Self(user).calls_.at(id);
    const size_t n = std::min(max, call.out.size() - call.sent);
    if (n == 0 && !call.ends) {
      call.deferred = true;
      return NGHTTP2_ERR_DEFERRED;
    }
    std::memcpy(into, call.out.data() + call.sent, n);
    call.sent += n;
    if (call.ends && call.sent == call.out.size()) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return static_cast<ssize_t>(n);
  }
};

GrpcClient::GrpcClient(GatewayHarness& harness, bool internal, uint32_t stream_window) : harness_(harness) {
  nghttp2_session_callbacks* callbacks = nullptr;
  nghttp2_session_callbacks_new(&callbacks);
  callbacks_.reset(callbacks);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, Callbacks::OnHeader);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, Callbacks::OnData);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, Callbacks::OnClose);
  nghttp2_option* option = nullptr;
  nghttp2_option_new(&option);
  nghttp2_option_set_no_auto_window_update(option, 1);
  nghttp2_session* session = nullptr;
  nghttp2_session_client_new2(&session, callbacks, this, option);
  nghttp2_option_del(option);
  session_.reset(session);
  const nghttp2_settings_entry entries[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, stream_window}};
  nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, entries, 1);
  harness_.Connect(internal);
}

GrpcClient::~GrpcClient() {
  if (harness_.connected()) harness_.HangUp();
}

int32_t GrpcClient::Start(std::string_view path, const Fields& more, bool ends) {
  Fields fields = {{":method", "POST"},      {":scheme", "http"}, {":path", std::string(path)},
                   {":authority", "server"}, {"te", "trailers"},  {"content-type", "application/grpc"}};
  fields.insert(fields.end(), more.begin(), more.end());
  return StartRaw(fields, ends);
}

int32_t GrpcClient::StartRaw(const Fields& fields, bool ends) {
  std::vector<nghttp2_nv> list;
  for (const auto& [name, value] : fields) list.push_back(gateway::Field(std::string_view(name), value));
  nghttp2_data_provider provider{};
  provider.read_callback = Callbacks::Read;
  const int32_t id =
      nghttp2_submit_request(session_.get(), nullptr, list.data(), list.size(), ends ? nullptr : &provider, nullptr);
  if (id < 0) return -1;
  calls_[id].ends = ends;
  order_.push_back(id);
  return id;
}

void GrpcClient::Send(int32_t id, std::string_view bytes, bool ends) {
  Call& call = calls_.at(id);
  if (call.ends || call.closed) return;
  call.out.append(bytes);
  call.ends = ends;
  if (std::exchange(call.deferred, false)) nghttp2_session_resume_data(session_.get(), id);
}

void GrpcClient::Reset(int32_t id) {
  calls_.at(id).reset = true;
  nghttp2_submit_rst_stream(session_.get(), NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
}

void GrpcClient::Ping() {
  nghttp2_submit_ping(session_.get(), NGHTTP2_FLAG_NONE, nullptr);
}

void GrpcClient::GiveWindow(int32_t id, uint32_t bytes) {
  if (calls_.at(id).closed || bytes == 0) return;
  nghttp2_submit_window_update(session_.get(), NGHTTP2_FLAG_NONE, id, static_cast<int32_t>(bytes));
}

void GrpcClient::Run() {
  constexpr int kMostRounds = 100'000;
  for (int i = 0; harness_.connected(); ++i) {
    FUZZ_REQUIRE(i < kMostRounds);
    Pipe& pipe = harness_.pipe();
    const uint8_t* data = nullptr;
    for (ssize_t n; (n = nghttp2_session_mem_send(session_.get(), &data)) > 0;) {
      pipe.to_gateway.append(reinterpret_cast<const char*>(data), static_cast<size_t>(n));
    }
    const bool worked = harness_.Round();
    const std::string came = std::exchange(pipe.to_client, {});
    if (!came.empty()) {
      const auto* bytes = reinterpret_cast<const uint8_t*>(came.data());
      // What the gateway says is HTTP/2.
      FUZZ_REQUIRE(nghttp2_session_mem_recv(session_.get(), bytes, came.size()) == static_cast<ssize_t>(came.size()));
    }
    if (!worked && came.empty() && nghttp2_session_want_write(session_.get()) == 0) return;
    if (!worked && came.empty() && !harness_.connected()) return;
  }
}

}  // namespace mindserve::fuzz
