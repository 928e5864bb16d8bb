#include "net/test_tls_client.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <poll.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace mindserve::net::testing {
namespace {

SslPtr<X509> Certificate(const std::string& text) {
  const SslPtr<BIO> bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  return SslPtr<X509>(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
}

}  // namespace

TlsClient::TlsClient(UniqueFd socket, const TlsClientOptions& options)
    : socket_(std::move(socket)), bio_method_(NewSocketBioMethod()), context_(SSL_CTX_new(TLS_client_method())) {
  SSL_CTX* context = context_.get();
  if (options.max_version != 0) SSL_CTX_set_max_proto_version(context, options.max_version);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
  X509_STORE_add_cert(SSL_CTX_get_cert_store(context), Certificate(options.authority).get());
  if (!options.identity.certificate.empty()) {
    SSL_CTX_use_certificate(context, Certificate(options.identity.certificate).get());
    const SslPtr<BIO> bio(BIO_new_mem_buf(options.identity.key.data(), -1));
    const SslPtr<EVP_PKEY> key(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
    SSL_CTX_use_PrivateKey(context, key.get());
  }
  ssl_.reset(SSL_new(context));
  if (!options.alpn.empty()) {
    SSL_set_alpn_protos(ssl_.get(), reinterpret_cast<const unsigned char*>(options.alpn.data()),
                        static_cast<unsigned>(options.alpn.size()));
  }
  if (options.session != nullptr) SSL_set_session(ssl_.get(), options.session);
  bio_.fd = socket_.get();
  BIO* bio = NewSocketBio(bio_method_.get(), &bio_);
  SSL_set_bio(ssl_.get(), bio, bio);
}

std::string TlsClient::Connect() {
  ERR_clear_error();
  if (SSL_connect(ssl_.get()) != 1) return TakeSslError("failed");
  return "";
}

std::string TlsClient::ReadToEnd(std::string* all) {
  char buffer[4096];
  for (;;) {
    ERR_clear_error();
    const int n = SSL_read(ssl_.get(), buffer, sizeof buffer);
    if (n > 0) {
      all->append(buffer, static_cast<size_t>(n));
      continue;
    }
    const int error = SSL_get_error(ssl_.get(), n);
    return error == SSL_ERROR_ZERO_RETURN ? "" : TakeSslError("connection lost");
  }
}

std::string TlsClient::Exchange(const std::string& text) {
  ::fcntl(socket_.get(), F_SETFL, ::fcntl(socket_.get(), F_GETFL) | O_NONBLOCK);
  std::string received;
  std::vector<char> buffer(20000);
  size_t sent = 0;
  size_t next_key = text.size() / 4;
  for (;;) {
    short wanted = 0;
    if (sent >= next_key && sent < text.size() && SSL_version(ssl_.get()) == TLS1_3_VERSION) {
      // Refused while a record is half under way; comes again then.
      if (SSL_key_update(ssl_.get(), SSL_KEY_UPDATE_REQUESTED) == 1) next_key += text.size() / 4;
    }
    ERR_clear_error();
    if (sent < text.size()) {
      SSL_set_mode(ssl_.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
      // One record at a time, so that there is a chance to change the keys between them.
      const size_t size = std::min<size_t>(text.size() - sent, 16384);
      const int n = SSL_write(ssl_.get(), text.data() + sent, static_cast<int>(size));
      if (n > 0) {
        sent += static_cast<size_t>(n);
        continue;
      }
      wanted |= Wanted(n);
    }
    ERR_clear_error();
    const int n = SSL_read(ssl_.get(), buffer.data(), static_cast<int>(buffer.size()));
    if (n > 0) {
      received.append(buffer.data(), static_cast<size_t>(n));
      continue;
    }
    if (SSL_get_error(ssl_.get(), n) == SSL_ERROR_ZERO_RETURN || bio_.end_of_file) return received;
    wanted |= Wanted(n);
    if (wanted == 0) {
      return "failed: " + TakeSslError("connection lost") + ", errno " + std::to_string(bio_.error) + ", " +
             std::to_string(sent) + " bytes sent, " + std::to_string(received.size()) + " received";
    }
    pollfd waiting{socket_.get(), wanted, 0};
    ::poll(&waiting, 1, -1);
  }
}

bool TlsClient::WriteWithNewKey(const std::string& text) {
  return SSL_key_update(ssl_.get(), SSL_KEY_UPDATE_REQUESTED) == 1 && Write(text);
}

bool TlsClient::ChangeKey() {
  return SSL_key_update(ssl_.get(), SSL_KEY_UPDATE_NOT_REQUESTED) == 1 && SSL_do_handshake(ssl_.get()) == 1;
}

bool TlsClient::Write(const std::string& text) {
  return SSL_write(ssl_.get(), text.data(), static_cast<int>(text.size())) == static_cast<int>(text.size());
}

short TlsClient::Wanted(int returned) const {
  switch (SSL_get_error(ssl_.get(), returned)) {
    case SSL_ERROR_WANT_READ:
      return POLLIN;
    case SSL_ERROR_WANT_WRITE:
      return POLLOUT;
    default:
      return 0;
  }
}

}  // namespace mindserve::net::testing
