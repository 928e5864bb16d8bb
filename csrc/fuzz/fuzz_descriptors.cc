// The descriptors of users' services, as their servables give them.
#include <string_view>

#include "fuzz/input.h"
#include "wire/descriptors.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace mindserve;
  const std::string_view users(reinterpret_cast<const char*>(data), size);
  // As the built-in ones, too: then all is there twice.
  for (const std::string_view built_in : {std::string_view(), users}) {
    const auto index = wire::DescriptorIndex::Create(users, built_in);
    if (!index.ok()) {
      FUZZ_REQUIRE(index.status().code() == Code::kInvalidArgument);
      continue;
    }
    for (const std::string_view symbol : {"t.M", "t.M.f", "t.E", "t.S", "t.S.Do", "t.x"}) {
      const auto file = index->FileContaining(symbol);
      if (!file) continue;
      // Each once, however they import each other.
      size_t bytes = 0;
      for (const std::string_view each : index->WithImports(*file)) bytes += each.size();
      // A file may be there under two names, and under a name that is longer.
      FUZZ_REQUIRE(bytes <= 4 * size + 4096);
    }
    if (const auto numbers = index->ExtensionNumbers("t.M")) {
      for (const int32_t number : *numbers) FUZZ_REQUIRE(index->FileExtending("t.M", number).has_value());
    }
  }
  return 0;
}
