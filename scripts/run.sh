#!/usr/bin/env bash
# Builds, then serves two of the examples and asks them. The answers are checked, so that its exit status says if all is well.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
scripts/build.sh
# The server reports what it does on stderr; here only what is wrong.
export GLOG_v="${GLOG_v:-2}"
exec "$PY" example/demo.py
