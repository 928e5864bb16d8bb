#!/usr/bin/env bash
# The Python tests with the native module under AddressSanitizer and UndefinedBehaviorSanitizer, in this process and in
# every one that the tests start. Options go to pytest. What any process reports fails the run, whatever its test says.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
scripts/build.sh
scripts/interop.sh

say "Building the native module (asan)"
configure asan
cmake --build --preset asan --target _native

# An environment of its own that has what .venv has, but another native module. Files named *.pth in .venv are not read
# from here, so that .venv's module stays out.
overlay="$PWD/build/asan/venv"
[[ -x "$overlay/bin/python" ]] || "$PY" -m venv --without-pip "$overlay"
platlib='import sysconfig; print(sysconfig.get_path("platlib"))'
theirs="$("$PY" -c "$platlib")"
ours="$("$overlay/bin/python" -c "$platlib")"
echo "$theirs" >"$ours/base.pth"
cp "$theirs"/_editable_skbc_mindserve.* "$ours"
mkdir -p "$ours/mindserve"
cp build/asan/csrc/bindings/_native.*.so "$ours/mindserve"
for program in "$VENV"/bin/*; do
  [[ -e "$overlay/bin/${program##*/}" ]] || ln -s "$program" "$overlay/bin/${program##*/}"
done

# Python is not linked with the sanitizers' runtime: it has to be there before all else, and so the C++ library, of whose
# functions it replaces some.
clang="$(find_clang)"
runtime="$("$clang" -print-file-name="libclang_rt.asan-$(uname -m).so")"
[[ -f "$runtime" ]] || die "$clang has no shared runtime of AddressSanitizer ($runtime): sudo apt-get install libclang-rt-14-dev"
library="$("$clang" -print-file-name=libstdc++.so.6)"
reports="$PWD/build/asan/reports"
rm -rf "$reports"
mkdir -p "$reports"
# Leaks: an interpreter frees little of what it has when it ends; the C++ tests look for ours. Too much memory is an
# error that tests ask for; they watch how much is held, too, so that little of what was freed may be kept for errors to
# show. And a crash that a test makes on purpose is no finding: it has to look like a crash.
export ASAN_OPTIONS="detect_leaks=0:detect_stack_use_after_return=1:strict_string_checks=1:allocator_may_return_null=1:quarantine_size_mb=16:handle_segv=0:handle_abort=0:log_path=$reports/report"
export UBSAN_OPTIONS="print_stacktrace=1:log_path=$reports/report"
export PYTHONMALLOC=malloc  # what numpy and the module get from Python is watched as well

say "Running the Python tests (asan)"
status=0
LD_PRELOAD="$runtime $library" "$overlay/bin/python" -m pytest -q -n 2 --dist loadfile -p no:cacheprovider "$@" || status=$?
# That memory was not to be had is a warning, and no finding: there are tests that ask for more than there is.
found="$( (grep -rlE 'ERROR:|runtime error:' "$reports" || true) | sort | head -10)"
if [[ -n "$found" ]]; then
  say "Reports of the sanitizers, the first of each of up to ten processes"
  for report in $found; do
    echo "-- $report"
    head -40 "$report"
  done
  ((status)) || status=1
fi
exit "$status"
