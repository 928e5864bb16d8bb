"""Load with faults, and the account of every request: ``python -m chaos``. docs/reliability.md says what it proves."""
