#!/usr/bin/env bash
# Builds, then serves two of the examples and asks them. The answers are checked, so that its exit status says if all is well.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
scripts/build.sh
exec "$PY" example/demo.py
