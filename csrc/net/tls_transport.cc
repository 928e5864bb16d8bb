#include "net/tls_transport.h"

#include <openssl/err.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <utility>

#include "base/clock.h"
#include "base/rate_limit.h"
#include "net/socket.h"
#include "net/socket_bio.h"
#include "net/tls_context.h"
#include "net/tls_identity.h"

namespace mindserve::net {
namespace {

// The plain bytes of the largest TLS record.
constexpr size_t kRecord = 16 * 1024;

constexpr unsigned char kHandshakeRecord = 22;
constexpr unsigned char kAlertRecord = 21;

// Of what comes by one read so many records, however small, and so many times what OpenSSL takes off the socket at
// once: others of the thread are served in between.
constexpr int kRecordsPerRead = 64;
constexpr size_t kSocketReadsPerRead = 20;
// After the handshake there is little but data: so many changes of keys, alerts and the like a second. RFC 8446, 4.6.3
// has a change after some 2^24 records, and neither side need have more of them.
constexpr size_t kMostControlMessages = 100;

// What is left of the parts of a write.
class Gather {
 public:
  explicit Gather(std::span<const iovec> parts) : parts_(parts) { DropEmpty(); }

  bool empty() const { return parts_.empty(); }

  // The next bytes, at most `most` (no more than `buffer` has): where they lie if that is in one piece, copied together
  // otherwise. Only less than `most` if there are no more.
  std::span<const std::byte> Next(size_t most, std::span<std::byte> buffer) const {
    const std::span<const std::byte> first = Part(0).subspan(offset_);
    if (first.size() >= most || parts_.size() == 1) return first.first(std::min(most, first.size()));
    size_t size = 0;
    for (size_t i = 0; i < parts_.size() && size < most; ++i) {
      const auto part = i == 0 ? first : Part(i);
      const size_t taken = std::min(part.size(), most - size);
      if (taken != 0) std::memcpy(buffer.data() + size, part.data(), taken);
      size += taken;
    }
    return buffer.first(size);
  }

  void Skip(size_t n) {
    offset_ += n;
    DropEmpty();
  }

 private:
  std::span<const std::byte> Part(size_t i) const {
    return {static_cast<const std::byte*>(parts_[i].iov_base), parts_[i].iov_len};
  }

  void DropEmpty() {
    while (!parts_.empty() && offset_ >= parts_.front().iov_len) {
      offset_ -= parts_.front().iov_len;
      parts_ = parts_.subspan(1);
    }
  }

  std::span<const iovec> parts_;
  size_t offset_ = 0;  // into the first
};

}  // namespace

class TlsTransport final : public Transport {
 public:
  TlsTransport(EventLoop& loop, UniqueFd socket, std::shared_ptr<const TlsContext> tls)
      : loop_(loop),
        socket_(std::move(socket)),
        watch_(loop.NewWatch(socket_.get())),
        tls_(std::move(tls)),
        peer_{PeerAddress(socket_.get()), true, ""} {
    bio_.fd = socket_.get();
    bio_.trusts_drained = true;
    ERR_clear_error();
    ssl_.reset(SSL_new(tls_->state_->context.get()));
    BIO* bio = NewSocketBio(tls_->state_->socket_bio.get(), &bio_);
    if (!ssl_ || bio == nullptr) {
      BIO_free(bio);
      ssl_.reset();
      failure_ = IoResult{IoResult::Kind::kError, 0, "TLS: out of memory", false};
      return;
    }
    SSL_set_bio(ssl_.get(), bio, bio);
    SSL_set_accept_state(ssl_.get());
    SSL_set_msg_callback(ssl_.get(), NoteMessage);
    SSL_set_msg_callback_arg(ssl_.get(), this);
  }

  ~TlsTransport() override { *alive_ = false; }

  void Start(std::function<void(Status)> done) override {
    done_ = std::move(done);
    Handshake();
  }

  IoResult Read(std::span<std::byte> into) override;
  IoResult Write(std::span<const iovec> parts) override;

  void AwaitReadable(std::function<void()> handler) override {
    read_.handler = std::move(handler);
    // What OpenSSL has taken off the socket already will not make it readable.
    if (!drained_ && SSL_has_pending(ssl_.get()) == 1) {
      read_.waits_for = kBuffered;
      loop_.Post([this, alive = alive_] {
        if (*alive) Ready(kBuffered);
      });
      return;
    }
    Await(read_);
  }

  void AwaitWritable(std::function<void()> handler) override {
    write_.handler = std::move(handler);
    Await(write_);
  }

  void Shutdown() override {
    if (established_ && !failure_) {
      ERR_clear_error();
      SSL_shutdown(ssl_.get());
      ERR_clear_error();
    }
    ::shutdown(socket_.get(), SHUT_WR);
  }

  const Peer& peer() const override { return peer_; }
  const AuthProperties& auth() override {
    if (auth_.empty()) auth_ = TlsProperties(PeerCertificate());
    return auth_;
  }

 private:
  enum Event { kReadable, kWritable, kBuffered };

  // A read may have to wait until something can be written, and the other way round.
  struct Waiter {
    Event needs;      // as the last try said
    Event waits_for;  // while there is a handler
    std::function<void()> handler;
  };

  // Told of what OpenSSL reads and writes besides data.
  static void NoteMessage(int writes, int version, int type, const void* bytes, size_t size, SSL* ssl, void* self);

  void Handshake();
  void Finish(Status status);
  // Null without a verified one.
  X509* PeerCertificate() const;
  Status HandshakeError(int kind);
  IoResult Outcome(Waiter& waiter);
  IoResult WriteRecord(std::span<const std::byte> record);
  IoResult Blocked();
  void Await(Waiter& waiter);
  void Ready(Event event);

  EventLoop& loop_;
  UniqueFd socket_;
  std::unique_ptr<Watch> watch_;  // after the socket: has to be gone before it is closed
  std::shared_ptr<const TlsContext> tls_;
  SocketBio bio_;
  SslPtr<SSL> ssl_;  // null without memory
  Peer peer_;
  AuthProperties auth_;  // none yet: nobody asked
  std::function<void(Status)> done_;
  Waiter read_{kReadable, kReadable, nullptr};
  Waiter write_{kWritable, kWritable, nullptr};
  bool awaiting_readable_ = false;  // the watch is
  bool awaiting_writable_ = false;
  bool established_ = false;
  RateLimit control_messages_{kMostControlMessages, Clock::now()};  // once it is established
  bool drained_ = true;                                             // the last read found nothing more
  size_t unsent_ = 0;                // plain bytes of a record that bio_ keeps; they are to be offered again
  std::optional<IoResult> failure_;  // OpenSSL is not to be called again
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // also owned by what may run after the end of this
};

void TlsTransport::NoteMessage(int writes, int /*version*/, int type, const void* /*bytes*/, size_t /*size*/,
                               SSL* /*ssl*/, void* self) {
  // A change of keys is told of when it comes; what is no message now, as of TLS 1.2's renegotiation, by its answer.
  if (type != kAlertRecord && (type != kHandshakeRecord || writes != 0)) return;
  auto& transport = *static_cast<TlsTransport*>(self);
  if (transport.established_ && !transport.control_messages_.Take(Clock::now())) transport.bio_.refused = true;
}

void TlsTransport::Handshake() {
  if (!ssl_) return Finish(Status(Code::kInternal, "TLS handshake: out of memory"));
  ERR_clear_error();
  const int returned = SSL_do_handshake(ssl_.get());
  if (returned == 1) {
    established_ = true;
    bio_.keeps_unsent = true;
    drained_ = false;
    if (const X509* certificate = PeerCertificate()) peer_.subject = CommonName(certificate);
    return Finish(Status::Ok());
  }
  const int kind = SSL_get_error(ssl_.get(), returned);
  if (kind == SSL_ERROR_WANT_READ) {
    return watch_->AwaitReadable([this] {
      bio_.drained = false;
      Handshake();
    });
  }
  if (kind == SSL_ERROR_WANT_WRITE) return watch_->AwaitWritable([this] { Handshake(); });
  Status status = HandshakeError(kind);
  failure_ = IoResult{IoResult::Kind::kError, 0, status.message()};
  Finish(std::move(status));
}

X509* TlsTransport::PeerCertificate() const {
  const bool verified =
      SSL_get_verify_mode(ssl_.get()) != SSL_VERIFY_NONE && SSL_get_verify_result(ssl_.get()) == X509_V_OK;
  return verified ? SSL_get0_peer_certificate(ssl_.get()) : nullptr;
}

void TlsTransport::Finish(Status status) {
  const auto done = std::exchange(done_, nullptr);  // it may destroy the transport
  done(std::move(status));
}

Status TlsTransport::HandshakeError(int kind) {
  const std::string where = "TLS handshake: ";
  if (bio_.first_size > 0 && bio_.first[0] != kHandshakeRecord) {
    ERR_clear_error();
    const bool preface = bio_.first_size >= 3 && std::memcmp(bio_.first.data(), "PRI", 3) == 0;
    return Status(Code::kUnauthenticated,
                  where + (preface ? "a plaintext HTTP/2 client" : "a client that does not speak TLS") +
                      " connected to a TLS port; it has to use TLS");
  }
  if (bio_.end_of_file) {
    ERR_clear_error();
    return Status(Code::kUnavailable, where + "the client closed the connection");
  }
  if (bio_.error != 0) {
    ERR_clear_error();
    return Status(Code::kUnavailable, where + ErrorText(bio_.error));
  }
  // A signature that does not fit leaves errors of its own before that of the verification.
  const unsigned long last = ERR_peek_last_error();
  const bool verification = ERR_GET_LIB(last) == ERR_LIB_SSL && ERR_GET_REASON(last) == SSL_R_CERTIFICATE_VERIFY_FAILED;
  const unsigned long error = verification ? last : ERR_peek_error();
  if (ERR_GET_LIB(error) == ERR_LIB_SSL) {
    switch (ERR_GET_REASON(error)) {
      case SSL_R_NO_APPLICATION_PROTOCOL:
        ERR_clear_error();
        return Status(Code::kUnauthenticated, where + "the client does not offer HTTP/2 (ALPN \"h2\")");
      case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        ERR_clear_error();
        return Status(Code::kUnauthenticated, where + "the client sent no certificate, and one is required");
      case SSL_R_CERTIFICATE_VERIFY_FAILED: {
        ERR_clear_error();
        const long verdict = SSL_get_verify_result(ssl_.get());
        return Status(Code::kUnauthenticated,
                      where + "the client's certificate is refused: " + X509_verify_cert_error_string(verdict));
      }
      default:
        break;
    }
  }
  const bool alert = ERR_GET_LIB(error) == ERR_LIB_SSL && ERR_GET_REASON(error) > SSL_AD_REASON_OFFSET;
  return Status(Code::kUnauthenticated,
                where + (alert ? "the client refused: " : "") + TakeSslError("failed, kind " + std::to_string(kind)));
}

// Tells what a read or a write that did not succeed means.
IoResult TlsTransport::Outcome(Waiter& waiter) {
  switch (SSL_get_error(ssl_.get(), 0)) {
    case SSL_ERROR_WANT_READ:
      waiter.needs = kReadable;
      return {IoResult::Kind::kAgain, 0, {}};
    case SSL_ERROR_WANT_WRITE:
      waiter.needs = kWritable;
      return {IoResult::Kind::kAgain, 0, {}};
    case SSL_ERROR_ZERO_RETURN:
      return {IoResult::Kind::kEof, 0, {}};
    default:
      break;
  }
  const std::string reason = TakeSslError("failed");
  if (bio_.refused) {
    failure_ = IoResult{.kind = IoResult::Kind::kError,
                        .bytes = 0,
                        .error = "TLS: more than " + std::to_string(kMostControlMessages) +
                                 " changes of keys, alerts and the like came within a second",
                        .refused = true};
  } else if (bio_.end_of_file) {
    // HTTP/2 tells by itself whether it was cut short, so that a missing close_notify is no more than the end.
    failure_ = IoResult{IoResult::Kind::kEof, 0, {}};
  } else {
    failure_ = IoResult{IoResult::Kind::kError, 0, "TLS: " + (bio_.error != 0 ? ErrorText(bio_.error) : reason)};
  }
  return *failure_;
}

IoResult TlsTransport::Read(std::span<std::byte> into) {
  if (failure_) return *failure_;
  size_t got = 0;
  bio_.reads_left = kSocketReadsPerRead;
  bio_.halted = false;
  for (int records = 0; got < into.size() && records < kRecordsPerRead; ++records) {
    size_t n = 0;
    ERR_clear_error();
    if (SSL_read_ex(ssl_.get(), into.data() + got, into.size() - got, &n) == 1) {
      drained_ = false;
      read_.needs = kReadable;
      got += n;
      continue;
    }
    IoResult outcome = Outcome(read_);
    drained_ = outcome.kind == IoResult::Kind::kAgain && !bio_.halted;
    if (got == 0) return outcome;
    break;  // an end or an error comes again with the next read
  }
  return {IoResult::Kind::kDone, got, {}};
}

IoResult TlsTransport::Write(std::span<const iovec> parts) {
  if (failure_) return *failure_;
  bio_.reads_left = kSocketReadsPerRead;  // for a change of keys that is half done
  bio_.halted = false;
  std::array<std::byte, kRecord> gathered;
  size_t sent = 0;
  for (Gather rest(parts); !rest.empty();) {
    const auto record = rest.Next(unsent_ != 0 ? unsent_ : kRecord, gathered);
    if (record.size() < unsent_) {
      return {IoResult::Kind::kError, 0,
              "a write of " + std::to_string(unsent_) + " bytes was begun, and only " + std::to_string(record.size()) +
                  " were offered again"};
    }
    const IoResult written = WriteRecord(record);
    if (written.kind != IoResult::Kind::kDone) {
      if (sent == 0) return written;
      break;  // an error comes again with the next write
    }
    sent += written.bytes;
    rest.Skip(written.bytes);
  }
  return {IoResult::Kind::kDone, sent, {}};
}

// Encrypts and sends `record`, or, if that is under way already, sends the rest of it.
IoResult TlsTransport::WriteRecord(std::span<const std::byte> record) {
  write_.needs = kWritable;
  if (!SendUnsent(bio_)) return Blocked();
  if (unsent_ != 0) return {IoResult::Kind::kDone, std::exchange(unsent_, 0), {}};
  ERR_clear_error();
  // A change of keys that is half done comes first. SSL_write would see to it too, but not for a record that is shorter
  // than the message of that change.
  if (SSL_in_init(ssl_.get()) == 1 && SSL_do_handshake(ssl_.get()) != 1) return Outcome(write_);
  size_t n = 0;
  if (SSL_write_ex(ssl_.get(), record.data(), record.size(), &n) != 1) return Outcome(write_);
  if (SendUnsent(bio_)) return {IoResult::Kind::kDone, n, {}};
  unsent_ = n;
  return Blocked();
}

// What it means that bio_ keeps bytes.
IoResult TlsTransport::Blocked() {
  if (bio_.error == 0) return {IoResult::Kind::kAgain, 0, {}};
  failure_ = IoResult{IoResult::Kind::kError, 0, "TLS: " + ErrorText(bio_.error)};
  return *failure_;
}

void TlsTransport::Await(Waiter& waiter) {
  waiter.waits_for = waiter.needs;
  bool& awaiting = waiter.needs == kReadable ? awaiting_readable_ : awaiting_writable_;
  if (std::exchange(awaiting, true)) return;
  if (waiter.needs == kReadable) {
    watch_->AwaitReadable([this] {
      awaiting_readable_ = false;
      bio_.drained = false;
      Ready(kReadable);
    });
  } else {
    watch_->AwaitWritable([this] {
      awaiting_writable_ = false;
      Ready(kWritable);
    });
  }
}

void TlsTransport::Ready(Event event) {
  const auto take = [event](Waiter& waiter) {
    return waiter.waits_for == event ? std::exchange(waiter.handler, nullptr) : nullptr;
  };
  const auto reader = take(read_);
  const auto writer = take(write_);
  const auto alive = alive_;
  if (reader) reader();
  if (writer && *alive) writer();
}

std::unique_ptr<Transport> NewTlsTransport(EventLoop& loop, UniqueFd socket, std::shared_ptr<const TlsContext> tls) {
  return std::make_unique<TlsTransport>(loop, std::move(socket), std::move(tls));
}

}  // namespace mindserve::net
