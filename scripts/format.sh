#!/usr/bin/env bash
# Rewrites files the way lint.sh wants them.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
scripts/setup.sh
ruff check --fix .
ruff format .
clang_format -i
