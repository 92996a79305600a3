"""The tests' side of ``command_server.py``, and what they all assert."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Server:
    """The program that runs commands."""

    def __init__(self):
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("command_server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._process.stdout.readline() == "ready\n"

    def __call__(self, **job):
        return self.together(job)[0]

    def together(self, *jobs):
        self._process.stdin.write(json.dumps({"together": jobs}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(60)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def errors(done):
    """The lines that are no warnings and no progress of the command."""
    return [line for line in done["said"].splitlines() if line.startswith("astrogan: ") and ": warning:" not in line]


def assert_said_in_one_line(done, *words, status=1):
    assert done["status"] == status, done
    assert "Traceback" not in done["said"], done["said"]
    assert len(errors(done)) == 1, done["said"]
    for word in words:
        assert word in errors(done)[0], done["said"]
