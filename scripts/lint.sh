#!/usr/bin/env bash
# Everything that can be said about the code without running it. Goes on after a finding, to show them all.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
scripts/setup.sh

failed=0
check() {
  say "$1"
  "${@:2}" || failed=1
}
check "ruff check" ruff check .
check "ruff format" ruff format --check .
check "mypy" mypy
check "clang-format" clang_format --dry-run -Werror
exit "$failed"
