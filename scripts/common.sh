# Sourced by the other scripts: strict mode, the repository root as working directory, the virtual environment's paths.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV="$PWD/.venv"
PY="$VENV/bin/python"
# What pip installed (cmake, ninja, ruff, …) comes before what the system has. Not activated: a caller's own environment
# must not leak into the build.
export PATH="$VENV/bin:$PATH"
unset PYTHONHOME PYTHONPATH VIRTUAL_ENV
# CMake reads it when a build tree is first configured.
if [[ -z "${CMAKE_CXX_COMPILER_LAUNCHER:-}" ]] && command -v ccache >/dev/null; then
  export CMAKE_CXX_COMPILER_LAUNCHER=ccache
fi

say() { printf '\033[1m==> %s\033[0m\n' "$*"; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# The clang for sanitizers and fuzzers: $CLANG, the oldest release that the code is held to, or the system's.
find_clang() {
  local candidate
  for candidate in "${CLANG:-}" clang++-14 clang++; do
    if [[ -n "$candidate" ]] && command -v "$candidate"; then return; fi
  done
  die "sanitizers and fuzzers need clang 14 or newer with its runtime: sudo apt-get install clang-14 libclang-rt-14-dev llvm-14, or name another: CLANG=clang++-19"
}

# configure <preset>: its tree in build/, if there is none yet, or one of an earlier preset.
configure() {
  [[ "build/$1/build.ninja" -nt CMakePresets.json ]] && return
  rm -f "build/$1/CMakeCache.txt"
  local options=()
  if [[ "$1" == asan || "$1" == tsan ]]; then
    # An assignment of its own: a failure inside of another command would go unnoticed.
    local clang
    clang="$(find_clang)"
    options+=(-DCMAKE_CXX_COMPILER="$clang")
  fi
  cmake --preset "$1" "${options[@]}" >/dev/null
}

# Reports name functions and lines only if this is found. Debian has it under a name that clang does not look for.
symbolizer="$(command -v llvm-symbolizer || command -v llvm-symbolizer-14 || true)"
if [[ -n "$symbolizer" ]]; then
  export ASAN_SYMBOLIZER_PATH="$symbolizer" TSAN_SYMBOLIZER_PATH="$symbolizer"
fi

# clang_format <options…>: over every C++ file of the project.
clang_format() {
  find csrc benchmarks \( -name '*.h' -o -name '*.cc' \) -print0 | xargs -0 -r clang-format "$@"
}
