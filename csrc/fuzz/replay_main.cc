// What a fuzzer is where it is not built with libFuzzer: runs each input of the directories and files that it is given,
// once. So the inputs that were ever interesting, and those that once found something, are tests of every build.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "fuzz/input.h"

int main(int argc, char** argv) {
  std::vector<std::filesystem::path> inputs;
  for (int i = 1; i < argc; ++i) {
    if (argv[i][0] == '-') continue;  // an option of libFuzzer's, as -runs=0
    if (!std::filesystem::is_directory(argv[i])) {
      inputs.emplace_back(argv[i]);
      continue;
    }
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) inputs.push_back(entry.path());
  }
  std::ranges::sort(inputs);
  for (const auto& path : inputs) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
      std::fprintf(stderr, "%s cannot be read\n", path.c_str());
      return 2;
    }
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    // Before it runs: what it does wrong may end the process.
    std::fprintf(stderr, "%s\n", path.c_str());
    // In a block of exactly its size, as libFuzzer does it, so that the sanitizer sees one byte too far.
    const auto block = std::make_unique<uint8_t[]>(bytes.size());
    std::ranges::copy(bytes, block.get());
    LLVMFuzzerTestOneInput(block.get(), bytes.size());
  }
  if (inputs.empty()) {
    std::fprintf(stderr, "no inputs: expected directories or files\n");
    return 2;
  }
}
