#!/usr/bin/env bash
# Fuzzers, each for FUZZ_SECONDS (60), or until it has tried FUZZ_RUNS inputs in all; FUZZ_JOBS at a time (2). Options and
# names of fuzzers go to scripts/fuzz.py: with --write docs/reliability.md the figures of that page are made anew.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
scripts/build.sh
# Millions of inputs are tried in a build that is optimised and has no UndefinedBehaviorSanitizer, in a third of the time at best.
# What is kept of them is run in the other one by the next run for a minute, or by --merge.
build=$([[ -n "${FUZZ_RUNS:-}" ]] && echo fuzz || echo asan)
configure "$build"
say "Building the fuzzers"
cmake --build --preset "$build" --target fuzzers
if ! "$PY" -c 'import atheris' 2>/dev/null; then
  "$PY" scripts/requirements.py --group fuzz >"$VENV/.fuzz"
  "$PY" -m pip install -q --disable-pip-version-check --no-input -r "$VENV/.fuzz" </dev/null ||
    die "pip could not install atheris: name the fuzzers to run, without rest_body and config_file"
fi
say "Fuzzing"
exec "$PY" scripts/fuzz.py --build "$build" --seconds "${FUZZ_SECONDS:-60}" ${FUZZ_RUNS:+--runs "$FUZZ_RUNS"} --jobs "${FUZZ_JOBS:-2}" "$@"
