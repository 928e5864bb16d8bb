#!/usr/bin/env bash
# All tests: C++, then Python; with --python only those, for who has had the C++ ones under a sanitizer. The Python ones
# use the package as installed in .venv, optimised as users get it. Other options go to pytest.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cpp=1
if [[ "${1:-}" == --python ]]; then
  cpp=0
  shift
fi
scripts/build.sh
scripts/interop.sh
if ((cpp)); then
  scripts/cpp_tests.sh debug
fi
say "Running the Python tests"
# CI's machines have other work as well: what fails there has a second try, and the summary names it.
tries=()
if [[ -n "${CI:-}" ]]; then tries=(--reruns 1 -raR); fi
"$PY" -m pytest -q -n 2 --dist loadfile ${tries[@]+"${tries[@]}"} "$@"
