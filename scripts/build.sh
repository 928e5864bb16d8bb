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
  # By way of a folder of its own: a server may be running from .venv, and rewriting a file that it has mapped would crash
  # it. A new file takes the old one's name instead, and only if there is something new.
  rm -rf "$TREE/installed"
  cmake --install "$TREE" --prefix "$TREE/installed" >/dev/null
  packages="$("$PY" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')"
  while read -r file; do
    cmp -s "$TREE/installed/$file" "$packages/$file" && continue
    mkdir -p "$packages/$(dirname "$file")"
    cp -p "$TREE/installed/$file" "$packages/$file.new"
    mv -f "$packages/$file.new" "$packages/$file"
  done < <(cd "$TREE/installed" && find . -type f)
fi
