#!/usr/bin/env bash
# Builds the clients of tests/interop that are not Python's, into build/interop: JavaScript's with npm, Go's with the Go
# packages of Debian and Ubuntu. What can't be built for lack of a tool is left out, and its tests skip; in CI that is an
# error. Nothing is done again until what it is made of changes.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

SOURCES=tests/interop
TREE=build/interop
# Where those packages put their sources.
GO_SOURCES=/usr/share/gocode

# client <name> <what is missing, or nothing> <build function> <files…>
client() {
  local name="$1" missing="$2" build="$3" stamp
  if [[ -n "$missing" ]]; then
    [[ -z "${CI:-}" ]] || die "the interop tests need $missing"
    echo "The interop tests of $name are left out: $missing is missing (docs/install.md)" >&2
    return
  fi
  stamp="$(cat "${@:4}" scripts/interop.sh | cksum)"
  [[ -f "$TREE/$name/.stamp" && "$(cat "$TREE/$name/.stamp")" == "$stamp" ]] && return
  say "Building the interop client for $name"
  rm -rf "${TREE:?}/$name"
  mkdir -p "$TREE/$name"
  "$build" || die "the interop client for $name could not be built"
  echo "$stamp" >"$TREE/$name/.stamp"
}

build_node() {
  cp "$SOURCES"/node/* "$TREE/node/"
  # No script of a package is needed, so none is run.
  npm ci --prefix "$TREE/node" --ignore-scripts --no-audit --no-fund --silent </dev/null
}

build_go() {
  (cd "$SOURCES/go" && GO111MODULE=off GOPATH="$GO_SOURCES" GOFLAGS='' go build -o "$OLDPWD/$TREE/go/client" .)
}

node_missing=""
command -v node >/dev/null && command -v npm >/dev/null || node_missing="Node.js with npm"
go_missing=""
command -v go >/dev/null || go_missing="Go"
[[ -d "$GO_SOURCES/src/google.golang.org/grpc" ]] || go_missing="${go_missing:-golang-google-grpc-dev}"

client node "$node_missing" build_node "$SOURCES"/node/*
client go "$go_missing" build_go "$SOURCES"/go/*
