"""The metrics load on first use."""

import subprocess
import sys

import pytest

from astrogan import metrics


def test_everything_named_is_there():
    assert metrics.__all__ == sorted(metrics.__all__)
    for name in metrics.__all__:
        assert getattr(metrics, name).__module__.startswith("astrogan.metrics.")
        assert getattr(metrics, name).__doc__
    assert set(metrics.__all__) <= set(dir(metrics))
    with pytest.raises(AttributeError, match="no attribute 'lpips'"):
        _ = metrics.lpips


def test_importing_is_light():
    code = (
        "import sys, astrogan.metrics; from astrogan.metrics import *; "
        "print(sorted({m.partition('.')[0] for m in sys.modules} & "
        "{'astropy', 'galsim', 'matplotlib', 'photutils', 'scipy', 'skimage', 'torch'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
