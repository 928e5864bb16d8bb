#!/usr/bin/env bash
# cpp_tests.sh <preset>: builds the C++ tests in build/<preset> and runs them. Presets: CMakePresets.json.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
preset="${1:?which preset: debug, release, asan or tsan}"
scripts/setup.sh

say "Building the C++ tests ($preset)"
configure "$preset"
cmake --build --preset "$preset"
say "Running the C++ tests ($preset)"
if [[ -t 1 ]]; then
  ctest --preset "$preset" --progress
else
  # A log needs only what did not pass, and the summary.
  ctest --preset "$preset" | grep -vE '^ *(Start +[0-9]+:|[0-9]+/[0-9]+ Test .* Passed )'
fi
