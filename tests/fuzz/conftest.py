"""The fuzzing targets are a module beside the tests, which ``run_atheris.py`` uses too."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

collect_ignore = ["run_atheris.py"]  # a program, of a package that the tests do without
