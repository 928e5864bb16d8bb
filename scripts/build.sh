#!/usr/bin/env bash
# Builds the native core and makes `import mindserve` in .venv mean this checkout: Python files are used where they lie,
# the extension module is installed beside pip's redirection. pip is asked only when what it reads has changed; a change
# of C++ or CMake files is CMake's business, which takes no time when there is none.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
scripts/setup.sh

TREE=build/python
STAMP="$VENV/.installed"
fingerprint() { cat pyproject.toml scripts/build.sh | cksum; }

if [[ ! -f "$TREE/build.ninja" || ! -f "$STAMP" || "$(cat "$STAMP")" != "$(fingerprint)" ]]; then
  say "Building and installing mindserve (editable; the first time takes minutes)"
  rm -f "$STAMP"
  "$PY" -m pip install -q --disable-pip-version-check --no-input --no-build-isolation --no-deps \
    --config-settings=build-dir="$TREE" --config-settings=cmake.define.MINDSERVE_WERROR="${CI:+ON}" -e . </dev/null || die "the build failed; its output is above"
  fingerprint >"$STAMP"
else
  cmake --build "$TREE" >"$TREE/.log" 2>&1 || {
    cat "$TREE/.log" >&2
    die "the build failed; its output is above"
  }
  cmake --install "$TREE" --prefix "$("$PY" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')" >/dev/null
fi
