"""A small mosaic; and worker processes find the backends of these tests by the path that they inherit."""

import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.nddata import CCDData, StdDevUncertainty

sys.path.insert(0, str(Path(__file__).parent))

from catalog_backends import SHAPE, mosaic_wcs


@pytest.fixture
def mosaic(rng):
    data = rng.normal(size=SHAPE)
    for x, y in rng.uniform(0, 1, (40, 2)) * SHAPE[::-1]:
        yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
        data += 80 * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / 8)
    return CCDData(
        data.astype(np.float32),
        unit="nJy",
        wcs=mosaic_wcs(),
        uncertainty=StdDevUncertainty(np.ones(SHAPE, np.float32)),
    )


@pytest.fixture
def path(mosaic, tmp_path):
    mosaic.write(tmp_path / "mosaic.fits")
    return tmp_path / "mosaic.fits"
