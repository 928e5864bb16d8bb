#include "net/test_support.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <stdexcept>

#include "base/log.h"
#include "net/tls_context.h"

namespace mindserve::net::testing {
namespace {

void Check(bool well, const char* what) {
  if (!well) throw std::runtime_error(what);
}

std::string Text(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return std::string(data, static_cast<size_t>(size));
}

SslPtr<BIO> TextBio(const std::string& text) {
  return SslPtr<BIO>(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

constexpr long kDay = 24 * 3600;

// `lifetime` in seconds from now.
SslPtr<X509> NewCertificate(EVP_PKEY* key, const std::string& name, long lifetime = 365 * kDay) {
  static std::atomic<long> serial{1};
  SslPtr<X509> certificate(X509_new());
  ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), serial++);
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -2 * kDay);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), lifetime);
  X509_set_pubkey(certificate.get(), key);
  X509_NAME* subject = X509_get_subject_name(certificate.get());
  const auto* cn = reinterpret_cast<const unsigned char*>(name.data());
  X509_NAME_add_entry_by_txt(subject, "O", MBSTRING_UTF8, reinterpret_cast<const unsigned char*>("HW"), -1, -1, 0);
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, cn, static_cast<int>(name.size()), -1, 0);
  return certificate;
}

Identity Write(X509* certificate, EVP_PKEY* key) {
  const SslPtr<BIO> certificate_text(BIO_new(BIO_s_mem()));
  const SslPtr<BIO> key_text(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509(certificate_text.get(), certificate);
  PEM_write_bio_PrivateKey(key_text.get(), key, nullptr, nullptr, 0, nullptr, nullptr);
  return {Text(certificate_text.get()), Text(key_text.get())};
}

SslPtr<X509> ParseCertificate(const std::string& text) {
  SslPtr<X509> certificate(PEM_read_bio_X509(TextBio(text).get(), nullptr, nullptr, nullptr));
  Check(certificate != nullptr, "a certificate's PEM text");
  return certificate;
}

SslPtr<EVP_PKEY> ParseKey(const std::string& text) {
  SslPtr<EVP_PKEY> key(PEM_read_bio_PrivateKey(TextBio(text).get(), nullptr, nullptr, nullptr));
  Check(key != nullptr, "a key's PEM text");
  return key;
}

void MayIssue(X509* certificate) {
  X509_set_version(certificate, X509_VERSION_3);
  X509_EXTENSION* constraints = X509V3_EXT_conf_nid(nullptr, nullptr, NID_basic_constraints, "critical,CA:TRUE");
  Check(constraints != nullptr && X509_add_ext(certificate, constraints, -1) == 1, "basicConstraints");
  X509_EXTENSION_free(constraints);
}

Identity Sign(X509* certificate, EVP_PKEY* key, const Identity& authority) {
  X509_set_issuer_name(certificate, X509_get_subject_name(ParseCertificate(authority.certificate).get()));
  Check(X509_sign(certificate, ParseKey(authority.key).get(), EVP_sha256()) > 0, "X509_sign");
  return Write(certificate, key);
}

Identity IssueUntil(const Identity& authority, const std::string& name, long lifetime) {
  const SslPtr<EVP_PKEY> key(EVP_EC_gen("P-256"));
  const SslPtr<X509> certificate = NewCertificate(key.get(), name, lifetime);
  X509_set_version(certificate.get(), X509_VERSION_1);
  return Sign(certificate.get(), key.get(), authority);
}

}  // namespace

TemporaryDirectory::TemporaryDirectory() {
  std::string name = std::filesystem::temp_directory_path() / "ms-net-XXXXXX";
  Check(::mkdtemp(name.data()) != nullptr, "mkdtemp");
  path_ = name;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::filesystem::remove_all(path_);
}

struct LogCapture::Lines {
  std::mutex mutex;
  std::vector<std::string> lines;
};

LogCapture::LogCapture() : lines_(std::make_shared<Lines>()) {
  SetLogSink([lines = lines_](LogLevel /*level*/, std::string_view message) {
    const std::lock_guard lock(lines->mutex);
    lines->lines.emplace_back(message);
  });
}

LogCapture::~LogCapture() {
  SetLogSink(nullptr);
}

std::vector<std::string> LogCapture::lines() const {
  const std::lock_guard lock(lines_->mutex);
  return lines_->lines;
}

std::pair<UniqueFd, UniqueFd> SocketPair() {
  int fds[2];
  Check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0, "socketpair");
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

UniqueFd Connect(const Address& address) {
  if (address.unix_socket) {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un to{};
    to.sun_family = AF_UNIX;
    std::memcpy(to.sun_path, address.path.data(), std::min(address.path.size(), sizeof to.sun_path - 1));
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) fd.reset();
    return fd;
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  Check(::getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &list) == 0, "getaddrinfo");
  UniqueFd connected;
  for (const addrinfo* info = list; info != nullptr && !connected; info = info->ai_next) {
    UniqueFd fd(::socket(info->ai_family, info->ai_socktype | SOCK_CLOEXEC, info->ai_protocol));
    if (::connect(fd.get(), info->ai_addr, info->ai_addrlen) == 0) connected = std::move(fd);
  }
  ::freeaddrinfo(list);
  return connected;
}

std::string ReadAll(int fd) {
  std::string all;
  std::array<char, 65536> buffer;
  for (;;) {
    const ssize_t n = ::recv(fd, buffer.data(), buffer.size(), 0);
    if (n <= 0) return all;
    all.append(buffer.data(), static_cast<size_t>(n));
  }
}

std::string Pattern(size_t size) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 131 + (i >> 8) * 17 + (i >> 16));
  return bytes;
}

Pump::Pump(EventLoop& loop, UniqueFd socket, std::shared_ptr<const TlsContext> tls, std::string to_send,
           size_t to_receive)
    : transport_(NewTransport(loop, std::move(socket), std::move(tls))),
      to_send_(std::move(to_send)),
      to_receive_(to_receive) {}

void Pump::Start() {
  transport_->Start([this](Status status) {
    pumped_.handshake = std::move(status);
    if (!pumped_.handshake.ok()) return Finish();
    OnWritable();
    if (!finished_) OnReadable();
  });
}

void Pump::OnReadable() {
  std::array<std::byte, 5000> buffer;
  // Goes away with more to read, as a connection does that must not starve others.
  for (int i = 0; i < 7; ++i) {
    const IoResult result = transport_->Read(buffer);
    if (result.kind == IoResult::Kind::kAgain) break;
    if (result.kind == IoResult::Kind::kDone) {
      pumped_.received.append(reinterpret_cast<const char*>(buffer.data()), result.bytes);
      pumped_.largest_read = std::max(pumped_.largest_read, result.bytes);
      continue;
    }
    pumped_.end_of_file = result.kind == IoResult::Kind::kEof;
    pumped_.error = result.error;
    pumped_.refused = result.refused;
    return Finish();
  }
  MaybeFinish();
  if (!finished_) transport_->AwaitReadable([this] { OnReadable(); });
}

void Pump::OnWritable() {
  constexpr size_t kPieces[] = {9, 100, 0, 3, 16384, 9, 70000, 1, 16375};
  while (sent_ < to_send_.size()) {
    std::vector<iovec> parts;
    size_t offset = sent_;
    for (size_t i = 0; offset < to_send_.size() && parts.size() < 12; ++i) {
      const size_t size = std::min(kPieces[i % std::size(kPieces)], to_send_.size() - offset);
      parts.push_back({const_cast<char*>(to_send_.data()) + offset, size});
      offset += size;
    }
    const IoResult result = transport_->Write(parts);
    if (result.kind == IoResult::Kind::kAgain) return transport_->AwaitWritable([this] { OnWritable(); });
    if (result.kind != IoResult::Kind::kDone) {
      pumped_.error = result.error;
      return Finish();
    }
    sent_ += result.bytes;
  }
  MaybeFinish();
}

void Pump::MaybeFinish() {
  if (sent_ == to_send_.size() && pumped_.received.size() >= to_receive_) Finish();
}

void Pump::Finish() {
  if (std::exchange(finished_, true)) return;
  pumped_.peer = transport_->peer();
  pumped_.auth = transport_->auth();
  transport_->Shutdown();
  transport_.reset();
  result_.set_value(std::move(pumped_));
}

Pumped Serve(UniqueFd socket, std::shared_ptr<const TlsContext> tls, std::string to_send, size_t to_receive,
             const std::function<void()>& client) {
  LoopThread server;
  std::unique_ptr<Pump> pump;
  auto result = server.Call([&] {
    pump = std::make_unique<Pump>(server.loop(), std::move(socket), std::move(tls), std::move(to_send), to_receive);
    auto future = pump->Result();
    pump->Start();
    return future;
  });
  client();
  Pumped pumped = result.get();
  server.Call([&] { pump.reset(); });
  return pumped;
}

std::pair<UniqueFd, UniqueFd> TcpPair(bool small_buffers) {
  const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int small = 16 * 1024;
  const int segment = 1024;  // one that is larger than the receiver's buffer would be lost again and again
  if (small_buffers) {
    ::setsockopt(listener.get(), IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
    ::setsockopt(listener.get(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    ::setsockopt(listener.get(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  Check(::bind(listener.get(), any, size) == 0 && ::listen(listener.get(), 1) == 0, "listen");
  Check(::getsockname(listener.get(), any, &size) == 0, "getsockname");
  UniqueFd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (small_buffers) {
    ::setsockopt(client.get(), IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
    ::setsockopt(client.get(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    ::setsockopt(client.get(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  }
  Check(::connect(client.get(), any, size) == 0, "connect");
  UniqueFd server(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  return {std::move(client), std::move(server)};
}

Identity MakeAuthority(const std::string& name, CertificateVersion version) {
  const SslPtr<EVP_PKEY> key(EVP_EC_gen("P-256"));
  const SslPtr<X509> certificate = NewCertificate(key.get(), name);
  X509_set_issuer_name(certificate.get(), X509_get_subject_name(certificate.get()));
  if (version == CertificateVersion::k3) MayIssue(certificate.get());
  Check(X509_sign(certificate.get(), key.get(), EVP_sha256()) > 0, "X509_sign");
  return Write(certificate.get(), key.get());
}

Identity IssueAuthority(const Identity& authority, const std::string& name) {
  const SslPtr<EVP_PKEY> key(EVP_EC_gen("P-256"));
  const SslPtr<X509> certificate = NewCertificate(key.get(), name);
  MayIssue(certificate.get());
  return Sign(certificate.get(), key.get(), authority);
}

Identity Issue(const Identity& authority, const std::string& name, Validity validity) {
  return IssueUntil(authority, name, validity == Validity::kExpired ? -kDay : 365 * kDay);
}

Identity IssueWithNames(const Identity& authority, const std::string& name, const std::string& alternatives) {
  const SslPtr<EVP_PKEY> key(EVP_EC_gen("P-256"));
  const SslPtr<X509> certificate = NewCertificate(key.get(), name);
  X509_set_version(certificate.get(), X509_VERSION_3);
  X509_EXTENSION* names = X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, alternatives.c_str());
  Check(names != nullptr && X509_add_ext(certificate.get(), names, -1) == 1, "subjectAltName");
  X509_EXTENSION_free(names);
  return Sign(certificate.get(), key.get(), authority);
}

Identity IssueFor(const Identity& authority, const std::string& name, std::chrono::seconds lifetime) {
  return IssueUntil(authority, name, static_cast<long>(lifetime.count()));
}

Identity Reissue(const Identity& authority, std::chrono::seconds lifetime) {
  const SslPtr<X509> certificate = ParseCertificate(authority.certificate);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), static_cast<long>(lifetime.count()));
  const SslPtr<EVP_PKEY> key = ParseKey(authority.key);
  Check(X509_sign(certificate.get(), key.get(), EVP_sha256()) > 0, "X509_sign");
  return Write(certificate.get(), key.get());
}

std::string MakeCrl(const Identity& authority, const std::vector<Identity>& revoked, std::chrono::seconds lifetime) {
  const SslPtr<X509_CRL> crl(X509_CRL_new());
  const SslPtr<ASN1_TIME> begin(X509_gmtime_adj(nullptr, -2 * kDay));
  const SslPtr<ASN1_TIME> end(X509_gmtime_adj(nullptr, static_cast<long>(lifetime.count())));
  X509_CRL_set_version(crl.get(), X509_CRL_VERSION_2);
  X509_CRL_set_issuer_name(crl.get(), X509_get_subject_name(ParseCertificate(authority.certificate).get()));
  X509_CRL_set1_lastUpdate(crl.get(), begin.get());
  X509_CRL_set1_nextUpdate(crl.get(), end.get());
  for (const Identity& identity : revoked) {
    const SslPtr<X509> certificate = ParseCertificate(identity.certificate);
    X509_REVOKED* entry = X509_REVOKED_new();
    X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(certificate.get()));
    X509_REVOKED_set_revocationDate(entry, begin.get());
    Check(X509_CRL_add0_revoked(crl.get(), entry) == 1, "X509_CRL_add0_revoked");
  }
  X509_CRL_sort(crl.get());
  Check(X509_CRL_sign(crl.get(), ParseKey(authority.key).get(), EVP_sha256()) > 0, "X509_CRL_sign");
  const SslPtr<BIO> text(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509_CRL(text.get(), crl.get());
  return Text(text.get());
}

}  // namespace mindserve::net::testing
