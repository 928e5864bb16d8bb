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

# clang_format <options…>: over every C++ file of the project.
clang_format() {
  find csrc benchmarks \( -name '*.h' -o -name '*.cc' \) -print0 | xargs -0 -r clang-format "$@"
}
