#!/usr/bin/env bash
# The benchmarks of benchmarks/README.md. Needs h2load, which Debian and Ubuntu have in nghttp2-client.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
scripts/build.sh
command -v h2load >/dev/null || die "h2load is missing: sudo apt-get install nghttp2-client"
exec "$PY" benchmarks/run.py "$@"
