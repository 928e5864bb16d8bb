"""``python -m mindserve``: the command line."""

from mindserve.cli import main

main()
