#include "net/tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <algorithm>
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

// What clients are told about the length of a session. Seconds.
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

// All objects of a kind in a PEM text, at least one. `read` takes the next one.
template <typename T>
Result<std::vector<SslPtr<T>>> ReadPem(const std::string& text, const std::string& what, const std::string& kind,
                                       T* (*read)(BIO*, T**, pem_password_cb*, void*)) {
  ERR_clear_error();
  const SslPtr<BIO> bio = TextBio(text);
  std::vector<SslPtr<T>> objects;
  bool asked = false;
  while (bio) {
    SslPtr<T> object(read(bio.get(), nullptr, NoPassphrase, &asked));
    if (!object) break;
    objects.push_back(std::move(object));
  }
  const unsigned long error = ERR_peek_last_error();
  const bool at_end = ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
  if (!at_end)
    return Refused(what + ": " + kind + " " + std::to_string(objects.size() + 1) +
                   " of the PEM text is damaged: " + TakeSslError("cannot be read"));
  ERR_clear_error();
  if (objects.empty()) return Refused(what + ": the text holds no PEM " + kind);
  return objects;
}

Result<std::vector<SslPtr<X509>>> ReadCertificates(const std::string& text, const std::string& what) {
  return ReadPem<X509>(text, what, "certificate", PEM_read_bio_X509);
}

// kForever for none.
time_t ToTime(const ASN1_TIME* time) {
  std::tm parts{};
  return time != nullptr && ASN1_TIME_to_tm(time, &parts) == 1 ? ::timegm(&parts) : kForever;
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

// OpenSSL checks either the client's certificate alone or wants a list of every authority up to the root, of which
// those that only sign other authorities seldom publish one.
int AllowMissingCrl(int well, X509_STORE_CTX* verification) {
  if (well == 1) return 1;
  if (X509_STORE_CTX_get_error(verification) != X509_V_ERR_UNABLE_TO_GET_CRL) return 0;
  if (X509_STORE_CTX_get_error_depth(verification) == 0) return 0;
  X509_STORE_CTX_set_error(verification, X509_V_OK);
  return 1;
}

Status UseCrl(X509_STORE* store, const std::string& text, time_t& until) {
  const auto crls = ReadPem<X509_CRL>(text, "client_crl", "X509 CRL", PEM_read_bio_X509_CRL);
  if (!crls.ok()) return crls.status();
  for (const auto& crl : *crls) {
    if (X509_STORE_add_crl(store, crl.get()) != 1) return Refused("client_crl: " + TakeSslError("cannot be used"));
    until = std::min(until, ToTime(X509_CRL_get0_nextUpdate(crl.get())));
  }
  X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
  return Status::Ok();
}

// Resuming a session verifies nothing again, and each new ticket would prolong it: it ends where a verification could
// come to another result. `resume_until`: when that is for any client, a time_t.
SSL_TICKET_RETURN CheckTicket(SSL* /*ssl*/, SSL_SESSION* session, const unsigned char* /*name*/, size_t /*name_size*/,
                              SSL_TICKET_STATUS status, void* resume_until) {
  if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW) return SSL_TICKET_RETURN_IGNORE_RENEW;
  const X509* client = SSL_SESSION_get0_peer(session);
  const time_t own = client == nullptr ? kForever : ToTime(X509_get0_notAfter(client));
  if (std::time(nullptr) > std::min(own, *static_cast<const time_t*>(resume_until))) {
    return SSL_TICKET_RETURN_IGNORE_RENEW;
  }
  return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
}

Status VerifyClients(const TlsOptions& options, SSL_CTX* context, time_t& resume_until) {
  const Result<std::vector<SslPtr<X509>>> authorities = ReadCertificates(options.client_ca, "client_ca");
  if (!authorities.ok()) return authorities.status();
  X509_STORE* store = SSL_CTX_get_cert_store(context);
  const time_t now = std::time(nullptr);
  for (const auto& authority : *authorities) {
    if (X509_STORE_add_cert(store, authority.get()) != 1 || SSL_CTX_add_client_CA(context, authority.get()) != 1) {
      return Refused("client_ca: " + TakeSslError("cannot be used"));
    }
    // By one that has expired already there can't be a session.
    const time_t until = ToTime(X509_get0_notAfter(authority.get()));
    if (until >= now) resume_until = std::min(resume_until, until);
  }
  if (!options.client_crl.empty()) MS_RETURN_IF_ERROR(UseCrl(store, options.client_crl, resume_until));
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
                     options.client_crl.empty() ? nullptr : AllowMissingCrl);
  if (SSL_CTX_set_session_ticket_cb(context, nullptr, CheckTicket, &resume_until) != 1) {
    return Status(Code::kInternal, "OpenSSL refuses a setting: " + TakeSslError("session tickets"));
  }
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
  // Sessions live in tickets at the clients, by keys that are this context's own; nothing to keep, nor to lock, here.
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
  if (options.verify_client) MS_RETURN_IF_ERROR(VerifyClients(options, context, state->resume_until));
  return std::shared_ptr<const TlsContext>(new TlsContext(std::move(state)));
}

}  // namespace mindserve::net
