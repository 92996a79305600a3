"""Fixtures for all tests: where real images are, and a steady environment."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# Shared machines stall; a property is about values, not about milliseconds.
settings.register_profile(
    "astrogan",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("astrogan")


@pytest.fixture(scope="session")
def data_dir():
    """The folder of real images that ASTROGAN_DATA names; without it the test is skipped."""
    folder = os.environ.get("ASTROGAN_DATA", "")
    if not folder:
        pytest.skip("ASTROGAN_DATA is not set")
    path = Path(folder)
    assert path.is_dir(), f"ASTROGAN_DATA={folder!r} is no folder"
    return path


@pytest.fixture
def rng():
    """A generator of its own for each test."""
    return np.random.default_rng(20261121)


@pytest.fixture(autouse=True)
def _global_generator_untouched():
    """No test, so no code under test, may touch numpy's global generator."""
    before = np.random.get_state()[1].copy()
    yield
    assert np.array_equal(before, np.random.get_state()[1]), "numpy's global random generator was used"


@pytest.fixture(autouse=True)
def _agg(monkeypatch):
    """Figures are drawn without a screen."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
