#!/usr/bin/env bash
# Load with faults, and the account of every request. CHAOS_MINUTES: how long there are faults; CHAOS_SEED: repeats their
# order; CHAOS_CLIENTS: processes by each transport (2); CHAOS_SLACK: what the times that it allows are multiplied by.
# Options go to `python -m chaos`: with --write docs/reliability.md the figures of that page are made anew.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
scripts/build.sh
exec "$PY" -m chaos --minutes "${CHAOS_MINUTES:-5}" ${CHAOS_SEED:+--seed "$CHAOS_SEED"} \
  ${CHAOS_CLIENTS:+--clients "$CHAOS_CLIENTS"} --json build/chaos.json "$@"
