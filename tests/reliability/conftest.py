"""One program that runs commands serves all these tests."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="session")
def server():
    """Runs commands; see ``command_server.py``."""
    from command_client import Server

    server = Server()
    yield server
    server.close()
