"""`python -m specmm`."""

import sys

from specmm.cli.process import run

if __name__ == "__main__":
    sys.exit(run())
