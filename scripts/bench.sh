#!/usr/bin/env bash
# Measures against a do-nothing server and prints tables. Options go to benchmarks/run.py: scripts/bench.sh --help.
# Needs h2load, which Debian and Ubuntu have in nghttp2-client.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
command -v h2load >/dev/null || die "h2load is missing: sudo apt-get install nghttp2-client"
scripts/build.sh
[[ -f build/release/build.ninja ]] || cmake --preset release >/dev/null
cmake --build --preset release --target do_nothing_server stream_source >&2
"$PY" example/resnet50/prepare_model.py >&2
exec "$PY" benchmarks/run.py --resnet50 example/resnet50/resnet50/1/resnet50.onnx "$@"
