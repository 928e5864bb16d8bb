// The messages of the built-in services: health, reflection, Ray Serve's.
#include <string>

#include "fuzz/input.h"
#include "wire/descriptors.h"
#include "wire/health.h"
#include "wire/ray_serve.h"
#include "wire/reflection.h"
#include "wire/test_messages.h"

namespace mindserve::fuzz {
namespace {

// A FileDescriptorSet of two files, one of which imports the other: a message with an extension range, an extension, an
// enum and a service.
std::string Files() {
  using wire::test::Field;
  using wire::test::Varint;
  const std::string range = Field(5, Varint(1, 100) + Varint(2, 200));
  const std::string message = Field(4, Field(1, "M") + Field(2, Field(1, "f") + Varint(3, 1)) + range);
  const std::string choice = Field(5, Field(1, "E") + Field(2, Field(1, "ZERO")));
  const std::string base = Field(1, "base.proto") + Field(2, "b") + message + choice;
  const std::string extension = Field(7, Field(1, "x") + Field(2, ".b.M") + Varint(3, 123));
  const std::string service = Field(6, Field(1, "S") + Field(2, Field(1, "Do")));
  const std::string top = Field(1, "top.proto") + Field(2, "t") + Field(3, "base.proto") + extension + service;
  return Field(1, base) + Field(1, top);
}

// An answer to the request as the reflection service makes it.
std::string Answer(const wire::DescriptorIndex& index, const wire::ReflectionRequest& request) {
  using Kind = wire::ReflectionRequest::Kind;
  std::optional<wire::DescriptorIndex::File> file;
  switch (request.kind) {
    case Kind::kListServices:
      return wire::WriteServices(request, {"t.S"});
    case Kind::kAllExtensionNumbersOfType:
      if (const auto numbers = index.ExtensionNumbers(request.text)) {
        return wire::WriteExtensionNumbers(request, *numbers);
      }
      break;
    case Kind::kFileByFilename:
      file = index.FileNamed(request.text);
      break;
    case Kind::kFileContainingSymbol:
      file = index.FileContaining(request.text);
      break;
    case Kind::kFileContainingExtension:
      file = index.FileExtending(request.text, request.extension_number);
      break;
    case Kind::kNone:
      break;
  }
  if (file) return wire::WriteFiles(request, index.WithImports(*file));
  return wire::WriteReflectionError(request, {Code::kNotFound, "there is none"});
}

void Run(std::span<const std::byte> bytes) {
  static const wire::DescriptorIndex index = *wire::DescriptorIndex::Create(Files(), "");
  if (const auto name = wire::ReadHealthRequest(bytes); name.ok()) FUZZ_REQUIRE(name->size() <= bytes.size());
  (void)wire::CheckEmptyMessage(bytes, "Request");
  if (const auto request = wire::ReadReflectionRequest(bytes); request.ok()) {
    const std::string answer = Answer(index, *request);
    // The answer repeats the request, and the longest thing to say are the two files.
    FUZZ_REQUIRE(!answer.empty() && answer.size() <= 2 * bytes.size() + 512);
  }
}

}  // namespace
}  // namespace mindserve::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  mindserve::fuzz::Run(std::as_bytes(std::span(data, size)));
  return 0;
}
