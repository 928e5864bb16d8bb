// HTTP/2 and gRPC's framing on it, right and wrong, against a real gateway.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <mutex>
#include <thread>

#include "base/log.h"
#include "gateway/health_service.h"
#include "gateway/predict_service.h"
#include "gateway/test_client.h"
#include "gateway/test_gateway.h"
#include "gateway/test_worker.h"

namespace mindserve::gateway {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

// For clients that count their rounds by pings, as fast as they can.
constexpr size_t kManyFrames = 1'000'000'000;

int Number(Code code) {
  return static_cast<int>(code);
}

class Http2Test : public GatewayTest {
 protected:
  static std::string Add() { return PredictRequest("add", "add", 0, {{1, 2}}); }
  static float Sum(const TestClient::Response& response) {
    EXPECT_EQ(response.grpc_status(), 0) << response.grpc_message();
    const auto messages = response.messages();
    const auto sums = messages.empty() ? std::vector<float>{} : ParseReply(messages[0]).sums;
    return sums.empty() ? 0 : sums[0];
  }
  // Everything up to the end of the connection.
  static std::string ReadAll(int fd) {
    std::string all;
    char buffer[4096];
    for (;;) {
      pollfd wait{fd, POLLIN, 0};
      if (::poll(&wait, 1, 20'000) != 1) {
        ADD_FAILURE() << "the connection is not closed";
        return all;
      }
      const ssize_t n = ::recv(fd, buffer, sizeof(buffer), 0);
      if (n <= 0) return all;
      all.append(buffer, static_cast<size_t>(n));
    }
  }
  static void Write(int fd, std::string_view bytes) {
    EXPECT_EQ(::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
};

// Log lines of the test that made it.
class LogLines {
 public:
  LogLines() {
    SetLogSink([this](LogLevel, std::string_view line) {
      std::lock_guard lock(mutex_);
      lines_.emplace_back(line);
    });
  }
  ~LogLines() { SetLogSink(nullptr); }
  size_t Count(std::string_view text) {
    std::lock_guard lock(mutex_);
    return static_cast<size_t>(
        std::ranges::count_if(lines_, [&](const std::string& line) { return line.find(text) != std::string::npos; }));
  }

 private:
  std::mutex mutex_;
  std::vector<std::string> lines_;
};

TEST_F(Http2Test, SettingsTellTheLimits) {
  Limits limits;
  limits.max_concurrent_streams = 17;
  limits.max_metadata_bytes = 5000;
  TestClient client(Listen(limits));
  client.RunUntil([&] { return !client.settings().empty(); });
  const auto settings = client.settings();
  EXPECT_EQ(settings.at(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS), 17u);
  EXPECT_EQ(settings.at(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE), 5000u);
  client.Ping();
  client.RunUntil([&] { return client.pings_acked() == 1; });
}

TEST_F(Http2Test, AnUnknownPathIsUnimplemented) {
  TestClient client(Listen());
  const auto& response = client.Call("/mindspore.serving.proto.MSService/Nothing", "");
  EXPECT_EQ(response.headers.at(":status"), "200");
  EXPECT_EQ(response.grpc_status(), Number(Code::kUnimplemented));
  EXPECT_THAT(response.grpc_message(), HasSubstr("MSService/Nothing"));
  EXPECT_THAT(client.Call("/100%\xc3\xa9", "").grpc_message(), HasSubstr("'/100%\xc3\xa9'"));
}

TEST_F(Http2Test, WhatIsNoGrpcIsAnsweredInHttp) {
  TestClient client(Listen());
  const auto status = [&](const std::string& method, const std::string& type) {
    const int32_t id = client.StartRaw({{":method", method},
                                        {":scheme", "http"},
                                        {":path", kPredictPath},
                                        {":authority", "test"},
                                        {"content-type", type}},
                                       "", true);
    return client.Wait(id).headers.at(":status");
  };
  EXPECT_EQ(status("GET", "application/grpc"), "405");
  EXPECT_EQ(status("POST", "application/json"), "415");
  EXPECT_EQ(status("POST", "application/grpc-web"), "415");
  EXPECT_EQ(status("POST", "application/grpc+proto"), "200");
}

TEST_F(Http2Test, AMessageMayComeByteByByte) {
  TestWorker worker(*gateway_, 1, "add");
  TestClient client(Listen());
  const std::string body = Framed(Add());
  const int32_t call = client.Start(kPredictPath, "", false);
  for (char byte : body) {
    client.Send(call, {&byte, 1}, false);
    client.Flush();
  }
  client.Send(call, "", true);
  EXPECT_EQ(Sum(client.Wait(call)), 3);
}

TEST_F(Http2Test, WhatIsCompressedIsInflated) {
  TestWorker worker(*gateway_, 1, "add");
  TestClient client(Listen());
  const auto call = [&](const std::string& message, bool compressed, const char* encoding) -> const auto& {
    return client.Wait(client.Start(kPredictPath, Framed(message, compressed), true, {{"grpc-encoding", encoding}}));
  };
  for (const auto& [name, packed, other] :
       {std::tuple("gzip", Gzip(Add()), Deflate(Add())), std::tuple("deflate", Deflate(Add()), Gzip(Add()))}) {
    EXPECT_EQ(Sum(call(packed, true, name)), 3) << name;
    EXPECT_EQ(Sum(call(Add(), false, name)), 3) << "a message may still be sent as it is";
    for (const std::string& broken : {Add(), packed.substr(0, packed.size() - 1), other}) {
      const auto& response = call(broken, true, name);
      EXPECT_EQ(response.grpc_status(), Number(Code::kInternal));
      EXPECT_THAT(response.grpc_message(), HasSubstr(std::string(name) + " bytes"));
    }
  }
  EXPECT_EQ(Sum(call(Add(), false, "identity")), 3);
}

TEST_F(Http2Test, CompressionThatIsNotOfferedIsRefused) {
  TestClient client(Listen());
  const auto& unnamed = client.Wait(client.Start(kPredictPath, Framed(Gzip(Add()), true)));
  EXPECT_EQ(unnamed.grpc_status(), Number(Code::kInternal));
  const auto& unknown = client.Wait(client.Start(kPredictPath, Framed(Add(), true), true, {{"grpc-encoding", "zstd"}}));
  EXPECT_EQ(unknown.grpc_status(), Number(Code::kUnimplemented));
  EXPECT_THAT(unknown.grpc_message(), HasSubstr("zstd"));
  EXPECT_EQ(unknown.trailers.at("grpc-accept-encoding"), "identity,deflate,gzip");
}

TEST_F(Http2Test, AMessageOverTheLimitIsRefusedBeforeItComes) {
  TestWorker worker(*gateway_, 1, "add");
  Limits limits;
  limits.max_msg_mb_size = 1;
  TestClient client(Listen(limits));
  // Only the prefix is sent.
  const std::string prefix = Framed(std::string((1 << 20) + 1, 'x')).substr(0, 5);
  const auto& large = client.Wait(client.Start(kPredictPath, prefix, false));
  EXPECT_EQ(large.grpc_status(), Number(Code::kResourceExhausted));
  EXPECT_THAT(large.grpc_message(), HasSubstr("max_msg_mb_size 1"));

  const std::string zeros(50 << 20, '\0');
  for (const auto& [encoding, bomb] : {std::pair("gzip", Gzip(zeros)), std::pair("deflate", Deflate(zeros))}) {
    ASSERT_LT(bomb.size(), 100'000u);
    const auto& inflated =
        client.Wait(client.Start(kPredictPath, Framed(bomb, true), true, {{"grpc-encoding", encoding}}));
    EXPECT_EQ(inflated.grpc_status(), Number(Code::kResourceExhausted));
    EXPECT_THAT(inflated.grpc_message(), HasSubstr("max_msg_mb_size 1"));
  }
  EXPECT_EQ(Sum(client.Call(kPredictPath, Add())), 3);
}

TEST_F(Http2Test, BrokenFramingIsInternal) {
  TestWorker worker(*gateway_, 1, "add");
  TestClient client(Listen());
  const auto code = [&](const std::string& body) {
    return client.Wait(client.Start(kPredictPath, body)).grpc_status();
  };
  EXPECT_EQ(code(""), Number(Code::kInternal));
  EXPECT_EQ(code(std::string(3, '\0')), Number(Code::kInternal));
  EXPECT_EQ(code(Framed(Add()).substr(0, 20)), Number(Code::kInternal));
  EXPECT_EQ(code("\x02" + Framed(Add()).substr(1)), Number(Code::kInternal));
  EXPECT_EQ(code(Framed(Add()) + Framed(Add())), Number(Code::kUnimplemented));
  EXPECT_EQ(code(Framed(Add()) + "x"), Number(Code::kUnimplemented));
  EXPECT_EQ(worker.calls(), 0u);
}

TEST_F(Http2Test, MetadataOverTheLimitIsRefused) {
  TestWorker worker(*gateway_, 1, "add");
  TestClient client(Listen());
  const auto& large = client.Call(kPredictPath, Add(), {{"x-large", std::string(16 * 1024, 'm')}});
  EXPECT_EQ(large.grpc_status(), Number(Code::kResourceExhausted));
  EXPECT_THAT(large.grpc_message(), HasSubstr("max_metadata_bytes"));
  EXPECT_EQ(Sum(client.Call(kPredictPath, Add(), {{"x-small", std::string(1000, 'm')}, {"x-bin", "AAEC"}})), 3);
}

TEST_F(Http2Test, OrdinaryCancellationPassesAndAFloodOfItDoesNot) {
  TestWorker worker(*gateway_, 1, "add");
  Limits limits;
  limits.max_resets_per_second = 100;
  const net::Address address = Listen(limits);
  TestClient client(address);
  for (int i = 0; i < 90; ++i) {
    const int32_t call = client.Start(kPredictPath, Framed(Add()), false);
    client.Flush();  // a call that has not been sent would not be reset but forgotten
    client.Reset(call);
  }
  EXPECT_EQ(Sum(client.Call(kPredictPath, Add())), 3);

  TestClient flood(address);
  for (int i = 0; i < 5000 && !flood.ended(); ++i) {
    const int32_t call = flood.Start(kPredictPath, Framed(Add()), false);
    flood.Flush();
    flood.Reset(call);
    flood.Flush();
  }
  flood.RunUntil([&] { return flood.ended(); });
  EXPECT_EQ(Sum(client.Call(kPredictPath, Add())), 3);
}

TEST_F(Http2Test, AFloodOfPingsOrSettingsEndsItsConnectionAlone) {
  TestWorker worker(*gateway_, 1, "add");
  const net::Address address = Listen();
  TestClient client(address);
  const std::string preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  const std::string settings("\0\0\0\4\0\0\0\0\0", 9);
  const std::string ping = std::string("\0\0\x08\6\0\0\0\0\0", 9) + "12345678";
  const std::string unknown("\0\0\0\x7f\0\0\0\0\0", 9);
  for (const std::string& frame : {settings, ping, unknown}) {
    LogLines log;
    UniqueFd fd = ConnectTo(address);
    std::string flood = preface + settings;
    for (int i = 0; i < 30'000; ++i) flood += frame;
    (void)::send(fd.get(), flood.data(), flood.size(),
                 MSG_NOSIGNAL);  // fails if the server is done with it before the end
    ReadAll(fd.get());
    EXPECT_EQ(log.Count("max_control_frames_per_second 10000"), 1u);
    EXPECT_EQ(Sum(client.Call(kPredictPath, Add())), 3);
  }
}

TEST_F(Http2Test, AHeaderBlockWithoutEndClosesTheConnection) {
  const net::Address address = Listen();
  UniqueFd fd = ConnectTo(address);
  const std::string preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  const std::string settings("\0\0\0\4\0\0\0\0\0", 9);
  const std::string headers("\0\0\0\1\0\0\0\0\1", 9);
  const std::string continuation("\0\0\0\x09\0\0\0\0\1", 9);
  Write(fd.get(), preface + settings + headers);
  for (int i = 0; i < 200'000; ++i) {
    if (::send(fd.get(), continuation.data(), continuation.size(), MSG_NOSIGNAL) < 0) break;
  }
  ReadAll(fd.get());
}

TEST_F(Http2Test, AConnectionThatSaysNothingIsClosed) {
  Limits limits;
  limits.header_timeout = milliseconds(500);
  const net::Address address = Listen(limits);
  TestClient established(address);
  ASSERT_TRUE(established.RunUntil([&] { return !established.settings().empty(); }));
  UniqueFd silent = ConnectTo(address);
  UniqueFd half = ConnectTo(address);
  Write(half.get(), "PRI * HTTP/2.0\r\n");
  ReadAll(silent.get());
  ReadAll(half.get());
  // One that is established may be silent for longer.
  established.Ping();
  EXPECT_TRUE(established.RunUntil([&] { return established.pings_acked() == 1; }));
  Eventually([&] { return gateway_->GetStats().connections == 1; });
}

TEST_F(Http2Test, AClientThatAnswersPingsStaysAndIsDrainedAsEver) {
  Limits limits;
  limits.keepalive_time = milliseconds(20);
  TestWorker worker(*gateway_, 1, "add");
  TestClient client(Listen(limits));
  const int32_t call = client.Start(kPredictPath, Framed(PredictRequest("add", "hold", 0, {{1, 2}})));
  EXPECT_TRUE(client.RunUntil([&] { return client.pings() >= 5; }));
  std::thread stopping([this] { gateway_->StopListening(milliseconds(20'000)); });
  EXPECT_TRUE(client.RunUntil([&] { return client.goaways() == 2; }));
  const int pings = client.pings();
  EXPECT_TRUE(client.RunUntil([&] { return client.pings() >= pings + 2; }));
  worker.Resume();
  EXPECT_EQ(Sum(client.Wait(call)), 3);
  stopping.join();
}

TEST_F(Http2Test, AClientThatAnswersNoPingIsClosed) {
  LogLines log;
  Limits limits;
  limits.keepalive_time = limits.keepalive_timeout = milliseconds(20);
  UniqueFd silent = ConnectTo(Listen(limits));
  Write(silent.get(), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + std::string("\0\0\0\4\0\0\0\0\0", 9));
  EXPECT_NE(ReadAll(silent.get()).find(std::string("\0\0\x08\6\0\0\0\0\0keep", 13)), std::string::npos);
  Eventually([&] { return gateway_->GetStats().connections == 0; });
  EXPECT_EQ(log.Count("it did not answer a PING within keepalive_timeout 20 ms"), 1u);
  EXPECT_EQ(gateway_->GetStats().refused[static_cast<size_t>(Refusal::kKeepaliveTimeout)], 1u);
}

TEST_F(Http2Test, ABodyThatStopsComingEndsItsCall) {
  TestWorker worker(*gateway_, 1, "add");
  Limits limits;
  limits.body_idle_timeout = milliseconds(20);
  TestClient client(Listen(limits));
  const auto& response = client.Wait(client.Start(kPredictPath, Framed(Add()).substr(0, 20), false));
  EXPECT_EQ(response.grpc_status(), Number(Code::kCancelled));
  EXPECT_THAT(response.grpc_message(), HasSubstr("body_idle_timeout"));
  EXPECT_EQ(Sum(client.Call(kPredictPath, Add())), 3);
}

TEST_F(Http2Test, AReplyThatIsNotTakenIsReset) {
  TestWorker worker(*gateway_, 1, "add");
  Limits limits;
  limits.body_idle_timeout = milliseconds(20);
  TestClient client(ConnectTo(Listen(limits)), 1000, /*reads_slowly=*/true);
  LogLines log;
  const auto& response = client.Wait(client.Start(kPredictPath, Framed(PredictRequest("add", "big", 0, {{20, 0}}))));
  EXPECT_EQ(response.error, static_cast<uint32_t>(NGHTTP2_CANCEL));
  EXPECT_EQ(log.Count("its reply was not taken within body_idle_timeout 20 ms"), 1u);
  // Its other calls are none the worse for it.
  EXPECT_EQ(Sum(client.Call(kPredictPath, Add())), 3);
}

TEST_F(Http2Test, PingsDoNotKeepAReplyThatIsNotTaken) {
  TestWorker worker(*gateway_, 1, "add");
  Limits limits;
  limits.body_idle_timeout = milliseconds(100);
  limits.max_control_frames_per_second = kManyFrames;
  TestClient client(ConnectTo(Listen(limits)), 1000, /*reads_slowly=*/true);
  const int32_t call = client.Start(kPredictPath, Framed(PredictRequest("add", "big", 0, {{20, 0}})));
  const auto since = Clock::now();
  while (!client.response(call).closed) {
    const int acked = client.pings_acked();
    client.Ping();
    ASSERT_TRUE(client.RunUntil([&] { return client.pings_acked() > acked || client.response(call).closed; }));
    ASSERT_LT(Clock::now() - since, std::chrono::seconds(20));
  }
  EXPECT_EQ(client.response(call).error, static_cast<uint32_t>(NGHTTP2_CANCEL));
}

TEST_F(Http2Test, AReplyThatIsTakenByteByByteIsTooSlow) {
  TestWorker worker(*gateway_, 1, "add");
  Limits limits;
  limits.body_idle_timeout = milliseconds(1000);
  limits.min_bytes_per_second = 100'000'000;
  limits.max_control_frames_per_second = kManyFrames;
  TestClient client(ConnectTo(Listen(limits)), 1000, /*reads_slowly=*/true);
  LogLines log;
  const int32_t call = client.Start(kPredictPath, Framed(PredictRequest("add", "big", 0, {{20, 0}})));
  const auto since = Clock::now();
  while (!client.response(call).closed) {
    if (client.response(call).body.size() > 0) client.Consume(call, 1);
    const int acked = client.pings_acked();
    client.Ping();
    ASSERT_TRUE(client.RunUntil([&] { return client.pings_acked() > acked || client.response(call).closed; }));
    ASSERT_LT(Clock::now() - since, std::chrono::seconds(20));
  }
  EXPECT_EQ(client.response(call).error, static_cast<uint32_t>(NGHTTP2_CANCEL));
  EXPECT_EQ(log.Count("its reply was not taken at min_bytes_per_second 100000000"), 1u);
}

TEST_F(Http2Test, ABodyThatComesByteByByteIsTooSlow) {
  TestWorker worker(*gateway_, 1, "add");
  Limits limits;
  limits.body_idle_timeout = milliseconds(1000);
  limits.min_bytes_per_second = 1'000'000;
  limits.max_control_frames_per_second = kManyFrames;
  TestClient client(Listen(limits));
  const int32_t call = client.Start(kPredictPath, Framed(std::string(1 << 20, 'x')).substr(0, 6), false);
  const auto since = Clock::now();
  while (!client.response(call).closed) {
    client.Send(call, "x", false);
    const int acked = client.pings_acked();
    client.Ping();
    ASSERT_TRUE(client.RunUntil([&] { return client.pings_acked() > acked; }));
    ASSERT_LT(Clock::now() - since, std::chrono::seconds(20));
  }
  EXPECT_EQ(client.response(call).grpc_status(), Number(Code::kCancelled));
  EXPECT_THAT(client.response(call).grpc_message(), HasSubstr("min_bytes_per_second 1000000"));
}

TEST_F(Http2Test, OtherCallsThatEndDoNotProlongAHeader) {
  TestWorker worker(*gateway_, 1, "add");
  Limits limits;
  limits.header_timeout = milliseconds(200);
  const net::Address address = Listen(limits);
  LogLines log;
  UniqueFd fd = ConnectTo(address);
  const std::string request = std::string("\0\0\3\1\4\0\0\0\1\x83\x86\x84", 12);  // POST http /
  const std::string begun("\0\0\0\1\0\0\0\0\3", 9);
  // Stream 1 is answered, 415, and reset, since it has no end, when the headers of stream 3 have begun.
  Write(fd.get(), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + std::string("\0\0\0\4\0\0\0\0\0", 9) + request + begun);
  ReadAll(fd.get());
  EXPECT_EQ(log.Count("its header did not come within header_timeout"), 1u);
}

TEST_F(Http2Test, FieldsThatRepeatALargeOneEndTheConnection) {
  TestWorker worker(*gateway_, 1, "add");
  const net::Address address = Listen();
  TestClient client(address);
  LogLines log;
  UniqueFd fd = ConnectTo(address);
  // A field of 3,000 bytes that goes into the table as its first, and 10,000 bytes that each mean it again.
  const std::string field = std::string("\x40\1x\x7f\xb9\x16", 6) + std::string(3000, 'v');
  const std::string block = field + std::string(10'000, '\xbe');
  std::string head("\0\0\0\1\4\0\0\0\1", 9);
  head[1] = static_cast<char>(block.size() >> 8);
  head[2] = static_cast<char>(block.size());
  Write(fd.get(), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + std::string("\0\0\0\4\0\0\0\0\0", 9) + head + block);
  // GOAWAY, ENHANCE_YOUR_CALM.
  EXPECT_THAT(ReadAll(fd.get()), HasSubstr(std::string("\7\0\0\0\0\0\0\0\0\1\0\0\0\x0b", 14)));
  EXPECT_EQ(log.Count("several times max_metadata_bytes 16384"), 1u);
  EXPECT_EQ(Sum(client.Call(kPredictPath, Add())), 3);
}

TEST_F(Http2Test, AnIdleConnectionIsClosedIfThatIsWanted) {
  TestWorker worker(*gateway_, 1, "add");
  Limits limits;
  limits.idle_connection_timeout = milliseconds(500);
  TestClient client(Listen(limits));
  EXPECT_EQ(Sum(client.Call(kPredictPath, Add())), 3);
  client.RunUntil([&] { return client.ended(); });
  EXPECT_EQ(client.goaway_error(), static_cast<uint32_t>(NGHTTP2_NO_ERROR));
  EXPECT_GE(client.goaways(), 1);
}

TEST_F(Http2Test, ConnectionsOverTheLimitAreClosed) {
  TestWorker worker(*gateway_, 1, "add");
  Limits limits;
  limits.max_connections = 2;
  const net::Address address = Listen(limits);
  {
    TestClient one(address);
    TestClient two(address);
    EXPECT_EQ(Sum(one.Call(kPredictPath, Add())), 3);
    EXPECT_EQ(Sum(two.Call(kPredictPath, Add())), 3);
    UniqueFd three = ConnectTo(address);
    EXPECT_EQ(ReadAll(three.get()), "");
  }
  Eventually([&] { return gateway_->GetStats().connections == 0; });
  TestClient again(address);
  EXPECT_EQ(Sum(again.Call(kPredictPath, Add())), 3);
}

TEST_F(Http2Test, ConnectionsOfOnePeerAreLimited) {
  Limits limits;
  limits.max_connections_per_peer = 1;
  const net::Address address = Listen(limits);
  TestClient one(address);
  one.RunUntil([&] { return !one.settings().empty(); });
  UniqueFd two = ConnectTo(address);
  EXPECT_EQ(ReadAll(two.get()), "");
}

TEST_F(Http2Test, OtherProtocolsAreToldApartInTheLog) {
  const net::Address address = Listen();
  LogLines log;
  UniqueFd tls = ConnectTo(address);
  Write(tls.get(), std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11) + std::string(100, 'r'));
  ReadAll(tls.get());
  EXPECT_EQ(log.Count("a TLS client on a port without TLS"), 1u);
  UniqueFd http = ConnectTo(address);
  Write(http.get(), "GET / HTTP/1.1\r\nHost: here.example.org\r\n\r\n");
  ReadAll(http.get());
  EXPECT_EQ(log.Count("its preface is wrong"), 1u);
}

TEST_F(Http2Test, GarbageAfterThePrefaceClosesTheConnection) {
  const net::Address address = Listen();
  const std::string preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  const std::string settings("\0\0\0\4\0\0\0\0\0", 9);
  uint32_t state = 1;
  for (int round = 0; round < 50; ++round) {
    UniqueFd fd = ConnectTo(address);
    std::string garbage;
    for (int i = 0; i < 2000; ++i) garbage += static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
    Write(fd.get(), preface + settings + garbage);
    ::shutdown(fd.get(), SHUT_WR);
    ReadAll(fd.get());
  }
}

}  // namespace
}  // namespace mindserve::gateway
