#!/usr/bin/env bash
# Makes this machine able to build and test: system packages, .venv, Python packages. Does nothing when nothing changed.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# Debian's and Ubuntu's names; docs/install.md has other distributions'.
PACKAGES=(make pkg-config libnghttp2-dev libssl-dev libprotozero-dev libsimdjson-dev zlib1g-dev libgtest-dev libgmock-dev openssl nghttp2-client)
# What the clients of tests/interop are built with. Half a gigabyte: only where no test may be left out.
if [[ -n "${CI:-}" ]]; then
  PACKAGES+=(golang-go golang-google-grpc-dev)
  # For the sanitizers and the fuzzers.
  PACKAGES+=(clang-14 libclang-rt-14-dev llvm-14)
  # In which a test opens the page of the REST server. Ubuntu's package of this name is not a browser but a snap.
  command -v chromium >/dev/null || command -v google-chrome >/dev/null || PACKAGES+=(chromium)
  command -v curl >/dev/null || PACKAGES+=(curl)
  command -v npm >/dev/null || PACKAGES+=(nodejs npm)
fi

STAMP="$VENV/.setup"
fingerprint() { { cat pyproject.toml scripts/setup.sh "$VENV/pyvenv.cfg" 2>/dev/null; echo "${CI:+complete}"; } | cksum; }
if [[ -x "$PY" && -f "$STAMP" && "$(cat "$STAMP")" == "$(fingerprint)" ]]; then
  exit 0
fi

# -- Which Python ------------------------------------------------------------------------------------------------------

# has <python> <what>: version (3.10 or newer), headers (Python.h), venv (can make one with pip in it).
has() {
  "$1" - "$2" >/dev/null 2>&1 <<'PROBE'
import os, sys, sysconfig
what = sys.argv[1]
if what == "version":
    ok = sys.version_info >= (3, 10)
elif what == "headers":
    ok = os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))
else:
    import ensurepip, venv
    ok = True
sys.exit(not ok)
PROBE
}

# The first of the candidates that is ready as it is; else the first whose missing parts the system's packages bring,
# which is the system's own.
choose_python() {
  local candidate fallback=""
  local candidates=(python3 python python3.14 python3.13 python3.12 python3.11 python3.10 /usr/bin/python3)
  [[ -n "${PYTHON:-}" ]] && candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    candidate="$(command -v "$candidate" || true)"
    [[ -n "$candidate" ]] && has "$candidate" version || continue
    if has "$candidate" headers && has "$candidate" venv; then
      echo "$candidate"
      return
    fi
    [[ -z "$fallback" && "$(readlink -f "$candidate")" == /usr/bin/* ]] && fallback="$candidate"
  done
  echo "$fallback"
}

BASE_PYTHON=""
if [[ ! -x "$PY" ]]; then
  BASE_PYTHON="$(choose_python)"
  [[ -n "$BASE_PYTHON" ]] || die "no Python 3.10 or newer found; install one, or name it: PYTHON=/path/to/python3 make setup"
  version="$("$BASE_PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
  if [[ "$BASE_PYTHON" == /usr/bin/python3 || "$(readlink -f /usr/bin/python3)" == "$(readlink -f "$BASE_PYTHON")" ]]; then
    prefix=python3
  else
    prefix="python$version"
  fi
  has "$BASE_PYTHON" headers || PACKAGES+=("$prefix-dev")
  has "$BASE_PYTHON" venv || PACKAGES+=("$prefix-venv")
fi

# -- System packages ---------------------------------------------------------------------------------------------------

if [[ -z "${CXX:-}" ]] && ! command -v g++ >/dev/null && ! command -v clang++ >/dev/null; then
  PACKAGES+=(g++)
fi

if command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; then
  missing=()
  for package in "${PACKAGES[@]}"; do
    [[ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" == installed ]] || missing+=("$package")
  done
  if ((${#missing[@]})); then
    install=(apt-get install -y --no-install-recommends "${missing[@]}")
    if [[ "$(id -u)" == 0 ]]; then
      root=()
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
      root=(sudo -n)
    else
      die "system packages are missing; have an administrator run, then try again:
  sudo apt-get update && sudo ${install[*]}"
    fi
    say "Installing system packages: ${missing[*]}"
    # Lists of a fresh container are empty, those of an old machine out of date; one unreachable source is no reason to stop.
    "${root[@]}" apt-get update -qq </dev/null || echo "apt-get update failed; going on with the lists that are there" >&2
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive "${install[@]}" -qq </dev/null >/dev/null ||
      die "'${install[*]}' failed"
  fi
else
  echo "No apt-get here: the names of the packages to install on this system are in docs/install.md." >&2
fi

# -- Python packages ---------------------------------------------------------------------------------------------------

if [[ ! -x "$PY" ]]; then
  say "Making .venv with $("$BASE_PYTHON" --version) ($BASE_PYTHON)"
  "$BASE_PYTHON" -m venv "$VENV" || die "'$BASE_PYTHON -m venv' failed; remove .venv and try again"
fi
has "$PY" version || die ".venv holds a Python older than 3.10; remove .venv and try again"
"$PY" -c 'import pip' 2>/dev/null || "$PY" -m ensurepip -q

# The extension is built in this environment rather than in a throw-away one, so that a rebuild finds its tools again.
# The engine, the tests' and the tools' packages come with it.
say "Installing Python packages"
"$PY" scripts/requirements.py build cpu test dev >"$VENV/.requirements"
"$PY" -m pip install -q --disable-pip-version-check --no-input -r "$VENV/.requirements" </dev/null ||
  die "pip could not install the Python packages"
"$PY" scripts/requirements.py --group models >"$VENV/.models"
"$PY" -m pip install -q --disable-pip-version-check --no-input --no-deps -r "$VENV/.models" </dev/null ||
  die "pip could not install the packages that hold the examples' models"

fingerprint >"$STAMP"
