"""``python -m mindserve.worker --parent PID --control-fd N --link-fd M``: for the master only."""

import sys

from mindserve.worker.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
