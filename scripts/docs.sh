#!/usr/bin/env bash
# Builds docs/ into build/docs as HTML; a broken link is an error.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
scripts/setup.sh
if ! "$PY" -c 'import mkdocs' 2>/dev/null; then
  "$PY" scripts/requirements.py docs | "$PY" -m pip install -q --disable-pip-version-check --no-input -r /dev/stdin
fi
"$PY" -m mkdocs build -q --strict --config-file scripts/mkdocs.yml
say "build/docs/index.html"
