#!/usr/bin/env bash
# compare.sh COMMIT… [-- OPTIONS]: builds each commit in a worktree of its own and counts there, with this checkout's
# benchmarks/instructions.py and its OPTIONS, the instructions of a request: what a change costs or saves, whatever else
# the machine does.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
commits=()
while [[ $# -gt 0 && "$1" != -- ]]; do
  commits+=("$1")
  shift
done
[[ ${#commits[@]} -gt 0 ]] || die "which commits? compare.sh COMMIT… [-- OPTIONS of benchmarks/instructions.py]"
shift || true
trees="$PWD/build/compare"
mkdir -p "$trees"

for commit in "${commits[@]}"; do
  hash="$(git rev-parse --short "$commit^{commit}")"
  tree="$trees/$hash"
  if [[ ! -f "$tree/.built" ]]; then
    say "Building $commit"
    git worktree prune
    git worktree add --quiet --force --detach "$tree" "$hash"
    cp -a "$VENV" "$tree/.venv"
    packages="$("$tree/.venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')"
    rm -rf "$tree/.venv/.installed" "$packages"/mindserve "$packages"/mindserve-* "$packages"/_editable_skbc_mindserve*
    (cd "$tree" && CCACHE_BASEDIR="$tree" CCACHE_NOHASHDIR=true scripts/build.sh </dev/null) >"$trees/$hash.log" 2>&1 ||
      die "$commit can't be built; see $trees/$hash.log"
    touch "$tree/.built"
  fi
  say "$hash $(git log -1 --format=%s "$hash")"
  "$tree/.venv/bin/python" benchmarks/instructions.py "$@"
done
