#include "net/tls_identity.h"

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <array>
#include <memory>

namespace mindserve::net {
namespace {

// As gRPC shows it: names, addresses in their usual form; other kinds not at all.
std::string AlternativeName(const GENERAL_NAME* name) {
  switch (name->type) {
    case GEN_DNS:
    case GEN_EMAIL:
    case GEN_URI: {
      const ASN1_IA5STRING* text = name->d.ia5;
      return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
              static_cast<size_t>(ASN1_STRING_length(text))};
    }
    case GEN_IPADD: {
      const ASN1_OCTET_STRING* address = name->d.iPAddress;
      const int size = ASN1_STRING_length(address);
      if (size != 4 && size != 16) return "";
      std::array<char, INET6_ADDRSTRLEN> text{};
      ::inet_ntop(size == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(address), text.data(), text.size());
      return text.data();
    }
    default:
      return "";
  }
}

struct Deleter {
  void operator()(GENERAL_NAMES* names) const { GENERAL_NAMES_free(names); }
  void operator()(BIO* bio) const { BIO_free(bio); }
};

}  // namespace

std::string CommonName(const X509* certificate) {
  const X509_NAME* subject = X509_get_subject_name(certificate);
  int last = -1;
  for (int i = -1; (i = X509_NAME_get_index_by_NID(subject, NID_commonName, i)) >= 0;) last = i;
  if (last < 0) return "";
  unsigned char* utf8 = nullptr;
  const int size = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, last)));
  if (size < 0) return "";
  std::string name(reinterpret_cast<char*>(utf8), static_cast<size_t>(size));
  OPENSSL_free(utf8);
  const bool printable = std::all_of(name.begin(), name.end(), [](unsigned char c) { return c >= 0x20 && c != 0x7f; });
  return printable ? name : "";
}

AuthProperties TlsProperties(X509* certificate) {
  AuthProperties properties = {{"transport_security_type", "ssl"}};
  if (certificate == nullptr) return properties;
  if (std::string name = CommonName(certificate); !name.empty()) {
    properties.emplace_back("x509_common_name", std::move(name));
  }
  const std::unique_ptr<GENERAL_NAMES, Deleter> names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; names && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    std::string name = AlternativeName(sk_GENERAL_NAME_value(names.get(), i));
    if (!name.empty()) properties.emplace_back("x509_subject_alternative_name", std::move(name));
  }
  const std::unique_ptr<BIO, Deleter> pem(BIO_new(BIO_s_mem()));
  if (pem && PEM_write_bio_X509(pem.get(), certificate) == 1) {
    char* text = nullptr;
    const long size = BIO_get_mem_data(pem.get(), &text);
    properties.emplace_back("x509_pem_cert", std::string(text, static_cast<size_t>(size)));
  }
  return properties;
}

}  // namespace mindserve::net
