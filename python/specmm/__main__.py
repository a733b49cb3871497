"""`python -m specmm`."""

import sys

from specmm.cli import main

if __name__ == "__main__":
    sys.exit(main())
