#!/usr/bin/env bash
# All tests: C++, then Python. The Python ones use the package as installed in .venv, optimised as users get it.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
scripts/build.sh
scripts/interop.sh
scripts/cpp_tests.sh debug
say "Running the Python tests"
"$PY" -m pytest -q -n 2 --dist loadfile "$@"
