"""``python -m astrogan.cli``."""

import sys

from astrogan.cli import main

if __name__ == "__main__":
    sys.exit(main())
