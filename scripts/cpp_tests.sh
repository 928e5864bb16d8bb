#!/usr/bin/env bash
# cpp_tests.sh <preset>: builds the C++ tests in build/<preset> and runs them. Presets: CMakePresets.json.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
preset="${1:?which preset: debug, release, asan or tsan}"
scripts/setup.sh

say "Building the C++ tests ($preset)"
configure "$preset"
cmake --build --preset "$preset"
say "Running the C++ tests ($preset)"
log="build/$preset/tests.log"
run() {
  if [[ -t 1 ]]; then
    ctest --preset "$preset" --progress "$@"
  else
    # A log needs only what did not pass, and the summary.
    ctest --preset "$preset" "$@" | tee "$log" | grep -vE '^ *(Start +[0-9]+:|[0-9]+/[0-9]+ Test .* Passed )'
  fi
}
if run; then exit; fi
# CI's machines have other work as well: what failed there has a second try, by itself. What a sanitizer found does not.
if [[ -z "${CI:-}" ]] || grep -qE 'Sanitizer|runtime error:' "$log"; then exit 8; fi
say "Once more: the C++ tests that failed ($preset)"
run --rerun-failed --parallel 1
