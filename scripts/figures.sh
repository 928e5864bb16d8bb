#!/usr/bin/env bash
# Measures everything that docs/benchmarks.md shows, and writes it there: tables and plots. Options go to
# benchmarks/run.py: with --sweeps or --cases only those are made again, with --read FILE nothing is measured.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
scripts/setup.sh
if ! "$PY" -c 'import matplotlib' 2>/dev/null; then
  "$PY" scripts/requirements.py bench | "$PY" -m pip install -q --disable-pip-version-check --no-input -r /dev/stdin
fi
# Kept, so that a long run is not lost with its last table.
mkdir -p build
exec scripts/bench.sh --json build/figures.json --docs docs "$@"
