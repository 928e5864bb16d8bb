#include "net/tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <climits>
#include <string_view>
#include <utility>
#include <vector>

#include "net/socket_bio.h"
#include "net/tls_context.h"

namespace mindserve::net {
namespace {

// "h2" as ALPN writes it: each name after its length.
constexpr unsigned char kH2[] = {2, 'h', '2'};

// TLS 1.2 only; those of 1.3 are all sound. Forward secrecy and authenticated encryption.
constexpr char kCiphers[] = "ECDHE+AESGCM:ECDHE+CHACHA20";

constexpr unsigned char kSessionIdContext[] = "mindserve";

// What clients are told about the length of a session; a client certificate is not looked at again for so long.
// Seconds.
constexpr long kSessionTimeout = 3600;

Status Refused(const std::string& what) {
  return Status(Code::kInvalidArgument, what);
}

// Never asks on the terminal.
int NoPassphrase(char* /*buffer*/, int /*size*/, int /*writing*/, void* asked) {
  *static_cast<bool*>(asked) = true;
  return -1;
}

SslPtr<BIO> TextBio(const std::string& text) {
  if (text.size() > INT_MAX) return nullptr;
  return SslPtr<BIO>(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

// All certificates in a PEM text, at least one.
Result<std::vector<SslPtr<X509>>> ReadCertificates(const std::string& text, const std::string& what) {
  ERR_clear_error();
  const SslPtr<BIO> bio = TextBio(text);
  std::vector<SslPtr<X509>> certificates;
  bool asked = false;
  while (bio) {
    SslPtr<X509> certificate(PEM_read_bio_X509(bio.get(), nullptr, NoPassphrase, &asked));
    if (!certificate) break;
    certificates.push_back(std::move(certificate));
  }
  const unsigned long error = ERR_peek_last_error();
  const bool at_end = ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
  if (!at_end)
    return Refused(what + ": certificate " + std::to_string(certificates.size() + 1) +
                   " of the PEM text is damaged: " + TakeSslError("cannot be read"));
  ERR_clear_error();
  if (certificates.empty()) return Refused(what + ": the text holds no PEM certificate");
  return certificates;
}

Status UseCertificate(SSL_CTX* context, const std::string& text) {
  Result<std::vector<SslPtr<X509>>> chain = ReadCertificates(text, "certificate");
  if (!chain.ok()) return chain.status();
  if (SSL_CTX_use_certificate(context, chain->front().get()) != 1) {
    return Refused("certificate: " + TakeSslError("cannot be used"));
  }
  for (size_t i = 1; i < chain->size(); ++i) {
    if (SSL_CTX_add1_chain_cert(context, (*chain)[i].get()) != 1) {
      return Refused("certificate: number " + std::to_string(i + 1) +
                     " of the chain: " + TakeSslError("cannot be used"));
    }
  }
  return Status::Ok();
}

Status UsePrivateKey(SSL_CTX* context, const std::string& text) {
  ERR_clear_error();
  const SslPtr<BIO> bio = TextBio(text);
  bool encrypted = false;
  const SslPtr<EVP_PKEY> key(bio ? PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassphrase, &encrypted) : nullptr);
  if (encrypted) {
    ERR_clear_error();
    return Refused("private_key: the key is encrypted with a passphrase; one without is needed");
  }
  if (!key) {
    ERR_clear_error();
    return Refused("private_key: the text holds no PEM private key that can be read");
  }
  if (SSL_CTX_use_PrivateKey(context, key.get()) != 1 || SSL_CTX_check_private_key(context) != 1) {
    return Refused("private_key: it is not the key of the certificate: " + TakeSslError("mismatch"));
  }
  return Status::Ok();
}

Status VerifyClients(SSL_CTX* context, const std::string& text) {
  const Result<std::vector<SslPtr<X509>>> authorities = ReadCertificates(text, "client_ca");
  if (!authorities.ok()) return authorities.status();
  X509_STORE* store = SSL_CTX_get_cert_store(context);
  for (const auto& authority : *authorities) {
    if (X509_STORE_add_cert(store, authority.get()) != 1 || SSL_CTX_add_client_CA(context, authority.get()) != 1) {
      return Refused("client_ca: " + TakeSslError("cannot be used"));
    }
  }
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  return Status::Ok();
}

// A client that sends no ALPN at all would get past SelectH2.
int RequireAlpn(SSL* ssl, int* alert, void* /*unused*/) {
  const unsigned char* names = nullptr;
  size_t size = 0;
  if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &names, &size) == 1) {
    return SSL_CLIENT_HELLO_SUCCESS;
  }
  *alert = SSL_AD_NO_APPLICATION_PROTOCOL;
  ERR_raise(ERR_LIB_SSL, SSL_R_NO_APPLICATION_PROTOCOL);
  return SSL_CLIENT_HELLO_ERROR;
}

int SelectH2(SSL* /*ssl*/, const unsigned char** chosen, unsigned char* chosen_size, const unsigned char* names,
             unsigned int size, void* /*unused*/) {
  unsigned char* name = nullptr;
  if (SSL_select_next_proto(&name, chosen_size, kH2, sizeof kH2, names, size) != OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  }
  *chosen = name;
  return SSL_TLSEXT_ERR_OK;
}

}  // namespace

std::string TakeSslError(const std::string& otherwise) {
  const unsigned long error = ERR_get_error();
  ERR_clear_error();
  const char* reason = ERR_reason_error_string(error);
  return reason == nullptr ? otherwise : reason;
}

TlsContext::TlsContext(std::unique_ptr<State> state) : state_(std::move(state)) {}
TlsContext::~TlsContext() = default;

Result<std::shared_ptr<const TlsContext>> TlsContext::Create(const TlsOptions& options) {
  ERR_clear_error();
  auto state = std::make_unique<State>();
  state->context.reset(SSL_CTX_new(TLS_server_method()));
  state->socket_bio.reset(NewSocketBioMethod());
  SSL_CTX* context = state->context.get();
  if (context == nullptr || !state->socket_bio) {
    return Status(Code::kInternal, "OpenSSL cannot make a TLS context: " + TakeSslError("out of memory"));
  }

  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                   SSL_OP_PRIORITIZE_CHACHA);
  SSL_CTX_set_mode(context,
                   SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
  // Many records with one read. Their buffer is there only while there is something in it.
  SSL_CTX_set_read_ahead(context, 1);
  SSL_CTX_set_default_read_buffer_len(context, 64 * 1024);
  // Sessions live in tickets at the clients; nothing to keep, nor to lock, here.
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_timeout(context, kSessionTimeout);
  if (SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1 || SSL_CTX_set_cipher_list(context, kCiphers) != 1 ||
      SSL_CTX_set_session_id_context(context, kSessionIdContext, sizeof kSessionIdContext - 1) != 1) {
    return Status(Code::kInternal, "OpenSSL refuses a setting: " + TakeSslError("unknown"));
  }
  SSL_CTX_set_client_hello_cb(context, RequireAlpn, nullptr);
  SSL_CTX_set_alpn_select_cb(context, SelectH2, nullptr);

  MS_RETURN_IF_ERROR(UseCertificate(context, options.certificate));
  MS_RETURN_IF_ERROR(UsePrivateKey(context, options.private_key));
  if (options.verify_client) MS_RETURN_IF_ERROR(VerifyClients(context, options.client_ca));
  return std::shared_ptr<const TlsContext>(new TlsContext(std::move(state)));
}

}  // namespace mindserve::net
