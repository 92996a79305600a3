"""``python -m astrogan``: the same as the command ``astrogan``."""

import sys

from astrogan.cli import main

sys.exit(main())
